"""Two processes that train together (gloo on the CPU): one result, and a resume that is equal to the last bit."""

import os
import subprocess
import sys

import pytest

from train.tiny import same_training

SCRIPT = """
import os, signal, sys
from torchfpn.cli.main import main
from torchfpn.train import run
from torchfpn.train.machine import Machine
from torchfpn.train.stepper import Stepper

run.machine = lambda config: Machine("cpu", 2, "32-true", 0)  # two, which `fpn train` would call one device
stop, step, calls = os.environ.get("STOP"), Stepper.step, iter(range(1000))

def stepped(self, *args):
    if stop and next(calls) == int(stop) and os.environ.get("LOCAL_RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *args)

Stepper.step = stepped
flags = ["--data.crop", "64", "--batch_size", "2", "--accumulate", "2", "--strategy", "ddp"]
sys.exit(main(["train", "--config", "small.yaml", *flags, *sys.argv[1:]]))
"""


def train(folder, *flags, **variables):
    """The exit code of a training of two processes."""
    (folder / "two.py").write_text(SCRIPT)
    command = [sys.executable, "two.py", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, cwd=folder, env=environment, timeout=240, check=False).returncode


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo and signals")
def test_two_processes_stopped_and_resumed(small):
    assert train(small, "--name", "undisturbed") == 0
    assert train(small, "--name", "stopped", STOP="1") == 143
    assert train(small, "--name", "stopped", "--resume") == 0
    assert same_training(small / "runs" / "undisturbed", small / "runs" / "stopped") == []
