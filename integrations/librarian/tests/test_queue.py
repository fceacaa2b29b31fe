"""The manager in the sender's queue."""

import os
from pathlib import Path
from typing import Any

import pytest

from conftest import Mover, Queue

PATHS = [("/data/a", "/staging/uuid-1/a"), ("/data/b", "/staging/uuid-2/b")]


def test_a_batch_goes_through_the_queue_and_leaves_its_record(queue: Queue, mover: Mover) -> None:
    number = queue.add(PATHS)
    assert queue.consume()
    assert not queue.consume()
    row = queue.row(number)
    assert row.consumed and not row.completed
    batch = row.manager.batch_id
    assert mover.new() == [f"{batch}.json"]
    queue.check()
    mover.take(batch)
    queue.check()
    assert not queue.row(number).completed and queue.other.calls == []
    mover.say(batch, "done", end="2026-11-30T20:00:04Z", bytes=2_000)
    queue.check()
    row = queue.row(number)
    assert row.completed and not row.failed and row.statuses == {"STAGED"}
    assert queue.other.calls == ["checkin/update"]
    (record,) = queue.records()
    assert (record.task_id, record.bytes_transferred, record.effective_bandwidth_bps) == (batch, 2_000, 500)
    queue.check()
    assert len(queue.records()) == 1


def test_a_receiver_that_is_away_at_the_end_hears_of_it_later(queue: Queue, mover: Mover) -> None:
    number = queue.add(PATHS)
    queue.consume()
    batch = queue.row(number).manager.batch_id
    mover.say(batch, "done", end="2026-11-30T20:00:04Z")
    queue.other.away = True
    queue.check()
    assert not queue.row(number).completed
    queue.other.away = False
    queue.check()
    assert queue.row(number).completed and len(queue.records()) == 1


def test_a_batch_that_failed_is_failed_at_both_ends(queue: Queue, mover: Mover) -> None:
    number = queue.add(PATHS)
    queue.consume()
    mover.say(queue.row(number).manager.batch_id, "failed", error="/data/a is gone")
    queue.check()
    row = queue.row(number)
    assert row.completed and row.failed and row.statuses == {"FAILED"}
    assert queue.other.calls and mover.cancelled() == [] and queue.records() == []


def test_a_process_killed_before_its_commit_hands_over_once(
    queue: Queue, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = queue.add(PATHS)
    commit = "sqlalchemy.orm.Session.commit"
    with monkeypatch.context() as patch:
        patch.setattr(commit, lambda session: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            queue.consume()
    assert not queue.row(number).consumed
    (name,) = mover.new()
    mover.take(name.removesuffix(".json"))
    queue.consume()
    row = queue.row(number)
    assert row.consumed and f"{row.manager.batch_id}.json" == name
    assert mover.new() == []


def test_a_full_spool_fails_nothing_and_holds_nobody_up(
    queue: Queue, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = queue.add(PATHS), queue.add([("/data/c", "/staging/uuid-3/c")])

    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        while queue.consume():
            pass
        queue.check()
    assert [queue.row(number).retries for number in (first, second)] == [0, 0]
    queue.check()
    assert len(mover.new()) == 2
    for number in (first, second):
        assert not queue.row(number).completed
        mover.say(queue.row(number).manager.batch_id, "done", end="2026-11-30T20:00:04Z")
    queue.check()
    assert all(queue.row(number).completed for number in (first, second))
    assert len(queue.records()) == 2


def test_what_can_never_work_is_given_up_by_the_queue(queue: Queue, mover: Mover) -> None:
    bad = queue.add([("/data/a", "relative")])
    good = queue.add(PATHS)
    while queue.consume():
        pass
    assert queue.row(bad).failed and queue.row(bad).retries == 4
    assert queue.row(good).consumed


def test_of_two_destinations_the_dead_one_holds_up_itself_alone(queue: Queue, mover: Mover) -> None:
    queue.librarian("librarian-c")
    dead, alive = queue.add(PATHS, hostname="dead"), queue.add([("/data/a", "/s/u/a")], "librarian-c", "storage-c")
    while queue.consume():
        pass
    links = {mover.request(name.removesuffix(".json"))["link"] for name in mover.new()}
    assert links == {"dead", "storage-c"}
    mover.say(queue.row(dead).manager.batch_id, "running", error="dead: no route to host")
    mover.say(queue.row(alive).manager.batch_id, "done", end="2026-11-30T20:00:04Z")
    queue.check()
    assert queue.row(alive).completed and not queue.row(dead).completed


def test_a_batch_waits_while_its_destination_is_switched_off(queue: Queue, mover: Mover) -> None:
    number = queue.add(PATHS)
    queue.consume()
    mover.say(queue.row(number).manager.batch_id, "done", end="2026-11-30T20:00:04Z")
    queue.librarian("librarian-b", enabled=False)
    queue.check()
    assert not queue.row(number).completed
    queue.librarian("librarian-b")
    queue.check()
    assert queue.row(number).completed


def test_an_unreadable_state_holds_up_nobody_behind_it(queue: Queue, mover: Mover) -> None:
    first, second = queue.add(PATHS), queue.add([("/data/c", "/staging/uuid-3/c")])
    while queue.consume():
        pass
    (mover.spool / "state" / f"{queue.row(first).manager.batch_id}.json").write_text("{")
    mover.say(queue.row(second).manager.batch_id, "done", end="2026-11-30T20:00:04Z")
    queue.check()
    assert not queue.row(first).completed and queue.row(second).completed


def test_a_batch_of_128_is_one_request(queue: Queue, mover: Mover, tmp_path: Path) -> None:
    paths: list[Any] = [(f"/data/{n}", f"/staging/{n}/x y") for n in range(128)]
    queue.add(paths)
    queue.consume()
    (name,) = mover.new()
    assert len(mover.request(name.removesuffix(".json"))["files"]) == 128
