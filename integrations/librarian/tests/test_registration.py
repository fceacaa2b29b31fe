import subprocess
import sys

import pytest
from hera_librarian import async_transfers as managers
from hera_librarian.transfer import TransferStatus

from conftest import answer
from pysmurf_archiver_librarian.manager import ArchiverAsyncTransferManager
from pysmurf_archiver_librarian.registration import register


def test_an_answer_of_a_stock_receiver_becomes_ours() -> None:
    ours = answer({"rsync": {"hostname": "storage-b", "transfer_attempted": False, "transfer_complete": False}})
    assert type(ours) is ArchiverAsyncTransferManager
    assert (ours.hostname, ours.batch_id, ours.submitted, ours.unwritten) == ("storage-b", "", None, [])
    register()
    assert type(answer({"rsync": {"hostname": "storage-b"}})) is ArchiverAsyncTransferManager
    assert managers.AsyncTransferManagers[2] is ArchiverAsyncTransferManager


def test_other_offers_are_what_they_were() -> None:
    assert type(answer({"local": {"hostnames": ["here"]}})) is managers.LocalAsyncTransferManager
    # The first is taken, valid or not: a receiver is to offer one.
    assert (
        type(answer({"local": {"hostnames": ["here"]}, "rsync": {"hostname": "b"}})) is not ArchiverAsyncTransferManager
    )


def test_ours_has_the_stock_fields_on_the_wire() -> None:
    stock = managers.RsyncAsyncTransferManager
    assert issubclass(ArchiverAsyncTransferManager, stock)
    assert set(stock.model_fields) < set(ArchiverAsyncTransferManager.model_fields)
    extra = set(ArchiverAsyncTransferManager.model_fields) - set(stock.model_fields)
    assert not any(ArchiverAsyncTransferManager.model_fields[name].is_required() for name in extra)


def test_the_facts_that_the_package_is_built_on_are_so() -> None:
    assert managers.AsyncTransferManagerNames["rsync"] == 2
    assert {status.name: status.value for status in TransferStatus} == {
        "INITIATED": 0,
        "ONGOING": 1,
        "STAGED": 2,
        "COMPLETED": 3,
        "FAILED": 4,
        "CANCELLED": 5,
    }
    assert managers.CoreAsyncTransferManager.__abstractmethods__ == {
        "batch_transfer",
        "transfer",
        "valid",
        "transfer_status",
        "fail_transfer",
        "gather_transfer_details",
    }
    from hera_librarian.models.transfer import CompletedTransferCore

    assert list(CompletedTransferCore.model_fields) == [
        "task_id",
        "source_endpoint_id",
        "destination_endpoint_id",
        "start_time",
        "end_time",
        "duration_seconds",
        "bytes_transferred",
        "effective_bandwidth_bps",
    ]


UNKNOWN = [
    (
        "clone.CloneBatchInitiationResponse.model_fields.pop('async_transfer_providers')",
        "the answer to clone/batch_stage has no async_transfer_providers",
    ),
    (
        "clone.CloneBatchInitiationResponse.model_fields['async_transfer_providers'].annotation = list[str]",
        "async_transfer_providers is list[str]",
    ),
    (
        "clone.CloneBatchInitiationResponse.model_fields['async_transfer_providers'].annotation = "
        "dict[str, managers.LocalAsyncTransferManager | managers.GlobusAsyncTransferManager]",
        "does not offer RsyncAsyncTransferManager",
    ),
    ("managers.AsyncTransferManagerNames.pop('rsync')", "rsync is not in the table of managers"),
    (
        "managers.CoreAsyncTransferManager.__abstractmethods__ |= {'resume_transfer'}",
        "managers are to have ['resume_transfer']",
    ),
    ("managers.RsyncAsyncTransferManager.model_fields['port'] = None", "has the fields"),
    (
        "managers.RsyncAsyncTransferManager.batch_transfer = lambda self, batch, settings: True",
        "batch_transfer takes ['self', 'batch', 'settings']",
    ),
]


@pytest.mark.parametrize(("change", "why"), UNKNOWN)
def test_an_unknown_librarian_is_refused_and_left_as_it_is(change: str, why: str) -> None:
    script = f"""
import hera_librarian.async_transfers as managers, hera_librarian.models.clone as clone
from pysmurf_archiver_librarian.registration import UnknownLibrarianError, register
{change}
try:
    register()
except UnknownLibrarianError as error:
    print(error)
    print(managers.AsyncTransferManagers[2].__name__)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout
    assert told.startswith("This Librarian is not known to pysmurf_archiver_librarian: ") and why in told
    assert told.endswith("\nRsyncAsyncTransferManager\n")
