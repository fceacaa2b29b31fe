import abc
from typing import Any

from hera_librarian.models.transfer import CompletedTransferCore
from hera_librarian.transfer import TransferStatus
from pydantic import BaseModel


class CoreAsyncTransferManager(BaseModel, abc.ABC):
    @abc.abstractmethod
    def batch_transfer(self, paths: list, settings: Any) -> bool: ...

    @abc.abstractmethod
    def transfer(self, local_path: Any, remote_path: Any, settings: Any) -> bool: ...

    @abc.abstractmethod
    def valid(self, settings: Any) -> bool: ...

    @abc.abstractmethod
    def transfer_status(self, settings: Any) -> TransferStatus: ...

    @abc.abstractmethod
    def fail_transfer(self, settings: Any) -> bool: ...

    @abc.abstractmethod
    def gather_transfer_details(self, settings: Any) -> CompletedTransferCore | None: ...


class Unused(CoreAsyncTransferManager):
    """What the stock managers do is of no matter here: no test of ours has one work."""

    def batch_transfer(self, paths: list, settings: Any) -> bool:
        raise AttributeError("as the stock rsync manager with today's sysrsync")

    def transfer(self, local_path: Any, remote_path: Any, settings: Any) -> bool:
        return False

    def valid(self, settings: Any) -> bool:
        return False

    def transfer_status(self, settings: Any) -> TransferStatus:
        return TransferStatus.INITIATED

    def fail_transfer(self, settings: Any) -> bool:
        return True

    def gather_transfer_details(self, settings: Any) -> CompletedTransferCore | None:
        return None


class LocalAsyncTransferManager(Unused):
    hostnames: list[str]


class RsyncAsyncTransferManager(Unused):
    hostname: str
    transfer_attempted: bool = False
    transfer_complete: bool = False


class GlobusAsyncTransferManager(Unused):
    destination_endpoint: str


AsyncTransferManagers = {
    0: CoreAsyncTransferManager,
    1: LocalAsyncTransferManager,
    2: RsyncAsyncTransferManager,
    3: GlobusAsyncTransferManager,
}
AsyncTransferManagerNames = {"core": 0, "local": 1, "rsync": 2, "globus": 3}
