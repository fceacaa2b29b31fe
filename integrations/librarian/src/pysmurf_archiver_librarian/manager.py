"""The manager of asynchronous transfers that a sending librarian pickles into its tables. Its module path and its
fields are in those rows: neither may ever change, and a new field needs a default that rows without it are given."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from os import PathLike, fspath
from typing import Any, TypeVar

from hera_librarian.async_transfers import RsyncAsyncTransferManager
from hera_librarian.transfer import TransferStatus
from loguru import logger

from .spool import RefusedBatchError, Spool, SpoolError, batch_id, check_paths

try:
    from hera_librarian.models.transfer import CompletedTransferCore
except ImportError:  # A Librarian before 5.0.0 keeps no records of transfers.
    CompletedTransferCore = None

# An archiver looks for batches every few seconds. Of one that is down for longer somebody should know, and of a link
# that none serves nothing else tells.
UNTAKEN = timedelta(minutes=10)
Pair = tuple[str | PathLike[str], str | PathLike[str]]
Answer = TypeVar("Answer")


class ArchiverAsyncTransferManager(RsyncAsyncTransferManager):
    """Hands batches to pysmurf-archiver by its spool and tells how they stand there.

    It has the wire form of the rsync manager, so the receiving librarian is not told of it. `hostname` is what the
    archiver knows the link by.

    No method may raise: the Librarian's queue would stop at the row and at all behind it. And `batch_transfer` may say
    no only to what can never work: four times no within milliseconds fails the batch at both ends. So a batch that
    cannot be written into the spool now is kept in the row, and written when the queue asks how it stands.
    """

    batch_id: str = ""
    submitted: datetime | None = None
    unwritten: list[tuple[str, str]] = []

    def valid(self, settings: Any) -> bool:
        return attempt("see whether the spool is there", False, self._prepare)

    def transfer(self, local_path: str | PathLike[str], remote_path: str | PathLike[str], settings: Any) -> bool:
        return self.batch_transfer([(local_path, remote_path)], settings)

    def batch_transfer(self, paths: Sequence[Pair], settings: Any) -> bool:
        return attempt("hand a batch over", False, lambda: self._take(paths, settings))

    def transfer_status(self, settings: Any) -> TransferStatus:
        return attempt(f"ask for batch {self.batch_id}", TransferStatus.INITIATED, lambda: self._status(settings))

    def fail_transfer(self, settings: Any) -> bool:
        return attempt(f"cancel batch {self.batch_id}", False, self._cancel)

    def gather_transfer_details(self, settings: Any) -> Any:  # CompletedTransferCore | None, where there is one
        return attempt(f"describe batch {self.batch_id}", None, lambda: self._details(settings))

    def _prepare(self) -> bool:
        Spool.from_environment().prepare()
        return bool(self.hostname)

    def _take(self, paths: Sequence[Pair], settings: Any) -> bool:
        pairs = [(fspath(local), fspath(remote)) for local, remote in paths]
        try:
            if not self.hostname:
                raise RefusedBatchError("The receiving librarian names no host")
            check_paths(pairs)
        except RefusedBatchError as error:
            logger.error("The batch is refused for good: {}", error)
            return False
        self.batch_id = batch_id(remote for _, remote in pairs)
        self.submitted = datetime.now(timezone.utc)
        # The stock manager's word for a batch that has been taken.
        self.transfer_attempted = True
        self.unwritten = pairs
        if self._written(settings):
            self.unwritten = []
        return True

    def _written(self, settings: Any) -> bool:
        def hand_over() -> bool:
            librarian = str(getattr(settings, "name", ""))
            Spool.from_environment().hand_over(self.batch_id, self.hostname, librarian, self.unwritten)
            logger.info("Batch {} is handed over for {}", self.batch_id, self.hostname)
            return True

        return attempt(f"hand over batch {self.batch_id}, which waits", False, hand_over)

    def _status(self, settings: Any) -> TransferStatus:
        if not self.batch_id:
            # No batch of ours: it is to be taken up anew rather than waited for.
            logger.error("A transfer to {} was never handed over", self.hostname)
            return TransferStatus.FAILED
        state = Spool.from_environment().state(self.batch_id)
        if state is None:
            # What is done to this object now is not kept, so it tries each time, and the spool knows whether it has it.
            if self.unwritten:
                self._written(settings)
            elif self.submitted is not None and datetime.now(timezone.utc) - self.submitted > UNTAKEN:
                logger.warning(
                    "No archiver has taken batch {} since {:%F %T} UTC; does one run with --link {}?",
                    self.batch_id,
                    self.submitted,
                    self.hostname,
                )
            return TransferStatus.INITIATED
        if state.status == "failed":
            logger.error("Batch {} has failed: {}", self.batch_id, state.error)
            return TransferStatus.FAILED
        if state.error is not None:
            logger.warning("Batch {}: {}", self.batch_id, state.error)
        return TransferStatus.COMPLETED if state.status == "done" else TransferStatus.INITIATED

    def _cancel(self) -> bool:
        if not self.batch_id:
            return True
        spool = Spool.from_environment()
        try:
            state = spool.state(self.batch_id)
        except SpoolError:
            # What cannot be read may still run.
            state = None
            known = True
        else:
            known = spool.has(self.batch_id)
        if known and (state is None or state.status not in ("done", "failed")):
            spool.cancel(self.batch_id)
        return True

    def _details(self, settings: Any) -> Any:
        if CompletedTransferCore is None:
            return None
        state = Spool.from_environment().state(self.batch_id)
        if state is None or state.start is None or state.end is None:
            return None
        # Times of whole seconds make nothing of a short one; the stock managers put 1 s there.
        seconds = (state.end - state.start).total_seconds() or 1.0
        return CompletedTransferCore(
            task_id=self.batch_id,
            source_endpoint_id=str(getattr(settings, "name", "")),
            destination_endpoint_id=self.hostname,
            start_time=state.start,
            end_time=state.end,
            duration_seconds=seconds,
            bytes_transferred=state.bytes,
            effective_bandwidth_bps=state.bytes / seconds,
        )


def attempt(what: str, otherwise: Answer, work: Callable[[], Answer]) -> Answer:
    """What the work gives, or the other answer with a line in the Librarian's log, whatever goes wrong."""
    try:
        return work()
    except SpoolError as error:
        logger.error("Cannot {}: {}", what, error)
    except Exception:
        logger.exception("Cannot {}", what)
    return otherwise
