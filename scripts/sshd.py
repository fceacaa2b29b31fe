"""SSH servers to measure an archiver against."""

import getpass
import os
import shutil
import signal
import subprocess
import time


class Sshd:
    """An SSH server of our own on this machine, with a key that may log in."""

    def __init__(self, folder):
        self.port = 22000 + os.getpid() % 10000
        for name in ["host", "id"]:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/{name}"], check=True)
        shutil.copy(f"{folder}/id.pub", f"{folder}/authorized")
        with open(f"{folder}/host.pub") as key, open(f"{folder}/known", "w") as known:
            known.write(f"[127.0.0.1]:{self.port} {key.read()}")
        options = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": f"{folder}/host",
            "AuthorizedKeysFile": f"{folder}/authorized",
            "StrictModes": "no",
            "UsePAM": "no",
            "PidFile": "none",
            "Subsystem": "sftp internal-sftp",
            # Else bash goes through the start-up files of whoever measures with each session.
            "SetEnv": "SHLVL=1",
        }
        os.makedirs("/run/sshd", exist_ok=True)
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        self.command = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-f", "/dev/null", *given]
        self.start()
        self.options = ["--storage-host", f"{getpass.getuser()}@127.0.0.1:{self.port}"]
        self.options += ["--ssh-key", f"{folder}/id", "--known-hosts", f"{folder}/known"]

    def start(self):
        self.server = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)

    def signal(self, number):
        """Sends it to the server and to all that it has started."""
        for pid in [self.server.pid, *descendants(self.server.pid)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def freeze(self):
        """Nothing of it moves, and connections stay: a node that is stuck."""
        # What is just being started is found the second time.
        for _ in range(2):
            self.signal(signal.SIGSTOP)
            time.sleep(0.1)

    def vanish(self):
        """It is gone with all its sessions: a node that is down."""
        self.signal(signal.SIGKILL)
        self.server.wait()

    def close(self):
        self.server.terminate()
        self.server.wait()


def descendants(pid):
    """All processes that a process has started, and those in turn."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat:
                parents.setdefault(int(stat.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
        except OSError:
            continue
    found, left = [], [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found
