"""Faults 41 to 47: what can go wrong while a training runs, and what must be left of it."""

# ruff: noqa: F811 - the fixture `small` is imported

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import torchfpn
from file_events import before_event, failing_at
from passes import after_pass, at_step, before_pass, own_signal
from torchfpn.data.datasets import SemanticDataset
from torchfpn.train import run_folder as signals
from train.fixtures import small  # noqa: F401
from train.tiny import checkpoint, rows, same_training, train


class Death(BaseException):
    """What SIGKILL is to a process: nothing gets to clean up, least of all the training."""


def test_fault_41_death_at_a_step_costs_at_most_an_epoch(small):
    """The real SIGKILLs, at random moments, are in tests/train/test_kill.py."""

    def die():
        raise Death

    assert train("--name", "undisturbed") == 0
    with at_step(5, die), pytest.raises(Death):
        train()
    run = small / "runs" / "small"
    assert checkpoint(run)["torchfpn"]["position"] == {"epoch": 1, "batch": 0, "step": 3}
    assert train("--resume") == 0
    assert same_training(small / "runs" / "undisturbed", run) == []


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_fault_42_a_signal_finishes_the_step_saves_and_is_the_exit_code(small, capsys, signum, code):
    if signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN:
        pytest.skip("SIGHUP is ignored here, as under nohup, and a training respects that")
    before = signal.getsignal(signum)  # a job in the background starts with SIGINT ignored
    with at_step(1, own_signal(signum)):
        assert train() == code
    assert checkpoint(small / "runs" / "small")["torchfpn"]["position"] == {"epoch": 0, "batch": 2, "step": 2}
    assert "continue with --resume" in capsys.readouterr().err
    assert signal.getsignal(signum) is before  # everything is as it was


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_fault_42_a_second_signal_ends_it_at_once(small):
    """In a process of its own, for it ends without a word to Python; the step in it takes a minute."""
    script = (
        f"import os, runpy, signal, time; StopRequest = runpy.run_path({signals.__file__!r})['StopRequest']\n"
        "with StopRequest() as stop, stop.graceful():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print(stop.signum, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "15\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


def test_fault_42_before_the_first_step_there_is_nothing_to_finish(small, capsys):
    interrupt = own_signal(signal.SIGINT)
    with before_event(lambda number: interrupt() if number == 0 else None, pattern="config.yaml"):
        assert train() == 130
    assert "continue with --resume" in capsys.readouterr().err


def full_disk(monkeypatch, epochs):
    """torch.save fails with ENOSPC in these saves, counted from 0."""
    save, calls = torch.save, iter(range(1000))

    def saved(value, path):
        if next(calls) in epochs:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(value, path)

    monkeypatch.setattr(torch, "save", saved)


def test_fault_43_a_full_disk_is_survived(small, monkeypatch, caplog):
    assert train("--max_epochs", "3", "--name", "undisturbed") == 0
    full_disk(monkeypatch, {1})
    assert train("--max_epochs", "3") == 0
    run = small / "runs" / "small"
    assert "could not be saved" in caplog.text
    assert same_training(small / "runs" / "undisturbed", run) == []


def test_fault_43_a_full_disk_at_the_end_leaves_what_was_there_and_an_exit_code(small, monkeypatch, capsys):
    full_disk(monkeypatch, {1, 2})
    assert train("--max_epochs", "3") == 1
    run = small / "runs" / "small"
    assert "the last checkpoint could not be written" in capsys.readouterr().err
    assert checkpoint(run)["torchfpn"]["position"]["epoch"] == 1
    assert [r["epoch"] for r in rows(run)] == ["1"]
    assert not [p for p in run.rglob("*") if ".part" in p.name]


def test_fault_43_an_fsync_that_fails_counts_as_not_written(small, monkeypatch, capsys):
    fsync, failing = os.fsync, []

    def failed(handle):
        if failing and ".ckpt" in Path(f"/proc/self/fd/{handle}").readlink().name:
            raise OSError(errno.EIO, "Input/output error")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failed)
    with at_step(4, lambda: failing.append(True)):
        assert train() == 1
    assert checkpoint(small / "runs" / "small")["torchfpn"]["position"]["epoch"] == 1
    assert "Input/output error" in capsys.readouterr().err


def test_fault_43_results_that_find_no_room_are_made_again_by_resume(small, capsys):
    with failing_at(0, OSError(errno.ENOSPC, "No space left on device"), pattern="validation.json"):
        assert train() == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "the results could not be written" in told
    assert "No space left on device" in told
    assert train("--resume") == 0
    assert (small / "runs" / "small" / "report.html").exists()


def test_fault_43_numbers_for_people_are_not_worth_the_training(small, caplog):
    with failing_at(0, OSError(errno.ENOSPC, "No space left on device"), pattern="timing.csv"):
        assert train() == 0
    assert "No space left on device" in caplog.text


