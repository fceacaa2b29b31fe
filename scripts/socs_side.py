"""The genuine SupRsync of socs, for `scripts/beside-socs`; runs in the virtual environment that has it.

Usage: socs_side.py produce DB SOURCES LIST PER_SECOND   registers files until a file LIST.stop is there
       socs_side.py agent DB ARCHIVE FILE_ROOT           copies as the agent does, until SIGTERM
       socs_side.py stats DB                             prints what the agent would publish of the archive
       socs_side.py yaml FILE                            prints a file of YAML as JSON
       socs_side.py timecodes DB FILE_ROOT               one round of completing timecodes
"""

import hashlib
import json
import os
import random
import signal
import sys
import time

import sqlalchemy.exc
import yaml
from socs.db.suprsync import SupRsyncFilesManager

ARCHIVE = "smurf"
WHO = "smurf"


def produce(db, sources, listing, per_second):
    """A producer as socs' monitor is one: each file registered as soon as it is written."""
    chance = random.Random(2026)
    manager = SupRsyncFilesManager(db)
    timecode = int(time.time() // 1e5)
    number = 0
    with open(listing, "w", buffering=1) as told:
        while not os.path.exists(listing + ".stop"):
            name = f"{number:06}.npy"
            content = chance.randbytes(chance.choice([0, 900, 4000, 20_000, 300_000]))
            path = f"{sources}/{name}"
            with open(path, "wb") as file:
                file.write(content)
            # Some belong to days that are over.
            remote = f"{timecode - number % 4}/crate1slot{number % 3}/{name}"
            md5 = hashlib.md5(content).hexdigest()
            while True:
                try:
                    manager.add_file(path, remote, ARCHIVE, local_md5sum=md5)
                    break
                except sqlalchemy.exc.OperationalError:
                    pass
            print(json.dumps([remote, md5]), file=told)
            number += 1
            time.sleep(1 / float(per_second))


class StubAgent:
    """What an OCS agent is to SupRsync, without a router."""

    def register_feed(self, *args, **kwargs):
        pass

    def publish_to_feed(self, feed, message):
        print(json.dumps([feed, message["data"]]), flush=True)


class Session:
    degraded = False
    data = {}

    def set_status(self, status):
        pass


def agent(db, archive, file_root):
    from socs.agents.suprsync.agent import SupRsync, make_parser

    words = ["--archive-name", ARCHIVE, "--remote-basedir", archive, "--db-path", db]
    words += ["--suprsync-file-root", file_root, "--sleep-time", "0.2", "--files-per-batch", "100"]
    args = make_parser().parse_args(words)
    args.instance_id = WHO
    suprsync = SupRsync(StubAgent(), args)
    signal.signal(signal.SIGTERM, lambda *_: suprsync._stop(Session()))
    suprsync.run(Session())


def stats(db):
    print(json.dumps(SupRsyncFilesManager(db, create_all=False).get_archive_stats(ARCHIVE)))


def show(name):
    with open(name) as file:
        print(json.dumps(yaml.safe_load(file)))


def timecodes(db, file_root):
    manager = SupRsyncFilesManager(db, create_all=False)
    manager.create_all_timecode_dirs(ARCHIVE)
    manager.update_all_timecode_dirs(ARCHIVE, file_root, WHO)


if __name__ == "__main__":
    {"produce": produce, "agent": agent, "stats": stats, "timecodes": timecodes, "yaml": show}[sys.argv[1]](*sys.argv[2:])
