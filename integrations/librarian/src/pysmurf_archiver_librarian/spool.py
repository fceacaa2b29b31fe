"""The folder by which batches are handed to the archiver: requests in `new`, what it says of them in `state`, wishes to
end one in `cancel`. Files come by renaming, so whoever reads one reads it whole."""

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

VARIABLE = "LIBRARIAN_ARCHIVER_SPOOL"
VERSION = 1


class SpoolError(Exception):
    """The spool cannot be used as it is. Somebody can mend it, so no batch fails for it."""


class RefusedBatchError(Exception):
    """What no mending of spool, link or disks makes possible."""


@dataclass(frozen=True)
class State:
    """What the archiver says of a batch."""

    status: str
    start: datetime | None
    end: datetime | None
    bytes: int
    error: str | None


def batch_id(remotes: Iterable[str]) -> str:
    """The name of a batch. The receiver makes a staging folder of its own for each file, so no two batches have the
    same remote paths, and the same batch handed over again has the same name."""
    return hashlib.sha256("\0".join(sorted(remotes)).encode()).hexdigest()[:32]


def check_paths(paths: list[tuple[str, str]]) -> None:
    """Refuses what the archiver could only refuse, too."""
    if not paths:
        raise RefusedBatchError("The batch has no files")
    for local, remote in paths:
        for path in (local, remote):
            if not path.startswith("/"):
                raise RefusedBatchError(f"{path!r} is not an absolute path")
            if ".." in path.split("/") or "\0" in path:
                raise RefusedBatchError(f"{path!r} is not a plain path")
            try:
                path.encode()
            except UnicodeEncodeError as error:
                raise RefusedBatchError(f"{path!r} is not text that JSON can hold") from error
    if len({remote for _, remote in paths}) < len(paths):
        raise RefusedBatchError("Two files of the batch have the same remote path")


class Spool:
    """A spool folder. Nothing of it is touched before something is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def from_environment(cls) -> "Spool":
        given = os.environ.get(VARIABLE, "")
        if not given.startswith("/"):
            raise SpoolError(f"{VARIABLE} is {given!r}; set it to the absolute path of the spool folder")
        return cls(Path(given))

    def prepare(self) -> None:
        """Makes the folders that are missing and refuses a folder into which others may write: its requests name files
        to be read and sent with the archiver's rights."""
        try:
            for folder in (self.folder, *(self.folder / name for name in ("new", "state", "cancel"))):
                folder.mkdir(mode=0o700, parents=folder == self.folder, exist_ok=True)
                found = folder.stat()
                if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                    raise SpoolError(f"{folder} is to belong to this user alone: chown it and chmod 700 it")
        except OSError as error:
            raise SpoolError(f"{self.folder}: {error.strerror or error}") from error

    def has(self, batch: str) -> bool:
        """Whether the batch has been handed over, however far the archiver is with it. Once it has taken a request it
        has written a state, and that stays longer."""
        return any(os.path.lexists(self.folder / name / f"{batch}.json") for name in ("new", "state"))

    def hand_over(self, batch: str, link: str, librarian: str, paths: list[tuple[str, str]]) -> None:
        """Writes the request, durably, unless it was handed over before."""
        self.prepare()
        if self.has(batch):
            return
        request = {
            "v": VERSION,
            "batch": batch,
            "link": link,
            "librarian": librarian,
            "files": [{"local": local, "remote": remote, "dir": is_directory(local)} for local, remote in paths],
        }
        self._write("new", f"{batch}.json", json.dumps(request, ensure_ascii=False).encode())

    def cancel(self, batch: str) -> None:
        """Asks the archiver to end the batch and to remove what it wrote of it."""
        self.prepare()
        self._write("cancel", batch, b"")

    def state(self, batch: str) -> State | None:
        """What the archiver says of the batch; nothing while it has not taken it."""
        path = self.folder / "state" / f"{batch}.json"
        try:
            with path.open("rb") as file:
                said: Any = json.load(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SpoolError(f"{path}: {error}") from error
        if not isinstance(said, dict) or said.get("v") != VERSION or said.get("batch") != batch:
            raise SpoolError(
                f"{path} is not of version {VERSION} or not of this batch; archiver and package do not match"
            )
        try:
            return State(
                status=said["status"],
                start=moment(said.get("start")),
                end=moment(said.get("end")),
                bytes=int(said.get("bytes") or 0),
                error=said.get("error"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SpoolError(f"{path}: {error!r}") from error

    def _write(self, folder: str, name: str, content: bytes) -> None:
        place = self.folder / folder
        # The same name at each try, so a process killed here leaves one file at most; the archiver passes over dots.
        unfinished = place / f".{name}.part"
        try:
            # A path's own open takes no opener.
            with open(unfinished, "wb", opener=owner_only) as file:  # noqa: PTH123
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(place / name)
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise SpoolError(f"{place / name}: {error.strerror or error}") from error


def owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def is_directory(path: str) -> bool:
    """Whether a book is a directory, as the Librarian sees it. One that is gone is the archiver's to tell; a disk that
    cannot say so now may say it later."""
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise SpoolError(f"{path}: {error.strerror or error}") from error


def moment(text: str | None) -> datetime | None:
    """A time as the archiver writes it. Before Python 3.11 a Z is not understood."""
    if text is None:
        return None
    time = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
