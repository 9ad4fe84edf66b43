"""Processes that train together (gloo on the CPU): one result, and a resume that is equal to the last bit."""

import json
import os
import subprocess
import sys

import pytest

from torchfpn.cli.main import main
from train import test_panoptic as panoptic
from train.tiny import rows, same_training

SCRIPT = """
import os, signal, sys
from torchfpn.cli.main import main
import torchfpn.train.fit as run
from torchfpn.train.run_folder import Machine
from torchfpn.train.loop import TrainingStep

run.machine = lambda config: Machine("cpu", 2, "32-true", 0)  # two, which `fpn train` would call one device
stop, step, calls = os.environ.get("STOP"), TrainingStep.step, iter(range(1000))

def stepped(self, *args):
    if stop and next(calls) == int(stop) and os.environ.get("LOCAL_RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *args)

TrainingStep.step = stepped
flags = ["--data.crop", "64", "--batch_size", "2", "--accumulate", "2", "--strategy", "ddp"]
sys.exit(main(["train", "--config", "small.yaml", *flags, *sys.argv[1:]]))
"""

# Trainings one after another, each in processes that are forked from one that has imported everything: of each case
# the images to validate, the processes, and whether one of them gets a signal while it validates. A case that hangs is
# killed. Printed is what each process of each case left with.
CASES = """
import json, multiprocessing, os, signal, socket, sys
import torchfpn.train.fit as run
from torchfpn.cli.main import main
from torchfpn.train.run_folder import Machine
from torchfpn.evaluation.model import PixelValidation

def process(rank, world, port, name, images, stop):
    run.machine = lambda config: Machine("cpu", world, "32-true", 0)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port), "FPN_RUN_FOLDER": "runs/" + name, "FPN_RUN_CHECKPOINT": ""}
    step = PixelValidation.step
    def stepped(self, batch):
        if stop and rank == world - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)
    PixelValidation.step = stepped
    flags = ["--name", name, "--max_epochs", "1", "--steps_per_epoch", "1", "--batch_size", "2", "--ema", "0"]
    os._exit(main(["train", "--config", "small.yaml", *flags, "--limit_val_batches", str(images), "--strategy", "ddp"]))

fork, left = multiprocessing.get_context("fork"), []
for number, (images, world, stop) in enumerate(json.loads(sys.argv[1])):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = world, port, f"case{number}", images, stop
    every = [fork.Process(target=process, args=(rank, *given)) for rank in range(world)]
    for one in every:
        one.start()
    for one in every:
        one.join(120)
    left.append([one.exitcode for one in every])
    for one in every:
        one.kill()
print(json.dumps(left))
"""
SOME = [(1, 2, False), (3, 2, True)]
ALL = [(images, world, stop) for images in (1, 3, 5) for world in (2, 3) for stop in (False, True)]


def environment(**variables):
    return {**os.environ, "OMP_NUM_THREADS": "1", **variables}


def train(folder, *flags, **variables):
    """The exit code of a training of two processes."""
    (folder / "two.py").write_text(SCRIPT)
    command = [sys.executable, "two.py", *flags]
    return subprocess.run(command, cwd=folder, env=environment(**variables), timeout=240, check=False).returncode


@pytest.mark.skipif(sys.platform == "win32", reason="gloo and fork")
@pytest.mark.parametrize("cases", [SOME, pytest.param(ALL, marks=pytest.mark.slow)], ids=["some", "all"])
def test_validation_ends_whatever_the_number_of_images_and_processes(small, cases):
    """Of one image, one process has none; of three, one process has one more. A signal to the last one stops all."""
    for kind in ("images", "labels"):
        for i in range(3):
            (small / "data" / "val" / kind / f"{2 + i}.png").symlink_to(small / "data" / "val" / kind / "0.png")
    (small / "cases.py").write_text(CASES)
    command = [sys.executable, "cases.py", json.dumps(cases)]
    done = subprocess.run(command, cwd=small, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout.splitlines()[-1])
    for number, ((images, world, stop), codes) in enumerate(zip(cases, left, strict=True)):
        stopped = stop and images >= world  # the last process has an image, at which the signal comes
        assert codes == [143 if stopped else 0] * world, (images, world, stop, done.stderr)
        if not stopped:
            (row,) = rows(small / "runs" / f"case{number}")
            assert 0 <= float(row["val/miou"]) <= 1


@pytest.mark.skipif(sys.platform == "win32", reason="gloo and fork")
@pytest.mark.parametrize("worlds", [(2,), pytest.param((2, 3), marks=pytest.mark.slow)], ids=["two", "more"])
def test_panoptic_scores_of_several_processes_are_those_of_one(tmp_path, worlds):
    """Each process scores its share of the three images in training; the first one scores all of them at the end."""
    panoptic.make_data(tmp_path / "data")
    (tmp_path / "data" / "dataset.yaml").write_text(panoptic.YAML)
    merging = "  channels: 8\n  merging: {score: 0.05, stuff_area: 9}\n"
    (tmp_path / "small.yaml").write_text(panoptic.SETTINGS.replace("  channels: 8\n", merging))
    (tmp_path / "cases.py").write_text(CASES)
    command = [sys.executable, "cases.py", json.dumps([(3, world, False) for world in worlds])]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[0] * world for world in worlds], done.stderr
    for number in range(len(worlds)):
        run = tmp_path / "runs" / f"case{number}"
        (row,) = rows(run)
        values = json.loads((run / "validation.json").read_text())
        assert sum(values["tp"][:2] + values["fp"][:2]) > 0, "no thing was predicted"
        kinds = {f"{kind}_pq": values[kind]["pq"] for kind in ("things", "stuff")}
        classes = {f"pq_{name}": pq for name, pq in zip(values["classes"], values["class_pq"], strict=True)}
        expected = {k: values["all"][k] for k in ("pq", "sq", "rq")} | kinds | values["branches"] | classes
        assert {name: float(row[f"val/{name}"]) for name in expected} == expected


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"LOCAL_RANK": "1"}, "process 1 of several that another program started (LOCAL_RANK=1)"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}, "process 0 of several"),
        ({"LOCAL_RANK": "first"}, 'LOCAL_RANK: "first"; expected a number from 0; unset LOCAL_RANK'),
    ],
)
def test_a_process_that_another_program_started_says_so(small, monkeypatch, capsys, variables, found):
    """As torchrun starts them: no first process has told the others where to train."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "--config", "small.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fpn: {found}")
    assert not (small / "runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo and signals")
def test_two_processes_stopped_and_resumed(small):
    assert train(small, "--name", "undisturbed") == 0
    assert train(small, "--name", "stopped", STOP="1") == 143
    assert train(small, "--name", "stopped", "--resume") == 0
    assert same_training(small / "runs" / "undisturbed", small / "runs" / "stopped") == []
