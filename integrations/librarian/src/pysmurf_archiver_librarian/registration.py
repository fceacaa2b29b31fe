"""Puts our manager in the place of the stock one for rsync, in this process. The Librarian has no plug-ins: which class
an answer of the receiver becomes stands in the type of one field of one model."""

import inspect
from typing import Any, Union, get_args, get_origin

from .manager import ArchiverAsyncTransferManager

FIELD = "async_transfer_providers"
METHODS = {"batch_transfer", "transfer", "valid", "transfer_status", "fail_transfer", "gather_transfer_details"}
# A receiver's offer as stock Librarians send it.
OFFER = {"hostname": "storage-b", "transfer_attempted": False, "transfer_complete": False}


class UnknownLibrarianError(Exception):
    """The installed Librarian is not one that this package knows how to work with."""


def refuse_unless(fact: bool, what: str) -> None:
    if not fact:
        raise UnknownLibrarianError(
            f"This Librarian is not known to pysmurf_archiver_librarian: {what}. "
            "Nothing was changed; use another version of either, or the stock librarian-background-only"
        )


def register() -> None:
    """Has answers that offer rsync become managers of ours. To be called before the background tasks run; a second
    call changes nothing."""
    import hera_librarian.async_transfers as managers
    from hera_librarian.models.clone import CloneBatchInitiationResponse as Response

    stock = managers.RsyncAsyncTransferManager
    field = Response.model_fields.get(FIELD)
    refuse_unless(field is not None, f"the answer to clone/batch_stage has no {FIELD}")
    kinds = get_args(field.annotation)
    refuse_unless(get_origin(field.annotation) is dict and len(kinds) == 2, f"{FIELD} is {field.annotation}")
    members = get_args(kinds[1])
    if ArchiverAsyncTransferManager not in members:
        refuse_unless(stock in members, f"{FIELD} does not offer {stock.__name__}")
        check_manager(stock, managers)
        replace_kind(Response, kinds[0], [ArchiverAsyncTransferManager if kind is stock else kind for kind in members])
    managers.AsyncTransferManagers[managers.AsyncTransferManagerNames["rsync"]] = ArchiverAsyncTransferManager
    check_answer(Response)


def check_manager(stock: Any, managers: Any) -> None:
    """What the subclass relies on."""
    refuse_unless(
        set(stock.model_fields) == set(OFFER), f"{stock.__name__} has the fields {sorted(stock.model_fields)}"
    )
    number = managers.AsyncTransferManagerNames.get("rsync")
    refuse_unless(managers.AsyncTransferManagers.get(number) is stock, "rsync is not in the table of managers")
    abstract = set(managers.CoreAsyncTransferManager.__abstractmethods__)
    refuse_unless(abstract <= METHODS, f"managers are to have {sorted(abstract - METHODS)}")
    for name in ("batch_transfer", "transfer_status", "valid", "transfer"):
        words = list(inspect.signature(getattr(stock, name)).parameters)
        ours = list(inspect.signature(getattr(ArchiverAsyncTransferManager, name)).parameters)
        refuse_unless(words == ours, f"{name} takes {words}")


def replace_kind(model: Any, key: Any, members: list[Any]) -> None:
    # Known only here, so not to be written with bars.
    annotation = dict[key, Union[tuple(members)]]  # noqa: UP007
    # Both: which of them a rebuild reads is pydantic's affair and has changed.
    model.model_fields[FIELD].annotation = annotation
    model.__annotations__[FIELD] = annotation
    model.model_rebuild(force=True)


def check_answer(model: Any) -> None:
    """Whether it came to what was meant, by an answer as it comes from a stock receiver."""
    answer = model.model_validate(
        {"available_bytes_on_store": 1, "store_name": "store", "uploads": [], FIELD: {"rsync": OFFER}}
    )
    kind = type(getattr(answer, FIELD)["rsync"])
    refuse_unless(kind is ArchiverAsyncTransferManager, f"an offer of rsync becomes {kind.__name__}")
