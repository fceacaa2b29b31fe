"""What `test_two_librarians.py` does in the place of an administrator, each call in a process with the settings of one
server: python server_side.py WHAT JSON, which prints JSON. By the Librarian's own classes."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def setup(given: Any) -> None:
    """Tables, users, the store and the other librarians, as librarian-server-setup and add-librarian make them."""
    from hera_librarian.authlevel import AuthLevel
    from librarian_server import database
    from librarian_server.orm import Librarian, StoreMetadata, User

    database.Base.metadata.create_all(database.engine)
    with database.get_session() as session:
        for user in given["users"]:
            session.add(User.new_user(username=user, password="password", auth_level=AuthLevel.ADMIN))
        session.add(
            StoreMetadata(
                name="store",
                ingestable=True,
                store_type=1,
                store_data={"name": "store", "staging_path": given["staging"], "store_path": given["store"]},
                transfer_manager_data={"local": {"available": True, "hostnames": [given["hostname"]]}},
                async_transfer_manager_data=given["offers"],
            )
        )
        for other in given["others"]:
            session.add(
                Librarian.new_librarian(
                    name=other["name"],
                    url="http://127.0.0.1",
                    port=other["port"],
                    authenticator=f"{given['name']}:password",
                    check_connection=False,
                )
            )
        session.commit()


def upload(given: Any) -> None:
    from hera_librarian import LibrarianClient

    client = LibrarianClient(host="http://127.0.0.1", port=given["port"], user="observer", password="password")
    for local, name in given["files"]:
        client.upload(Path(local), Path(name))


def manifest(given: Any) -> None:
    """As `librarian get-store-manifest` writes it."""
    from hera_librarian import AdminClient

    client = AdminClient(host="http://127.0.0.1", port=given["port"], user="observer", password="password")
    told = client.get_store_manifest(
        store_name="store", create_outgoing_transfers=True, destination_librarian=given["destination"]
    )
    Path(given["output"]).write_text(told.model_dump_json(indent=2))


def ingest(given: Any) -> Any:
    """As `librarian ingest-manifest` does it; how many were new, and how many there already."""
    from hera_librarian import AdminClient
    from hera_librarian.exceptions import LibrarianError
    from hera_librarian.models.admin import AdminStoreManifestResponse

    client = AdminClient(host="http://127.0.0.1", port=given["port"], user="observer", password="password")
    told = AdminStoreManifestResponse.model_validate_json(Path(given["manifest"]).read_text())
    new = 0
    for item in told.store_files:
        try:
            client.ingest_manifest_entry(
                name=Path(item.name),
                create_time=item.create_time,
                size=item.size,
                checksum=item.checksum,
                uploader=told.librarian_name,
                source=item.source,
                deletion_policy=item.deletion_policy,
                source_transfer_id=item.outgoing_transfer_id,
                local_path=Path(given["root"]) / item.name,
            )
            new += 1
        except LibrarianError as error:
            assert "already exists" in str(error), error
    return [new, len(told.store_files) - new]


def counts(_: Any) -> Any:
    """How everything stands; every row of the tables is read for it, with what is pickled in it."""
    from hera_librarian.utils import get_checksum_from_path
    from librarian_server.database import get_session
    from librarian_server.orm import (
        CompletedTransfer,
        File,
        IncomingTransfer,
        OutgoingTransfer,
        RemoteInstance,
        SendQueue,
    )

    with get_session() as session:
        files = session.query(File).all()
        wrong = [
            file.name
            for file in files
            for instance in file.instances
            if get_checksum_from_path(instance.path, threads=1) != file.checksum
        ]
        queue = session.query(SendQueue).order_by(SendQueue.id).all()
        return {
            "files": sorted(file.name for file in files),
            "instances": {file.name: file.instances[0].path for file in files if file.instances},
            "wrong": wrong,
            "remote": sorted((row.librarian.name, row.file_name) for row in session.query(RemoteInstance)),
            "records": [record.task_id for record in session.query(CompletedTransfer)],
            "incoming": sorted((row.store_path or "", row.status.name) for row in session.query(IncomingTransfer)),
            "outgoing": sorted((row.file_name, row.status.name) for row in session.query(OutgoingTransfer)),
            "queue": [
                {
                    "id": row.id,
                    "destination": row.destination,
                    "consumed": bool(row.consumed),
                    "completed": bool(row.completed),
                    "failed": bool(row.failed),
                    "retries": row.retries,
                    "class": type(row.async_transfer_manager).__name__,
                    "batch": getattr(row.async_transfer_manager, "batch_id", ""),
                    "places": [transfer.dest_path for transfer in row.transfers],
                }
                for row in queue
            ],
        }


def enable(given: Any) -> None:
    from librarian_server.database import get_session
    from librarian_server.orm import Librarian

    with get_session() as session:
        session.query(Librarian).filter_by(name=given["name"]).one().transfers_enabled = given["enabled"]
        session.commit()


def background(given: Any) -> None:
    """One round of the stock background process or of ours, which may be to kill itself once a batch is handed over."""
    sys.argv = ["background", "--once"]
    if given.get("die"):
        from pysmurf_archiver_librarian.manager import ArchiverAsyncTransferManager

        hand_over = ArchiverAsyncTransferManager.batch_transfer

        def hand_over_and_die(*words: Any) -> None:
            hand_over(*words)
            os.kill(os.getpid(), signal.SIGKILL)

        ArchiverAsyncTransferManager.batch_transfer = lambda self, paths, settings: hand_over_and_die(
            self, paths, settings
        )
    if given["ours"]:
        from pysmurf_archiver_librarian.background import main
    else:
        from librarian_server_scripts.librarian_background_only import main
    main()


if __name__ == "__main__":
    # Loguru and whatever else is printed goes elsewhere.
    answer = sys.stdout
    sys.stdout = sys.stderr
    print(json.dumps(globals()[sys.argv[1]](json.loads(sys.argv[2]))), file=answer)
