"""Chooses the Librarian to test against: the stand-in, or a genuine one with `LIBRARIAN_TREE`, which `test_genuine.py`
sets; and plays what is at the other end of spool and queue."""

import json
import os
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HERE = Path(__file__).parent
TREE = os.environ.get("LIBRARIAN_TREE", str(HERE / "standin"))
SOURCES = [TREE, str(HERE.parent / "src")]

# The Librarian opens its database as it is imported.
folder = tempfile.mkdtemp(prefix="librarian-tests-")
os.environ["LIBRARIAN_SERVER_NAME"] = "librarian-a"
os.environ["LIBRARIAN_SERVER_PORT"] = "1"
os.environ["LIBRARIAN_SERVER_ADD_STORES"] = "[]"
os.environ["LIBRARIAN_SERVER_DATABASE"] = f"{folder}/librarian.sqlite"
os.environ["LIBRARIAN_SERVER_CHECKSUM_THREADS"] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join(SOURCES)
sys.path[:0] = SOURCES


def pytest_unconfigure() -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


class Mover:
    """The archiver's side of the spool, as a test plays it."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool

    def new(self) -> list[str]:
        return sorted(path.name for path in (self.spool / "new").glob("*"))

    def request(self, batch: str) -> Any:
        return json.loads((self.spool / "new" / f"{batch}.json").read_text())

    def say(self, batch: str, status: str, **more: Any) -> None:
        state = {"v": 1, "batch": batch, "status": status, "start": "2026-11-30T20:00:00Z", "end": None, "bytes": 0}
        state |= {"files": 1, "done": 0, "error": None} | more
        (self.spool / "state" / f"{batch}.json").write_text(json.dumps(state))

    def take(self, batch: str) -> None:
        """As it begins with one: the state is there before the request is gone."""
        self.say(batch, "running")
        (self.spool / "new" / f"{batch}.json").unlink()

    def cancelled(self) -> list[str]:
        return sorted(path.name for path in (self.spool / "cancel").glob("*"))


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "spool"
    monkeypatch.setenv("LIBRARIAN_ARCHIVER_SPOOL", str(path))
    return path


@pytest.fixture
def mover(spool: Path) -> Mover:
    return Mover(spool)


@pytest.fixture
def settings() -> Any:
    return SimpleNamespace(name="librarian-a")


@pytest.fixture
def said() -> Any:
    """What was logged, as text."""
    from loguru import logger

    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(str(line)), format="{level} {message}")
    yield lines
    logger.remove(handler)


class Other:
    """The receiving librarian, as far as the queue calls it."""

    def __init__(self) -> None:
        self.away = False
        self.calls: list[str] = []

    def post(self, endpoint: str, **_: Any) -> Any:
        if self.away:
            raise ConnectionError("no answer")
        self.calls.append(endpoint)
        return SimpleNamespace(success=True)


class Queue:
    """The sender's tables and its queue."""

    def __init__(self, other: Other) -> None:
        from librarian_server import database, orm

        self.orm, self.session, self.other = orm, database.get_session, other
        database.Base.metadata.drop_all(database.engine)
        database.Base.metadata.create_all(database.engine)
        self.librarian("librarian-b")

    def librarian(self, name: str, enabled: bool = True) -> None:
        past = datetime(2026, 1, 1, tzinfo=timezone.utc)
        with self.session() as session:
            session.query(self.orm.Librarian).filter_by(name=name).delete()
            session.add(
                self.orm.Librarian(
                    name=name,
                    url="http://127.0.0.1",
                    port=1,
                    authenticator="",
                    last_seen=past,
                    last_heard=past,
                    transfers_enabled=enabled,
                )
            )
            session.commit()

    def add(self, paths: list[tuple[str, str]], destination: str = "librarian-b", hostname: str = "storage-b") -> int:
        """A batch as `send_clone` leaves it."""
        manager = answer({"rsync": {"hostname": hostname}})
        with self.session() as session:
            row = self.orm.SendQueue(
                priority=0,
                created_time=datetime.now(timezone.utc),
                retries=0,
                destination=destination,
                async_transfer_manager=manager,
            )
            session.add(row)
            session.flush()
            for number, (source, dest) in enumerate(paths):
                session.add(
                    self.orm.OutgoingTransfer(
                        status=self.orm.TransferStatus.ONGOING,
                        destination=destination,
                        transfer_size=1,
                        transfer_checksum="",
                        start_time=row.created_time,
                        file_name=f"{row.id}/{number}",
                        instance_id=1,
                        remote_transfer_id=100 * row.id + number,
                        transfer_data=manager,
                        send_queue_id=row.id,
                        source_path=source,
                        dest_path=dest,
                    )
                )
            session.commit()
            return row.id

    def consume(self) -> bool:
        from librarian_background.queues import consume_queue_item

        return consume_queue_item(session_maker=self.session)

    def check(self) -> None:
        from librarian_background.queues import check_on_consumed

        check_on_consumed(session_maker=self.session, timeout_after=datetime.now(timezone.utc) + timedelta(minutes=1))

    def row(self, number: int) -> Any:
        with self.session() as session:
            row = session.get(self.orm.SendQueue, number)
            return SimpleNamespace(
                manager=row.async_transfer_manager,
                retries=row.retries,
                consumed=bool(row.consumed),
                completed=bool(row.completed),
                failed=bool(row.failed),
                statuses={transfer.status.name for transfer in row.transfers},
            )

    def records(self) -> list[Any]:
        with self.session() as session:
            return session.query(self.orm.CompletedTransfer).all()


def answer(offers: dict[str, Any]) -> Any:
    """The manager that the sender takes of a receiver's answer."""
    from hera_librarian.models.clone import CloneBatchInitiationResponse

    from pysmurf_archiver_librarian.registration import register

    register()
    text = json.dumps(
        {"available_bytes_on_store": 1, "store_name": "store", "uploads": [], "async_transfer_providers": offers}
    )
    response = CloneBatchInitiationResponse.model_validate_json(text)
    return next(iter(response.async_transfer_providers.values()))


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch, mover: Mover) -> Queue:
    other = Other()
    queue = Queue(other)
    monkeypatch.setattr(queue.orm.Librarian, "client", lambda self: other)
    return queue
