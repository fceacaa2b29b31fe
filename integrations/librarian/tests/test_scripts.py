"""The two commands."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import SOURCES, TREE, Mover, Queue


def run(*words: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in (os.environ | variables).items() if text is not None}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def background(**variables: str | None) -> subprocess.CompletedProcess[str]:
    return run("-m", "pysmurf_archiver_librarian.background", "--once", **variables)


def tasks() -> dict[str, str]:
    """The background tasks in question, as a genuine Librarian is told of them."""
    once = '[{"task_name": "x", "soft_timeout": "00:00:20", "every": "00:00:10"}]'
    return {"LIBRARIAN_BACKGROUND_CONSUME_QUEUE": once, "LIBRARIAN_BACKGROUND_CHECK_CONSUMED_QUEUE": once}


def test_the_background_process_works_on_the_queue_with_ours(queue: Queue, mover: Mover) -> None:
    number = queue.add([("/data/a", "/staging/uuid-1/a")])
    done = background(**tasks())
    assert done.returncode == 0, done.stderr
    assert mover.new() == [f"{queue.row(number).manager.batch_id}.json"]


def test_the_background_process_says_what_is_wrong_before_it_begins(queue: Queue, spool: Path) -> None:
    refused = background(LIBRARIAN_ARCHIVER_SPOOL=None)
    assert refused.returncode == 1
    assert refused.stderr.startswith("archiver-librarian-background: LIBRARIAN_ARCHIVER_SPOOL is ''; set it to the ")
    spool.mkdir(mode=0o700)
    spool.chmod(0o755)
    refused = background()
    assert refused.returncode == 1 and f"{spool} is to belong to this user alone" in refused.stderr


def test_the_background_process_says_where_it_belongs(spool: Path) -> None:
    refused = run("-S", "-m", "pysmurf_archiver_librarian.background", PYTHONPATH=SOURCES[-1])
    assert refused.returncode == 1
    assert refused.stderr.endswith("; install this package into the environment of the Librarian\n"), refused.stderr


def test_after_the_uninstalling_all_rows_are_read_without_the_package(queue: Queue, mover: Mover) -> None:
    done, failed, running = (queue.add([(f"/data/{n}", f"/staging/{n}/x")]) for n in range(3))
    while queue.consume():
        pass
    mover.say(queue.row(done).manager.batch_id, "done", end="2026-11-30T20:00:04Z")
    mover.say(queue.row(failed).manager.batch_id, "failed", error="gone")
    queue.check()
    first = run("-m", "pysmurf_archiver_librarian.uninstall")
    assert first.returncode == 1
    assert "4 rows rewritten, 2 rows are not finished and need the package" in first.stdout, first.stderr
    mover.say(queue.row(running).manager.batch_id, "done", end="2026-11-30T20:00:04Z")
    queue.check()
    second = run("-m", "pysmurf_archiver_librarian.uninstall")
    assert second.returncode == 0, second.stderr
    assert "2 rows rewritten, 0 rows are not finished" in second.stdout
    assert "0 rows rewritten, 0 rows" in run("-m", "pysmurf_archiver_librarian.uninstall").stdout
    script = """
import sys
from librarian_server.database import get_session
from librarian_server.orm import OutgoingTransfer, SendQueue
with get_session() as session:
    for row in session.query(SendQueue).order_by(SendQueue.id):
        manager = row.async_transfer_manager
        print("row", type(manager).__name__, manager.hostname, manager.transfer_attempted, manager.transfer_complete)
    print("row", *[type(row.transfer_data).__name__ for row in session.query(OutgoingTransfer)])
assert not any("pysmurf" in name for name in sys.modules)
"""
    read = run("-c", script, PYTHONPATH=TREE)
    assert read.returncode == 0, read.stderr
    rows = [line[4:] for line in read.stdout.splitlines() if line.startswith("row ")]
    assert rows == [
        "RsyncAsyncTransferManager storage-b True True",
        "RsyncAsyncTransferManager storage-b True False",
        "RsyncAsyncTransferManager storage-b True True",
        " ".join(["RsyncAsyncTransferManager"] * 3),
    ]
