"""All of it again with the genuine Librarian, where `LIBRARIAN_SRC` says where its tree is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_genuine_librarian_is_as_the_stand_in() -> None:
    tree = os.environ.get("LIBRARIAN_SRC")
    if "LIBRARIAN_TREE" in os.environ:
        pytest.skip("this is that run")
    if not tree:
        if os.environ.get("CI") and os.environ.get("LIBRARIAN_DEMANDED"):
            pytest.fail("LIBRARIAN_SRC does not say where the genuine Librarian is")
        pytest.skip("LIBRARIAN_SRC does not say where the genuine Librarian is")
    assert Path(tree, "hera_librarian").is_dir(), f"LIBRARIAN_SRC: {tree} has no hera_librarian"
    words = [sys.executable, "-m", "pytest", "-q", "-r", "s", str(Path(__file__).parent)]
    done = subprocess.run(
        words, env=os.environ | {"LIBRARIAN_TREE": tree}, capture_output=True, text=True, timeout=3_600, check=False
    )
    print(done.stdout[-4_000:])
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-4_000:]
