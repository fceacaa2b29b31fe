"""Genuine librarians on loopback, our program as the mover, a real sshd with stock rsync as the receivers' host. Needs
`ARCHIVER_PROGRAM`, the path of the program, beside the genuine tree. Their databases are SQLite's, or with
`LIBRARIAN_DATABASE=postgres` those of a PostgreSQL server."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from postgres import Postgres

HERE = Path(__file__).parent
PROGRAM = os.environ.get("ARCHIVER_PROGRAM", "")
PATIENCE = 180
LINK = "storage-b"

if "LIBRARIAN_TREE" not in os.environ or not PROGRAM:
    pytest.skip(
        "ARCHIVER_PROGRAM and LIBRARIAN_SRC do not say where program and Librarian are", allow_module_level=True
    )


def wait_until(what: str, true: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while True:
        found = true()
        if found:
            return found
        assert time.monotonic() < end, f"Waited for: {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A librarian: its web server, and its background process for a round at a time."""

    def __init__(self, folder: Path, name: str, key: str, postgres: Postgres | None) -> None:
        self.folder, self.name, self.port = folder / name, name, free_port()
        self.staging, self.store = self.folder / "staging", self.folder / "store"
        for path in (self.staging, self.store):
            path.mkdir(parents=True)
        self.environment = os.environ | {
            "LIBRARIAN_SERVER_NAME": name,
            "LIBRARIAN_SERVER_DISPLAYED_SITE_NAME": name,
            "LIBRARIAN_SERVER_PORT": str(self.port),
            "LIBRARIAN_SERVER_ENCRYPTION_KEY": key,
            "LIBRARIAN_SERVER_ADD_STORES": "[]",
            # More fork a pool from a threaded server, which may hang.
            "LIBRARIAN_SERVER_CHECKSUM_THREADS": "1",
            "LIBRARIAN_ARCHIVER_SPOOL": str(folder / "spool"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if postgres is None:
            self.environment["LIBRARIAN_SERVER_DATABASE"] = str(self.folder / "librarian.sqlite")
        else:
            self.environment |= postgres.settings(name)
        self.log = self.folder / "log"
        self.web: subprocess.Popen[bytes] | None = None

    def call(self, what: str, given: Any = None, expect: int = 0, **settings: str) -> Any:
        command = [sys.executable, str(HERE / "server_side.py"), what, json.dumps(given)]
        with self.log.open("ab") as log:
            environment = self.environment | settings
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=log, timeout=PATIENCE, check=False
            )
        assert done.returncode == expect, f"{what}: {done.returncode}; {self.log.read_text()[-4_000:]}"
        return json.loads(done.stdout) if done.stdout else None

    def serve(self) -> None:
        words = ["-m", "uvicorn", "--factory", "librarian_server:main", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.web = subprocess.Popen([sys.executable, *words], env=self.environment, stdout=log, stderr=log)

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(f"{self.name} serves", answers)

    def stop(self) -> None:
        if self.web is not None:
            self.web.terminate()
            self.web.wait()

    def upload(self, files: list[tuple[Path, str]]) -> None:
        self.call("upload", {"port": self.port, "files": [(str(local), name) for local, name in files]})

    def send(self, destination: str, *, die: bool = False, batch: int = 128) -> None:
        """A round of the sender's background process."""
        times = {"task_name": "x", "every": "00:01:00", "soft_timeout": "00:00:20"}
        clone = {"destination_librarian": destination, "age_in_days": 100, "store_preference": None}
        clone |= {"send_batch_size": batch, "warn_disabled_timer": None}
        self.call(
            "background",
            {"ours": True, "die": die},
            expect=-signal.SIGKILL if die else 0,
            LIBRARIAN_BACKGROUND_SEND_CLONE=json.dumps([times | clone]),
            LIBRARIAN_BACKGROUND_CONSUME_QUEUE=json.dumps([times]),
            LIBRARIAN_BACKGROUND_CHECK_CONSUMED_QUEUE=json.dumps([times]),
        )

    def receive(self) -> None:
        """A round of the receiver's, which is stock."""
        task = {"task_name": "x", "every": "00:01:00", "soft_timeout": "00:00:20", "deletion_policy": 0}
        self.call("background", {"ours": False}, LIBRARIAN_BACKGROUND_RECIEVE_CLONE=json.dumps([task]))


class World:
    """Librarians A, B and C, and the host of B, which is that of A as well."""

    def __init__(self, folder: Path) -> None:
        from cryptography.fernet import Fernet

        sys.path.insert(0, str(HERE.parents[2] / "scripts"))
        from sshd import Sshd

        self.folder = folder
        key = Fernet.generate_key().decode()
        self.postgres = Postgres(free_port()) if os.environ.get("LIBRARIAN_DATABASE") == "postgres" else None
        self.a, self.b, self.c = (Server(folder, f"librarian-{name}", key, self.postgres) for name in "abc")
        (folder / "ssh").mkdir()
        self.sshd = Sshd(folder / "ssh")
        for server, links in ((self.a, None), (self.b, LINK), (self.c, "nowhere")):
            others = [other for other in (self.a, self.b, self.c) if other is not server]
            server.call(
                "setup",
                {
                    "name": server.name,
                    "users": ["observer", *(other.name for other in others)],
                    "staging": str(server.staging),
                    "store": str(server.store),
                    "hostname": socket.gethostname(),
                    "offers": {"rsync": {"available": True, "hostname": links}} if links else {},
                    "others": [{"name": other.name, "port": other.port} for other in others],
                },
            )
            server.serve()
        self.spool = folder / "spool"
        self.made = 0
        self.movers: list[Mover] = []

    def close(self) -> None:
        for server in (self.a, self.b, self.c):
            server.stop()
        self.sshd.close()
        if self.postgres is not None:
            self.postgres.stop()

    def file(self, name: str, content: bytes) -> tuple[Path, str]:
        """A file to be uploaded at A under this name."""
        self.made += 1
        path = self.folder / "made" / str(self.made)
        path.mkdir(parents=True)
        path = path / "book"
        path.write_bytes(content)
        return path, name

    def book(self, name: str, files: dict[str, bytes]) -> tuple[Path, str]:
        self.made += 1
        path = self.folder / "made" / str(self.made) / "book"
        for file, content in files.items():
            place = path / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return path, name

    @contextmanager
    def mover(self, *options: str, link: str = LINK, host: list[str] | None = None) -> "Iterator[Mover]":
        mover = Mover(self, [*options, "--link", link, *(self.sshd.options if host is None else host)])
        self.movers.append(mover)
        try:
            yield mover
        finally:
            self.movers.remove(mover)
            mover.stop()

    def batch(self, number: int = -1) -> str:
        return self.a.call("counts")["queue"][number]["batch"]

    def state(self, batch: str) -> Any:
        path = self.spool / "state" / f"{batch}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def wait_for(self, batch: str, status: str) -> Any:
        def reached() -> Any:
            for mover in self.movers:
                assert mover.process.poll() is None, mover.log.read_text()[-4_000:]
            state = self.state(batch)
            return state if state is not None and state["status"] == status else None

        return wait_until(f"batch {batch} is {status}", reached)

    def expect_there(self, *names: str) -> None:
        """The whole way is done, at both ends."""
        a, b = self.a.call("counts"), self.b.call("counts")
        for name in names:
            assert name in b["files"] and ["librarian-b", name] in a["remote"], (a, b)
            assert [name, "COMPLETED"] in b["incoming"] and [name, "COMPLETED"] in a["outgoing"], (a, b)
        assert b["wrong"] == []

    def finish(self, *names: str) -> None:
        """The rounds that take a batch that is done to its end."""
        self.a.send("librarian-b")
        self.b.receive()
        self.expect_there(*names)


class Mover:
    """Our program at A."""

    def __init__(self, world: World, options: list[str]) -> None:
        self.log = world.folder / "mover.log"
        command = [
            PROGRAM,
            "run",
            "--batches",
            str(world.spool),
            "--ssh-config",
            "/dev/null",
            "--poll",
            "0.2",
            "-v",
            *options,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("librarians")
    world = World(folder)
    try:
        yield world
    finally:
        world.close()
        # For whoever wants to know why.
        for log in [folder / "mover.log", world.a.log, world.b.log]:
            if log.exists():
                print(log.name, log.read_text()[-3_000:])


def bytes_beneath(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def noise(size: int, seed: int) -> bytes:
    import random

    return random.Random(seed).randbytes(size)


def test_files_and_directories_whose_names_are_no_plain_words(world: World) -> None:
    files = {"a.dat": b"a", "sub/b c.dat": noise(70_000, 1), "sub/deeper/é ß 日本.g3": b"", "sub/.hidden": b"h"}
    world.a.upload(
        [
            world.file("plain.g3", noise(300_000, 2)),
            world.file("1700000000/with a blank/é'\"$(x).g3", b"hello\n"),
            world.file("empty.g3", b""),
            world.book("obs/1700/book one", files),
        ]
    )
    with world.mover():
        world.a.send("librarian-b")
        world.wait_for(world.batch(), "done")
    world.finish("plain.g3", "1700000000/with a blank/é'\"$(x).g3", "empty.g3", "obs/1700/book one")
    placed = world.b.store / "obs/1700/book one"
    assert sorted(str(path.relative_to(placed)) for path in placed.rglob("*") if path.is_file()) == sorted(files)
    assert all((placed / name).read_bytes() == content for name, content in files.items())


def test_a_directory_of_ten_thousand_files(world: World) -> None:
    files = {f"{n % 50}/{n}.dat": b"%d" % n for n in range(10_000)}
    world.a.upload([world.book("many", files)])
    with world.mover():
        world.a.send("librarian-b")
        state = world.wait_for(world.batch(), "done")
    assert state["done"] == state["files"] >= 10_000 or state["files"] == 1
    world.finish("many")


def test_a_batch_of_128(world: World) -> None:
    names = [f"night/{n:03}.g3" for n in range(128)]
    world.a.upload([world.file(name, noise(5_000, n)) for n, name in enumerate(names)])
    with world.mover():
        world.a.send("librarian-b")
        world.wait_for(world.batch(), "done")
    world.finish(*names)
    assert len(world.a.call("counts")["queue"][-1]["places"]) == 128


def test_a_mover_that_is_down_at_the_hand_over_is_waited_for(world: World) -> None:
    world.a.upload([world.file("later.g3", b"later")])
    world.a.send("librarian-b")
    world.a.send("librarian-b")
    row = world.a.call("counts")["queue"][-1]
    assert row["consumed"] and not row["completed"] and row["retries"] == 0
    with world.mover():
        world.wait_for(row["batch"], "done")
    world.finish("later.g3")


def test_a_background_process_killed_after_the_hand_over_makes_no_second_copy(world: World) -> None:
    before = world.a.call("counts")["queue"]
    world.a.upload([world.file("killed.g3", b"killed")])
    world.a.send("librarian-b", die=True)
    row = world.a.call("counts")["queue"][-1]
    assert len(world.a.call("counts")["queue"]) == len(before) + 1 and not row["consumed"]
    (request,) = (world.spool / "new").glob("*.json")
    with world.mover():
        state = world.wait_for(request.stem, "done")
        world.a.send("librarian-b")
        assert world.batch() == request.stem
        assert not list((world.spool / "new").glob("*.json"))
    assert world.state(request.stem) == state
    world.finish("killed.g3")


def test_a_mover_killed_in_the_middle_goes_on(world: World) -> None:
    world.a.upload([world.book("long", {f"{n}.dat": noise(400_000, n) for n in range(20)})])
    world.a.send("librarian-b")
    batch = world.batch()
    staged = bytes_beneath(world.b.staging)
    with world.mover("--bwlimit", "2M") as mover:
        wait_until("some of it is there", lambda: bytes_beneath(world.b.staging) > staged + 1_000_000)
        mover.kill()
    assert world.state(batch)["status"] == "running"
    with world.mover():
        world.wait_for(batch, "done")
    world.finish("long")


def test_a_link_that_is_cut_is_waited_for(world: World) -> None:
    world.a.upload([world.book("cut", {f"{n}.dat": noise(400_000, 100 + n) for n in range(20)})])
    world.a.send("librarian-b")
    batch = world.batch()
    with world.mover("--bwlimit", "2M"):
        wait_until("some of it is there", lambda: bytes_beneath(world.b.staging) > 1_000_000)
        world.sshd.vanish()
        wait_until("the reason is told", lambda: (world.state(batch) or {}).get("error"))
        assert world.state(batch)["status"] == "running"
        world.a.send("librarian-b")
        assert not world.a.call("counts")["queue"][-1]["completed"]
        world.sshd.start()
        world.wait_for(batch, "done")
    world.finish("cut")


def test_a_staging_folder_that_is_removed_holds_nothing_up(world: World) -> None:
    world.a.upload([world.file("sub/removed.g3", b"removed")])
    world.a.send("librarian-b")
    row = world.a.call("counts")["queue"][-1]
    for place in row["places"]:
        shutil.rmtree(world.b.staging / Path(place).relative_to(world.b.staging).parts[0])
    with world.mover():
        state = wait_until(
            "it is over", lambda: (s := world.state(row["batch"])) and s["status"] in ("done", "failed") and s
        )
        world.a.send("librarian-b")
        if state["status"] == "failed":
            world.a.send("librarian-b")
            world.wait_for(world.batch(), "done")
    world.finish("sub/removed.g3")


def test_a_source_that_changes_on_its_way_is_refused_and_sent_again(world: World) -> None:
    world.a.upload([world.file("changing.g3", b"as it was")])
    instance = Path(world.a.call("counts")["instances"]["changing.g3"])
    world.a.send("librarian-b")
    first = world.batch()
    instance.write_bytes(b"as it is!")
    with world.mover():
        world.wait_for(first, "done")
        world.a.send("librarian-b")
        world.b.receive()
        assert "changing.g3" not in world.b.call("counts")["files"]
        instance.write_bytes(b"as it was")
        world.a.send("librarian-b")
        second = world.batch()
        assert second != first
        world.wait_for(second, "done")
    world.finish("changing.g3")


def test_a_batch_that_is_cancelled_leaves_nothing_at_the_receiver(world: World) -> None:
    world.a.upload([world.book("cancelled", {f"{n}.dat": noise(400_000, 200 + n) for n in range(20)})])
    world.a.send("librarian-b")
    batch = world.batch()
    with world.mover("--bwlimit", "2M"):
        wait_until("some of it is there", lambda: bytes_beneath(world.b.staging) > 1_000_000)
        words = [PROGRAM, "batch", "cancel", batch, "--batches", str(world.spool)]
        subprocess.run(words, check=True, timeout=PATIENCE)
        world.wait_for(batch, "failed")
    assert bytes_beneath(world.b.staging) == 0
    # It is failed at both ends, and in the next round taken up anew.
    world.a.send("librarian-b")
    assert world.a.call("counts")["queue"][-1]["failed"]
    world.a.send("librarian-b")
    assert world.batch() != batch
    with world.mover():
        world.wait_for(world.batch(), "done")
    world.finish("cancelled")


def test_a_full_disk_at_the_receiver_is_waited_for(world: World) -> None:
    if getpass.getuser() != "root":
        pytest.skip("only root may mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "small", str(world.b.staging)]
    if subprocess.run(mount, check=False, timeout=PATIENCE).returncode:
        pytest.skip("this machine forbids to mount a small disk")
    try:
        world.a.upload([world.file("full.g3", noise(4_000_000, 7))])
        world.a.send("librarian-b")
        batch = world.batch()
        (world.b.staging / "filler").write_bytes(bytes(6_000_000))
        with world.mover():
            wait_until("the reason is told", lambda: (world.state(batch) or {}).get("error"))
            assert world.state(batch)["status"] == "running"
            (world.b.staging / "filler").unlink()
            world.wait_for(batch, "done")
        world.finish("full.g3")
    finally:
        subprocess.run(["umount", str(world.b.staging)], check=False, timeout=PATIENCE)


def test_of_two_destinations_the_dead_one_holds_up_itself_alone(world: World) -> None:
    world.a.upload([world.file("both.g3", b"both")])
    world.a.send("librarian-c", batch=1_000)
    dead = world.batch()
    world.a.send("librarian-b")
    alive = world.batch()
    # Nobody listens there.
    nobody = ["--storage-host", f"nobody@127.0.0.1:{free_port()}"]
    key = [word for word in world.sshd.options if word not in world.sshd.options[:2]]
    with world.mover(link="nowhere", host=[*nobody, *key]), world.mover():
        world.wait_for(alive, "done")
        wait_until("the reason is told", lambda: (world.state(dead) or {}).get("error"))
    assert world.state(dead)["status"] == "running"
    world.finish("both.g3")
    # It comes back.
    with world.mover(link="nowhere"):
        world.wait_for(dead, "done")
    world.a.send("librarian-c")
    world.c.receive()
    assert world.c.call("counts")["files"] == world.a.call("counts")["files"]


def test_a_receiver_takes_in_what_comes_without_a_sending_librarian(world: World) -> None:
    """The recipe of docs/upload.md."""
    source, incoming = world.book("uploaded", {"a.dat": b"a", "sub/b.dat": b"b"})[0], world.folder / "incoming"
    files = [{"local": str(source), "remote": str(incoming / "1700/book"), "dir": True}]
    request = world.folder / "request.json"
    request.write_text(json.dumps({"v": 1, "batch": "by-hand", "link": LINK, "files": files}))
    words = [PROGRAM, "batch", "add", str(request), "--batches", str(world.spool)]
    subprocess.run(words, check=True, timeout=PATIENCE)
    with world.mover():
        world.wait_for("by-hand", "done")
    world.c.upload([(incoming / "1700/book", "1700/book")])
    counts = world.c.call("counts")
    assert "1700/book" in counts["files"] and counts["wrong"] == []


def test_a_batch_waits_while_its_destination_is_switched_off(world: World) -> None:
    world.a.upload([world.file("switched.g3", b"switched")])
    world.a.send("librarian-b")
    batch = world.batch()
    world.a.call("enable", {"name": "librarian-b", "enabled": False})
    with world.mover():
        world.wait_for(batch, "done")
    world.a.send("librarian-b")
    assert not world.a.call("counts")["queue"][-1]["completed"]
    world.a.call("enable", {"name": "librarian-b", "enabled": True})
    world.finish("switched.g3")


def test_at_the_end_everything_is_there_once_and_nothing_is_left(world: World) -> None:
    world.b.receive()
    a, b = world.a.call("counts"), world.b.call("counts")
    assert a["files"] == b["files"] and len(a["files"]) > 10
    assert [name for librarian, name in a["remote"] if librarian == "librarian-b"] == a["files"]
    assert a["wrong"] == b["wrong"] == []
    done = [row["batch"] for row in a["queue"] if row["completed"] and not row["failed"]]
    assert sorted(a["records"]) == sorted(done)
    assert bytes_beneath(world.b.staging) == bytes_beneath(world.c.staging) == 0
    assert not [*(world.spool / "new").iterdir(), *(world.spool / "cancel").iterdir()]


def test_a_manifest_and_what_it_names_are_brought_over_and_taken_in(world: World) -> None:
    """The recipe of docs/sneakernet.md, from C, which has a book that A has not."""
    day, incoming = world.folder / "day.json", world.folder / "sneakernet"
    world.c.call("manifest", {"port": world.c.port, "destination": "librarian-a", "output": str(day)})
    words = [PROGRAM, "batch", "from-manifest", str(day), "--link", LINK, "--to", str(incoming), "--name", "day"]
    subprocess.run([*words, "--batches", str(world.spool)], check=True, timeout=PATIENCE)
    with world.mover():
        world.wait_for("day", "done")
    before, there = world.a.call("counts")["files"], len(world.c.call("counts")["files"])
    given = {"port": world.a.port, "manifest": str(world.folder / "day.mended.json"), "root": str(incoming)}
    assert world.a.call("ingest", given) == [1, there - 1]
    world.a.receive()
    a, c = world.a.call("counts"), world.c.call("counts")
    assert set(a["files"]) - set(before) == {"1700/book"} and a["wrong"] == []
    # A calls back whom the mended manifest names.
    assert ["1700/book", "COMPLETED"] in c["outgoing"] and ["librarian-a", "1700/book"] in c["remote"]
    assert world.a.call("ingest", given) == [0, there]


def test_without_the_package_all_tables_are_read_once_it_was_uninstalled(world: World) -> None:
    words = [sys.executable, "-m", "pysmurf_archiver_librarian.uninstall"]
    done = subprocess.run(words, env=world.a.environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = world.a.call("counts", PYTHONPATH=os.environ["LIBRARIAN_TREE"])["queue"]
    assert {row["class"] for row in rows} == {"RsyncAsyncTransferManager"}
