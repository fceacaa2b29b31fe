from enum import Enum


class TransferStatus(Enum):
    INITIATED = 0
    ONGOING = 1
    STAGED = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5
