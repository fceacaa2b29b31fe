from datetime import datetime, timezone
from typing import Any

from hera_librarian.transfer import TransferStatus
from librarian_server.database import Base
from sqlalchemy import Boolean, Column, DateTime, Enum, Float, ForeignKey, Integer, PickleType, String
from sqlalchemy.orm import Session, relationship


def now() -> datetime:
    return datetime.now(timezone.utc)


class Librarian(Base):
    __tablename__ = "librarians"

    id = Column(Integer, primary_key=True)
    name = Column(String(256))
    url = Column(String(256))
    port = Column(Integer)
    authenticator = Column(String(256))
    last_seen = Column(DateTime)
    last_heard = Column(DateTime)
    transfers_enabled = Column(Boolean, default=True)

    def client(self) -> Any:
        raise NotImplementedError("the tests put the other end here")


class CompletedTransfer(Base):
    __tablename__ = "completed_transfers"

    id = Column(Integer, ForeignKey("send_queue.id"), primary_key=True)
    task_id = Column(String(256), unique=True)
    source_endpoint_id = Column(String(256))
    destination_endpoint_id = Column(String(256))
    start_time = Column(DateTime)
    end_time = Column(DateTime)
    duration_seconds = Column(Float)
    bytes_transferred = Column(Integer)
    effective_bandwidth_bps = Column(Float)


class OutgoingTransfer(Base):
    __tablename__ = "outgoing_transfers"

    id = Column(Integer, primary_key=True)
    status = Column(Enum(TransferStatus))
    destination = Column(String(256))
    transfer_size = Column(Integer)
    transfer_checksum = Column(String(256))
    start_time = Column(DateTime)
    file_name = Column(String(256))
    instance_id = Column(Integer)
    remote_transfer_id = Column(Integer)
    transfer_data = Column(PickleType)
    send_queue_id = Column(Integer, ForeignKey("send_queue.id"))
    send_queue = relationship("SendQueue", back_populates="transfers")
    source_path = Column(String(256))
    dest_path = Column(String(256))


class SendQueue(Base):
    __tablename__ = "send_queue"

    id = Column(Integer, primary_key=True)
    priority = Column(Integer)
    created_time = Column(DateTime)
    transfers = relationship("OutgoingTransfer", back_populates="send_queue")
    retries = Column(Integer)
    destination = Column(String(256))
    async_transfer_manager = Column(PickleType)
    consumed = Column(Boolean, default=False)
    consumed_time = Column(DateTime)
    completed = Column(Boolean, default=False)
    completed_time = Column(DateTime)
    failed = Column(Boolean, default=False)

    def tell(self, session: Session, status: TransferStatus) -> None:
        """Tells the other end, which may be away, and then sets the rows here."""
        other = session.query(Librarian).filter_by(name=self.destination).one()
        other.client().post(endpoint="checkin/update", request=status, response=None)
        for transfer in self.transfers:
            transfer.status = status

    def fail(self, session: Session) -> None:
        self.tell(session, TransferStatus.FAILED)
        self.failed = self.completed = True
        self.completed_time = now()
