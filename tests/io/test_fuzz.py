"""A share of ``python -m tests.fuzz``, in a process of its own: it limits memory."""

import json
import re
import subprocess
import sys

import pytest

from dl4py.config.eras import ERAS, recognise
from tests import fuzz


def run(*words):
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=fuzz.ROOT)


def test_two_thousand_damaged_files():
    result = run("-m", "tests.fuzz", "2000")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1].startswith("2000 files in")


def test_every_era_is_among_them():
    found = [json.loads(entries["configuration.json"]) for entries in fuzz.others()]
    eras = {recognise(content).key for content in found}
    assert eras == set(ERAS) and any("vertices" in content for content in found)


@pytest.mark.parametrize(
    "fault, says",
    [
        ("np.ones(40 << 20, np.uint8)", "MemoryError"),
        ("torch.ones(40 << 20, dtype=torch.uint8)", "RuntimeError"),
        ("[0 for _ in iter(int, 1)]", "MemoryError|more than 2 seconds"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_faults_are_seen(fault, says):
    """The harness itself: what restore must not do is noticed."""
    program = f"""
import dl4py, numpy as np, torch
from dl4py.config.eras import ERAS, recognise
from tests import fuzz
fuzz.SECONDS = 2
dl4py.restore = lambda file: {fault}
fuzz.check(b"")
"""
    result = run("-c", program)
    assert result.returncode == 1
    assert re.search(f"Fault: ({says})", result.stderr), result.stderr
