"""`archiver-librarian-uninstall`: rewrites the managers in a librarian's tables to the stock class, so that the package
can be removed. Every query of those tables unpickles them, also years later, also in the web server."""

import argparse
import sys
from typing import Any

from .manager import ArchiverAsyncTransferManager

# A transaction's worth of rows, so that tables of millions are neither held in memory nor locked.
SLICE = 500


def stock(manager: ArchiverAsyncTransferManager, complete: bool) -> Any:
    """The stock manager that stands for ours in a finished row. `complete`: it has come to its end without failing."""
    from hera_librarian.async_transfers import RsyncAsyncTransferManager

    return RsyncAsyncTransferManager(
        hostname=manager.hostname, transfer_attempted=manager.transfer_attempted, transfer_complete=complete
    )


def rewrite(session_maker: Any, send_queue: Any, outgoing: Any) -> tuple[int, int]:
    """Rewrites the finished rows of both tables; how many were, and how many are not finished and keep our class."""
    from hera_librarian.transfer import TransferStatus

    ended = (TransferStatus.COMPLETED, TransferStatus.FAILED, TransferStatus.CANCELLED)

    def queue_row(row: Any) -> bool:
        if not row.completed:
            return False
        row.async_transfer_manager = stock(row.async_transfer_manager, not row.failed)
        return True

    def outgoing_row(row: Any) -> bool:
        # One that is staged waits for the receiver alone; what was to be moved is.
        if row.status not in ended and not (row.send_queue is not None and row.send_queue.completed):
            return False
        row.transfer_data = stock(row.transfer_data, row.status == TransferStatus.COMPLETED)
        return True

    counts = [
        rewrite_table(session_maker, send_queue, "async_transfer_manager", queue_row),
        rewrite_table(session_maker, outgoing, "transfer_data", outgoing_row),
    ]
    return sum(done for done, _ in counts), sum(left for _, left in counts)


def rewrite_table(session_maker: Any, table: Any, column: str, change: Any) -> tuple[int, int]:
    done, left, last = 0, 0, -1
    while True:
        with session_maker() as session:
            rows = session.query(table).filter(table.id > last).order_by(table.id).limit(SLICE).all()
            if not rows:
                return done, left
            last = rows[-1].id
            for row in rows:
                if isinstance(getattr(row, column), ArchiverAsyncTransferManager):
                    if change(row):
                        done += 1
                    else:
                        left += 1
            session.commit()


def main() -> None:
    argparse.ArgumentParser(prog="archiver-librarian-uninstall", description=__doc__.split(": ", 1)[1]).parse_args()
    from librarian_server.database import get_session
    from librarian_server.orm import OutgoingTransfer, SendQueue

    done, left = rewrite(get_session, SendQueue, OutgoingTransfer)
    print(f"{done} rows rewritten, {left} rows are not finished and need the package")
    if left:
        sys.exit(
            "Set send_clone to [] in the background settings, let archiver-librarian-background bring what is under "
            "way to its end, and call this again"
        )


if __name__ == "__main__":
    main()
