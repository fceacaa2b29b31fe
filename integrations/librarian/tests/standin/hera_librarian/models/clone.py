from pathlib import Path
from typing import Union

from hera_librarian.async_transfers import (
    GlobusAsyncTransferManager,
    LocalAsyncTransferManager,
    RsyncAsyncTransferManager,
)
from pydantic import BaseModel


class CloneBatchInitiationResponseFileItem(BaseModel):
    staging_location: Path
    source_transfer_id: int
    destination_transfer_id: int


class CloneBatchInitiationResponse(BaseModel):
    available_bytes_on_store: int
    store_name: str
    uploads: list[CloneBatchInitiationResponseFileItem]
    async_transfer_providers: dict[
        str, Union[GlobusAsyncTransferManager, RsyncAsyncTransferManager, LocalAsyncTransferManager]
    ]
