"""Tables to measure an archiver beside, each in a database of its own beneath a folder."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import time

# Of new files.
CONTENT = b"n" * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Sqlite:
    """SupRsync's table in a file."""

    def __init__(self, program, folder):
        self.url = f"sqlite:{folder}/suprsync.db"
        self.options = ["--archive-name", "smurf"]
        subprocess.run([program, "init-db", "--db", self.url], check=True, stdout=subprocess.DEVNULL)
        self.database = sqlite3.connect(f"{folder}/suprsync.db", timeout=30, isolation_level=None)

    def register(self, path, number):
        """Registers a file of CONTENT, as number `number`; where it goes in the archive."""
        self.database.execute(
            "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, failed_copy_attempts,"
            ' deletable, "ignore") VALUES (?, ?, ?, ?, ?, 0, 1, 0)',
            (path, MD5, "smurf", f"17999/new{number}", time.time()),
        )
        return f"17999/new{number}"

    def register_all(self, files):
        """Registers files in one transaction: path, MD5 and number of each."""
        rows = [(path, md5, "smurf", f"17999/{number // 500}/{os.path.basename(path)}", time.time()) for path, md5, number in files]
        self.database.execute("BEGIN IMMEDIATE")
        self.database.executemany(
            "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, failed_copy_attempts,"
            ' deletable, "ignore") VALUES (?, ?, ?, ?, ?, 0, 1, 0)',
            rows,
        )
        self.database.execute("COMMIT")

    def freeze(self):
        """Nobody else can write, and in the server's table nobody else can read, until thaw()."""
        self.database.execute("BEGIN IMMEDIATE")

    def thaw(self):
        self.database.execute("COMMIT")

    def is_copied(self, path):
        """Whether the file registered with this path is recorded as copied."""
        row = self.database.execute("SELECT remote_md5sum FROM supersync_v0 WHERE local_path = ? ORDER BY id DESC", (path,))
        return row.fetchone()[0] == MD5

    def close(self):
        self.database.close()


class MariaDb:
    """A table of pysmurf files in a server of its own."""

    COLUMNS = "path, action, timestamp, action_timestamp, plot, pub_id, instance_id, copied, failed_copy_attempts, md5sum"

    def __init__(self, program, folder):
        data, socket = f"{folder}/data", f"{folder}/s"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root"], **quiet)
        port = 33060 + os.getpid() % 20000
        self.server = subprocess.Popen(
            ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={socket}", f"--port={port}"]
            + ["--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        client = ["mariadb", "--no-defaults", f"--socket={socket}", "-uroot"]
        until = time.time() + 120
        while subprocess.run(client + ["-e", "SELECT 1"], capture_output=True).returncode and time.time() < until:
            time.sleep(0.1)
        self.begin(program, client, [port])

    def begin(self, program, client, ports):
        """Makes the table by way of the server for which this is a client, and says where archivers find it."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.client = subprocess.Popen(client + ["--batch", "--skip-column-names", "--unbuffered"], **pipes)
        self.execute("CREATE DATABASE files; CREATE USER a@'%'; GRANT ALL ON files.* TO a@'%'; USE files")
        hosts = [f"127.0.0.1:{port}" for port in ports]
        # Each begins with another node.
        self.urls = [f"mysql://a@{','.join(hosts[first:] + hosts[:first])}/files" for first in range(len(hosts))]
        self.url = self.urls[0]
        self.options = ["--target", "monitor"]
        subprocess.run([program, "init-db", "--db", self.url], check=True, stdout=subprocess.DEVNULL)
        self.insert = f"INSERT INTO pysmurf_files_v1 ({self.COLUMNS})"

    def execute(self, statements):
        """Has them carried out; what they give, the last line of it."""
        self.client.stdin.write(f"{statements}; SELECT 'done';\n")
        last = None
        while (line := self.client.stdout.readline().rstrip("\n")) != "done":
            if not line:
                raise RuntimeError(f"The database refused {statements}")
            last = line
        return last

    def register(self, path, number):
        now = int(time.time())
        self.execute(
            f"{self.insert} VALUES ('{path}', 'take', FROM_UNIXTIME({now}), {now}, 0, 'crate1', 'monitor', 0, 0, UNHEX('{MD5}'))"
        )
        return f"{str(now)[:5]}/crate1/{now}_take/outputs/{os.path.basename(path)}"

    def register_all(self, files):
        now = int(time.time())
        rows = (
            f"('{path}', 'take', FROM_UNIXTIME({now}), {now // 1000 * 1000 + number // 500}, 0, 'crate1', 'monitor', 0, 0, UNHEX('{md5}'))"
            for path, md5, number in files
        )
        self.execute(f"{self.insert} VALUES {','.join(rows)}")

    def freeze(self):
        self.server.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.server.send_signal(signal.SIGCONT)

    def is_copied(self, path):
        # The archiver writes where the copy is in the place of the path.
        return self.execute(f"SELECT MAX(path = '{path}') FROM pysmurf_files_v1 WHERE copied = 0") in ("NULL", "0")

    def cpu(self):
        return cpu(self.server.pid)

    def close(self):
        self.client.kill()
        self.server.terminate()
        self.server.wait()


TABLES = {"sqlite": Sqlite, "mariadb": MariaDb}


def cpu(pid):
    """Seconds of CPU that a process has had."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
