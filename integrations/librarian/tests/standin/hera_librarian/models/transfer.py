from datetime import datetime

from pydantic import BaseModel


class CompletedTransferCore(BaseModel):
    task_id: str
    source_endpoint_id: str
    destination_endpoint_id: str
    start_time: datetime
    end_time: datetime
    duration_seconds: float
    bytes_transferred: int
    effective_bandwidth_bps: float