def test_fault_43_what_a_killed_writer_left_is_swept(small):
    assert train("--max_epochs", "1") == 0
    stale = small / "runs" / "small" / "checkpoints" / ".fpn-0123.part.ckpt"
    stale.write_bytes(b"half a checkpoint")
    assert train("--resume", "--max_epochs", "2") == 0
    assert not stale.exists()


def infinite_loss(steps):
    """A context in which the loss of the steps of these numbers is infinite."""

    def infinite(number, inputs, losses):
        return {name: loss / 0 for name, loss in losses.items()} if number in steps else None

    return after_pass(infinite, torchfpn.Task)


def test_fault_44_bad_steps_are_skipped(small):
    with infinite_loss({1, 2}):
        assert train("--max_bad_steps", "2") == 0
    run = small / "runs" / "small"
    assert all(float(r["train/loss"]) < 10 for r in rows(run))
    weights = checkpoint(run)
    assert all(v.isfinite().all() for v in weights["state_dict"].values())
    assert all(v.isfinite().all() for v in weights["torchfpn"]["ema"]["averages"].values())
    assert weights["torchfpn"]["ema"]["updates"] == 4
    assert weights["torchfpn"]["position"]["step"] == 6


def test_fault_44_too_many_bad_steps_stop_it_with_the_files_and_the_last_good_checkpoint(small, capsys):
    with infinite_loss({3, 4, 5}):
        assert train("--max_bad_steps", "2") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "not finite for 3 steps in a row" in told
    assert "data/train/images/" in told
    assert checkpoint(small / "runs" / "small")["torchfpn"]["position"]["epoch"] == 1


def small_memory(most):
    """A context in which passes of more than `most` images run out of memory."""

    def limit(number, task, inputs):
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return before_pass(limit, torchfpn.Task)


def test_fault_45_out_of_memory_is_told_with_the_batch_size(small, capsys):
    with small_memory(1):
        assert train() == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "batch_size: out of memory with 4 images in a batch" in told
    assert "--auto-batch" in told


def test_fault_45_auto_batch_halves_and_goes_on_the_same_way_every_time(small, caplog):
    flags = ["--auto_batch", "--data.crop", "64"]
    with small_memory(1):
        assert train(*flags, "--name", "one") == 0
    assert "4 images in a batch: continuing with 2" in caplog.text
    assert "2 images in a batch: continuing with 1" in caplog.text
    with small_memory(1), at_step(6, own_signal()):
        assert train(*flags, "--name", "two") == 143
    with small_memory(1):
        assert train(*flags, "--name", "two", "--resume") == 0
    assert same_training(small / "runs" / "one", small / "runs" / "two") == []
    assert checkpoint(small / "runs" / "one")["torchfpn"]["stepper"]["pass_size"] == 1


def test_fault_45_one_image_that_does_not_fit_is_the_end(small, capsys):
    with small_memory(0):
        assert train("--auto_batch") == 2
    assert "out of memory with 1 image in a batch" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="loader processes are forked")
def test_fault_46_a_killed_loader_process_is_named_and_nothing_hangs(small, monkeypatch, capsys):
    frame, parent = SemanticDataset.frame, os.getpid()

    def killed(self, index):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return frame(self, index)

    monkeypatch.setattr(SemanticDataset, "frame", killed)
    start = time.monotonic()
    assert train("--num_workers", "1") == 2
    assert time.monotonic() - start < 60
    told = capsys.readouterr().err.splitlines()[-1]
    assert "one of 1 loader processes was killed" in told
    assert "/dev/shm has" in told
    assert "--num-workers 0" in told


def test_fault_46_a_bad_image_in_a_loader_process_is_one_line(small, capsys):
    for image in (small / "data" / "train" / "images").iterdir():
        if image.name != "0.png":  # the first is opened when the training is set up
            image.write_bytes(image.read_bytes()[:60])
    assert train("--num_workers", "1", "--data.scaling", "imagenet") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("fpn: data/train/images/") or "/data/train/images/" in told
    assert "Traceback" not in told


def test_fault_47_a_second_training_in_the_same_folder_is_refused(small, capsys):
    codes = []
    with at_step(1, lambda: codes.extend([train("--resume"), train("--overwrite")])):
        assert train() == 0
    assert codes == [2, 2]
    told = capsys.readouterr().err
    assert told.count(f"process {os.getpid()} on {socket.gethostname()} is training in this folder") == 2
    assert len(rows(small / "runs" / "small")) == 2


def test_fault_47_the_lock_of_a_dead_training_is_no_hindrance(small, monkeypatch):
    assert train("--max_epochs", "1") == 0
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = {"pid": dead.pid, "host": socket.gethostname()}
    (small / "runs" / "small" / ".lock").touch()
    (small / "runs" / "small" / ".lock.json").write_text(json.dumps(left))
    assert train("--resume", "--max_epochs", "2") == 0
    assert list((small / "runs" / "small").glob(".lock*")) == []
