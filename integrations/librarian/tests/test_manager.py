import os
import pickle
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hera_librarian.transfer import TransferStatus

from conftest import Mover
from pysmurf_archiver_librarian.manager import ArchiverAsyncTransferManager


def manager(hostname: str = "storage-b") -> ArchiverAsyncTransferManager:
    return ArchiverAsyncTransferManager(hostname=hostname)


def books(folder: Path) -> list[tuple[Path, Path]]:
    """A file and a directory, with names that are no plain words."""
    (folder / "a book").mkdir()
    (folder / "é.g3").write_text("a")
    return [
        (folder / "a book", Path("/staging/uuid-1/obs/a book")),
        (folder / "é.g3", Path("/staging/uuid-2/é.g3")),
    ]


def test_a_batch_is_written_whole_into_the_spool(tmp_path: Path, mover: Mover, settings: Any) -> None:
    ours = manager()
    assert ours.batch_transfer(books(tmp_path), settings) is True
    assert mover.new() == [f"{ours.batch_id}.json"]
    assert mover.request(ours.batch_id) == {
        "v": 1,
        "batch": ours.batch_id,
        "link": "storage-b",
        "librarian": "librarian-a",
        "files": [
            {"local": f"{tmp_path}/a book", "remote": "/staging/uuid-1/obs/a book", "dir": True},
            {"local": f"{tmp_path}/é.g3", "remote": "/staging/uuid-2/é.g3", "dir": False},
        ],
    }
    assert ours.unwritten == []
    assert ours.submitted is not None and ours.submitted.tzinfo is timezone.utc
    modes = {path.name: path.stat().st_mode & 0o777 for path in [mover.spool, *mover.spool.iterdir()]}
    assert modes == {"spool": 0o700, "new": 0o700, "state": 0o700, "cancel": 0o700}
    assert (mover.spool / "new" / f"{ours.batch_id}.json").stat().st_mode & 0o777 == 0o600


def test_a_single_file_is_a_batch(tmp_path: Path, mover: Mover, settings: Any) -> None:
    ours = manager()
    assert ours.transfer(*books(tmp_path)[1], settings=settings) is True
    assert len(mover.request(ours.batch_id)["files"]) == 1


def test_a_batch_has_its_name_of_its_remote_paths(tmp_path: Path, spool: Path, settings: Any) -> None:
    names = []
    pairs = books(tmp_path)
    for paths in (pairs, pairs[::-1], [(tmp_path, pairs[0][1]), (tmp_path, pairs[1][1])], pairs[:1]):
        ours = manager()
        assert ours.batch_transfer(paths, settings)
        names.append(ours.batch_id)
    assert names[0] == names[1] == names[2] != names[3]
    # It stands in rows and folders of before: it must not change.
    assert manager().batch_transfer([(Path("/a"), Path("/b/c"))], settings)
    assert (spool / "new" / "80c286c37297c85d4b02507dc5a7a81e.json").exists()


def test_a_second_hand_over_changes_nothing(tmp_path: Path, mover: Mover, settings: Any) -> None:
    pairs = books(tmp_path)
    first, second, third = manager(), manager(), manager()
    assert first.batch_transfer(pairs, settings)
    path = mover.spool / "new" / f"{first.batch_id}.json"
    before = path.stat()
    assert second.batch_transfer(pairs, settings)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    mover.take(first.batch_id)
    assert third.batch_transfer(pairs, settings)
    assert mover.new() == []
    assert first.batch_id == second.batch_id == third.batch_id


REFUSED = [
    [],
    [("relative", "/b")],
    [("/a", "relative")],
    [("/a", "/staging/../etc/passwd")],
    [("/a", "/b\0c")],
    [("/a", "/b\udce9")],
    [("/a", "/b"), ("/c", "/b")],
]


@pytest.mark.parametrize("paths", REFUSED)
def test_no_is_said_to_what_can_never_work(
    paths: list[tuple[str, str]], mover: Mover, settings: Any, said: Any
) -> None:
    assert manager().batch_transfer(paths, settings) is False
    assert mover.new() == []
    assert "ERROR The batch is refused for good: " in said[0]


def test_no_is_said_where_the_receiver_names_no_host(mover: Mover, settings: Any) -> None:
    assert manager("").batch_transfer([("/a", "/b")], settings) is False


