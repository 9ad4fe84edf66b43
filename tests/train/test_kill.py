"""SIGKILL at a random moment: benchmarks/kills.py, with one kill instead of ten."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kills.py"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a server of trainings")
def test_killed_at_a_random_moment_and_resumed_to_the_same_bits():
    done = subprocess.run([sys.executable, SCRIPT, "--kills", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(line.startswith("kill ") for line in done.stdout.splitlines()) == 1
    assert "equal to the last bit" in done.stdout
