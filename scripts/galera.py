"""A Galera cluster of three on the loopback, and what befalls it."""

import os
import shutil
import subprocess
import threading
import time

from tables import MariaDb, cpu

# Where Debian's galera-4 has it.
PROVIDER = "/usr/lib/galera/libgalera_smm.so"
NODES = 3
# Seconds until a node must be in step, which a whole transfer of state may precede.
STEP = 180


class Galera(MariaDb):
    """The same table in three servers that are kept in step. Nobody harms the first one, at which the producer is."""

    def __init__(self, program, folder, serves_state):
        self.folder, self.program, self.serves_state = folder, program, serves_state
        self.base = 20000 + os.getpid() % 1000 * 40
        self.servers = [None] * NODES
        # The servers run as another user: as root they could not take each other's state by rsync.
        for above in [os.path.dirname(folder), folder]:
            os.chmod(above, 0o755)
        for node in range(NODES):
            os.mkdir(self.place(node))
            shutil.chown(self.place(node), "mysql", "mysql")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={self.place(0)}/data", "--user=mysql"], **quiet)
        # One after another: who gives its state gives it to one.
        for node in range(NODES):
            self.start(node, ["--wsrep-new-cluster"] if node == 0 else [])
            self.wait_for_step(node)
        self.server = self.servers[0]
        self.begin(program, self.client_of(0), [self.port(node, 0) for node in range(NODES)])
        # What another node has taken is seen here.
        self.execute("SET SESSION wsrep_sync_wait=1")

    def place(self, node):
        return f"{self.folder}/n{node}"

    def port(self, node, use):
        """For SQL, for the cluster, for what a node lacks little of, for what it lacks all of."""
        return self.base + node * 10 + use

    def client_of(self, node):
        return ["mariadb", "--no-defaults", f"--socket={self.place(node)}/s", "-uroot"]

    def start(self, node, more=()):
        place, [sql, cluster, little, whole] = self.place(node), [self.port(node, use) for use in range(4)]
        os.makedirs(f"{place}/data", exist_ok=True)
        shutil.chown(f"{place}/data", "mysql", "mysql")
        others = ",".join(f"127.0.0.1:{self.port(other, 1)}" for other in range(NODES))
        provider = (
            f"gmcast.listen_addr=tcp://127.0.0.1:{cluster};ist.recv_addr=127.0.0.1:{little};gcache.size=64M;evs.keepalive_period=PT0.5S;"
            "evs.suspect_timeout=PT2S;evs.inactive_timeout=PT5S;evs.inactive_check_period=PT0.5S"
        )
        command = ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={place}/data", f"--socket={place}/s", f"--pid-file={place}/pid"]
        command += [f"--port={sql}", "--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"]
        command += ["--performance-schema=OFF", "--innodb-buffer-pool-size=64M", "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2"]
        command += ["--wsrep-on=ON", f"--wsrep-provider={PROVIDER}", "--wsrep-cluster-name=fleet", f"--wsrep-cluster-address=gcomm://{others}"]
        command += [f"--wsrep-node-name=n{node}", f"--wsrep-node-address=127.0.0.1:{cluster}", "--wsrep-sst-method=rsync"]
        command += [f"--wsrep-sst-receive-address=127.0.0.1:{whole}", f"--wsrep-provider-options={provider}"]
        # Not by the producer's node, if another one can.
        command += [f"--wsrep-sst-donor={','.join(f'n{other}' for other in range(NODES - 1, 0, -1) if other != node)},", *more]
        if self.serves_state:
            # The server looks for rsync beside itself first: there it finds this program, and nobody else does.
            command = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /usr/bin/rsync && exec "$@"', self.program, *command]
        with open(f"{place}/log", "a") as log:
            self.servers[node] = subprocess.Popen(command, stdout=log, stderr=log)

    def is_in_step(self, node):
        asked = [*self.client_of(node), "--batch", "--skip-column-names", "-e", "SHOW STATUS LIKE 'wsrep_ready'"]
        return subprocess.run(asked, capture_output=True, text=True).stdout.split() == ["wsrep_ready", "ON"]

    def wait_for_step(self, node):
        until = time.monotonic() + STEP
        while not self.is_in_step(node):
            if self.servers[node].poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"Node {node} does not come up; see {self.place(node)}/log")
            time.sleep(0.1)

    def kill(self, node):
        self.servers[node].kill()
        self.servers[node].wait()

    def wipe(self, node):
        """What stands there goes, so that it must be given everything."""
        shutil.rmtree(f"{self.place(node)}/data")

    def cut(self, node, chance):
        """Kills one of the archivers' connections to a node."""
        sql = "SELECT id FROM information_schema.processlist WHERE user='a'"
        client = [*self.client_of(node), "--batch", "--skip-column-names", "-e"]
        found = subprocess.run([*client, sql], capture_output=True, text=True).stdout.split()
        if not found:
            return False
        return subprocess.run([*client, f"KILL CONNECTION {chance.choice(found)}"], capture_output=True).returncode == 0

    def sums(self):
        """Of the table at each node: the same of all that are in step."""
        told = []
        for node in range(NODES):
            asked = [*self.client_of(node), "--batch", "--skip-column-names", "-e"]
            asked += ["SET SESSION wsrep_sync_wait=1; CHECKSUM TABLE files.pysmurf_files_v1, files.fleet_proof"]
            told.append(subprocess.run(asked, capture_output=True, text=True).stdout)
        return told

    def cpu(self):
        return sum(cpu(server.pid) for server in self.servers)

    def close(self):
        self.client.kill()
        for server in self.servers:
            server.kill()
            server.wait()


class Weather(threading.Thread):
    """Kills a node now and then, has it come back, each second time with nothing, and cuts connections all the while."""

    def __init__(self, cluster, chance, pause, away):
        super().__init__(daemon=True)
        self.cluster, self.chance, self.pause, self.away = cluster, chance, pause, away
        self.over = threading.Event()
        self.killed, self.wiped, self.cut, self.failed = 0, 0, 0, None

    def run(self):
        try:
            while not self.rest(self.pause):
                node = self.chance.randrange(1, NODES)
                self.cluster.kill(node)
                self.killed += 1
                if self.killed % 2 == 0:
                    self.cluster.wipe(node)
                    self.wiped += 1
                self.rest(self.away, but=node)
                self.cluster.start(node)
                self.cluster.wait_for_step(node)
        except RuntimeError as error:
            self.failed = str(error)

    def rest(self, seconds, but=None):
        """Lets time pass, with cuts; true once it is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.over.wait(1):
            node = self.chance.choice([node for node in range(NODES) if node != but])
            self.cut += self.cluster.cut(node, self.chance)
        return self.over.is_set()

    def end(self):
        self.over.set()
        self.join()
        return self.failed
