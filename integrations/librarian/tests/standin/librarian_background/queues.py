"""The queue's two steps at the sender, by what the tables of the specification say of them."""

from datetime import datetime
from pathlib import Path
from typing import Any

from hera_librarian.transfer import TransferStatus
from librarian_server.orm import CompletedTransfer, Librarian, SendQueue, now
from librarian_server.settings import server_settings
from sqlalchemy import select


def enabled(session: Any, row: SendQueue) -> bool:
    other = session.query(Librarian).filter_by(name=row.destination).one_or_none()
    return other is not None and other.transfers_enabled


def consume_queue_item(session_maker: Any) -> bool:
    with session_maker() as session:
        waiting = select(SendQueue).filter_by(consumed=False, completed=False)
        row = session.execute(waiting.order_by(SendQueue.priority.desc(), SendQueue.created_time)).scalar()
        if row is None:
            return False
        if not enabled(session, row):
            return True
        paths = [(Path(transfer.source_path), Path(transfer.dest_path)) for transfer in row.transfers]
        manager = row.async_transfer_manager.model_copy()
        if manager.batch_transfer(paths, settings=server_settings):
            row.consumed, row.consumed_time, row.async_transfer_manager = True, now(), manager
        else:
            row.retries += 1
            if row.retries > server_settings.max_async_send_retries:
                row.fail(session=session)
        session.commit()
    return True


def check_on_consumed(session_maker: Any, timeout_after: datetime) -> bool:
    with session_maker() as session:
        rows = session.execute(select(SendQueue).filter_by(consumed=True, completed=False)).scalars().all()
        for row in rows:
            if not enabled(session, row):
                continue
            status = row.async_transfer_manager.transfer_status(settings=server_settings)
            if status == TransferStatus.COMPLETED:
                try:
                    row.tell(session, TransferStatus.STAGED)
                except ConnectionError:
                    continue
                core = row.async_transfer_manager.gather_transfer_details(settings=server_settings)
                if core is not None:
                    session.add(CompletedTransfer(id=row.id, **core.model_dump()))
            elif status == TransferStatus.FAILED:
                row.async_transfer_manager.fail_transfer(server_settings)
                row.fail(session=session)
            else:
                continue
            row.completed, row.completed_time = True, now()
            session.commit()
    return bool(rows)
