"""A PostgreSQL server of the tests' own, as Debian's packages have it."""

import getpass
import shutil
import subprocess
import tempfile
from pathlib import Path

DEADLINE = 60


class Postgres:
    """Runs on loopback; whoever may connect may do all, as is well there for the time of a test."""

    def __init__(self, port: int) -> None:
        self.port = port
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self.programs = found[-1] if found else Path(shutil.which("pg_ctl") or "/pg_ctl").parent
        # It refuses to run as root, and its own account cannot get into root's folders.
        self.who = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if self.who:
            shutil.chown(self.folder, "postgres")
        self.data = self.folder / "data"
        self._run("initdb", "-D", str(self.data), "-U", "librarian", "--auth=trust", "--no-sync")
        # A time zone of its own, as a telescope's may be.
        options = f"-p {port} -k {self.folder} -c listen_addresses=127.0.0.1 -c timezone=America/Santiago"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def _run(self, program: str, *words: str) -> None:
        command = [*self.who, str(self.programs / program), *words]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=DEADLINE)

    def settings(self, name: str) -> dict[str, str]:
        """Makes a database, and gives what a server is told of it."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "librarian", name)
        return {
            "LIBRARIAN_SERVER_DATABASE_DRIVER": "postgresql+psycopg",
            "LIBRARIAN_SERVER_DATABASE_USER": "librarian",
            "LIBRARIAN_SERVER_DATABASE_HOST": "127.0.0.1",
            "LIBRARIAN_SERVER_DATABASE_PORT": str(self.port),
            "LIBRARIAN_SERVER_DATABASE": name,
        }

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)