def unset(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIBRARIAN_ARCHIVER_SPOOL")


def relative(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBRARIAN_ARCHIVER_SPOOL", "spool")


def open_to_others(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.mkdir()
    spool.chmod(0o770)


def a_file(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.write_text("")


def full(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)


def source_does_not_answer(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Path.stat

    def stat(path: Path, **more: Any) -> os.stat_result:
        if path.name == "é.g3":
            raise OSError(5, "Input/output error")
        return genuine(path, **more)

    monkeypatch.setattr(Path, "stat", stat)


@pytest.mark.parametrize("trouble", [unset, relative, open_to_others, a_file, full, source_does_not_answer])
def test_a_spool_in_trouble_fails_no_batch(
    trouble: Any, tmp_path: Path, mover: Mover, settings: Any, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = books(tmp_path)
    with monkeypatch.context() as patch:
        trouble(mover.spool, patch)
        ours = manager()
        assert ours.batch_transfer(pairs, settings) is True
        assert said[0].startswith("ERROR Cannot hand over batch ")
        # As the queue keeps it.
        ours = pickle.loads(pickle.dumps(ours))
        assert ours.transfer_status(settings) == TransferStatus.INITIATED
        assert ours.gather_transfer_details(settings) is None
        ours.fail_transfer(settings)
        assert not list(mover.spool.glob("new/*.json"))
    if mover.spool.is_file():
        mover.spool.unlink()
    elif mover.spool.exists():
        mover.spool.chmod(0o700)
    assert ours.transfer_status(settings) == TransferStatus.INITIATED
    assert mover.new() == [f"{ours.batch_id}.json"]
    assert len(mover.request(ours.batch_id)["files"]) == 2
    mover.take(ours.batch_id)
    assert ours.transfer_status(settings) == TransferStatus.INITIATED
    assert mover.new() == []


@pytest.mark.parametrize("paths", [None, [None], [("/a",)], [(1, 2)], 5])
def test_nothing_raises_whatever_it_is_given(paths: Any, spool: Path, settings: Any) -> None:
    assert manager().batch_transfer(paths, settings) is False
    assert manager().batch_transfer([("/a", "/b")], None) is True


def handed_over(mover: Mover, settings: Any) -> ArchiverAsyncTransferManager:
    ours = manager()
    assert ours.batch_transfer([("/a", "/b")], settings)
    return ours


@pytest.mark.parametrize(
    ("status", "error", "means"),
    [
        ("running", None, TransferStatus.INITIATED),
        ("running", "the link to storage-b is down", TransferStatus.INITIATED),
        ("done", None, TransferStatus.COMPLETED),
        ("failed", "/a is gone", TransferStatus.FAILED),
        ("a word of a later version", None, TransferStatus.INITIATED),
    ],
)
def test_the_status_is_what_the_archiver_says(
    status: str, error: str | None, means: TransferStatus, mover: Mover, settings: Any, said: Any
) -> None:
    ours = handed_over(mover, settings)
    assert ours.transfer_status(settings) == TransferStatus.INITIATED
    mover.say(ours.batch_id, status, error=error)
    assert ours.transfer_status(settings) == means
    assert error is None or error in said[-1]


def test_a_batch_that_no_archiver_takes_is_told_of(mover: Mover, settings: Any, said: Any) -> None:
    ours = handed_over(mover, settings)
    ours.transfer_status(settings)
    assert not [line for line in said if line.startswith("WARNING")]
    ours.submitted = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert ours.transfer_status(settings) == TransferStatus.INITIATED
    assert said[-1].startswith(
        f"WARNING No archiver has taken batch {ours.batch_id} since 2026-01-02 03:04:05 UTC; does"
    )
    mover.take(ours.batch_id)
    ours.transfer_status(settings)
    assert len([line for line in said if line.startswith("WARNING")]) == 1


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"v": 2, "status": "done"}', '{"v": 1, "batch": "another", "status": "failed"}', "\xff"],
)
def test_a_state_that_is_none_is_waited_for(text: str, mover: Mover, settings: Any, said: Any) -> None:
    ours = handed_over(mover, settings)
    (mover.spool / "state" / f"{ours.batch_id}.json").write_text(text, encoding="latin-1")
    assert ours.transfer_status(settings) == TransferStatus.INITIATED
    assert ours.gather_transfer_details(settings) is None
    assert said[-1].startswith("ERROR Cannot ")


def test_what_was_never_handed_over_is_taken_up_anew(spool: Path, settings: Any) -> None:
    assert manager().transfer_status(settings) == TransferStatus.FAILED


def test_a_batch_is_cancelled_while_it_runs_and_not_after(mover: Mover, settings: Any) -> None:
    assert manager().fail_transfer(settings) is True
    ours = handed_over(mover, settings)
    for status, cancels in [("done", False), ("failed", False), (None, True), ("running", True)]:
        if status is None:
            (mover.spool / "state" / f"{ours.batch_id}.json").unlink()
        else:
            mover.say(ours.batch_id, status)
        assert ours.fail_transfer(settings) is True
        assert mover.cancelled() == ([ours.batch_id] if cancels else [])
        for name in mover.cancelled():
            (mover.spool / "cancel" / name).unlink()


def test_a_record_has_what_the_archiver_measured(mover: Mover, settings: Any) -> None:
    ours = handed_over(mover, settings)
    assert ours.gather_transfer_details(settings) is None
    mover.say(ours.batch_id, "done", end="2026-11-30T20:00:08+00:00", bytes=4_000)
    record = ours.gather_transfer_details(settings)
    assert record is not None
    assert record.model_dump() == {
        "task_id": ours.batch_id,
        "source_endpoint_id": "librarian-a",
        "destination_endpoint_id": "storage-b",
        "start_time": datetime(2026, 11, 30, 20, 0, 0, tzinfo=timezone.utc),
        "end_time": datetime(2026, 11, 30, 20, 0, 8, tzinfo=timezone.utc),
        "duration_seconds": 8.0,
        "bytes_transferred": 4_000,
        "effective_bandwidth_bps": 500.0,
    }
    mover.say(ours.batch_id, "done", end="2026-11-30T20:00:00Z", bytes=7)
    assert ours.gather_transfer_details(settings).effective_bandwidth_bps == 7.0


def test_what_is_valid_has_a_host_and_a_spool(mover: Mover, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert manager().valid(settings) is True
    assert manager("").valid(settings) is False
    monkeypatch.delenv("LIBRARIAN_ARCHIVER_SPOOL")
    assert manager().valid(settings) is False


def test_a_pickle_is_read_by_a_process_that_has_registered_nothing(mover: Mover, settings: Any, tmp_path: Path) -> None:
    ours = handed_over(mover, settings)
    # Rows of before name the class by this path.
    assert f"{type(ours).__module__}.{type(ours).__qualname__}" == (
        "pysmurf_archiver_librarian.manager.ArchiverAsyncTransferManager"
    )
    (tmp_path / "row").write_bytes(pickle.dumps(ours))
    script = f"import pickle; print(pickle.load(open({str(tmp_path / 'row')!r}, 'rb')).batch_id)"
    read = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert read.stdout.strip() == ours.batch_id
