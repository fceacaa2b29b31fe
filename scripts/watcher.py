"""Asks a running archiver again and again how it goes, as those on shift and their machines do."""

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request

EVERY = 1.0


class Watcher:
    """A sample a second: what status, page, health and metrics say."""

    def __init__(self, program, port, control):
        self.base = f"http://localhost:{port}"
        self.status = [program, "status", "--control", control]
        self.samples = []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ending.is_set():
            began = time.time()
            self.samples.append(self.sample(began))
            self.ending.wait(max(0.0, began + EVERY - time.time()))

    def sample(self, now):
        _, status = self.get("/status.json")
        _, metrics = self.get("/metrics")
        # What a person sees who types it.
        typed = subprocess.run(self.status, capture_output=True, text=True)
        archives = json.loads(status)["archives"] if status else []
        return {
            "time": now,
            "archive": archives[0] if archives else None,
            "ready": self.get("/readyz")[0],
            "healthy": self.get("/healthz")[0],
            "metrics": readings(metrics),
            "typed": typed.stdout,
            "code": typed.returncode,
        }

    def get(self, road):
        """Code and text; no code where nobody answers."""
        try:
            with urllib.request.urlopen(self.base + road, timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, None
        except OSError:
            return None, None

    def latest(self):
        return self.samples[-1] if self.samples else None

    def between(self, begin, end):
        return [sample for sample in list(self.samples) if begin <= sample["time"] < end]

    def close(self):
        self.ending.set()
        self.thread.join()


def readings(text):
    """The figures of a page of metrics by their names with labels."""
    lines = (line.rsplit(" ", 1) for line in (text or "").splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def troubles(sample, kinds):
    """What a sample says is wrong, of these kinds."""
    archive = sample["archive"]
    return [trouble for trouble in archive["troubles"] if trouble["kind"] in kinds] if archive else []
