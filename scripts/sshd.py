"""An SSH server to measure beside."""

import getpass
import os
import shutil
import subprocess


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
        command = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-f", "/dev/null", *given]
        self.server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.options = ["--storage-host", f"{getpass.getuser()}@127.0.0.1:{self.port}"]
        self.options += ["--ssh-key", f"{folder}/id", "--known-hosts", f"{folder}/known"]

    def close(self):
        self.server.terminate()
        self.server.wait()
