"""Faults 34 to 36 for --resume: checkpoints that are damaged, that would run code, or that are of another training."""

# ruff: noqa: F811 - the fixture `small` is imported

import os
import pickle

import pytest
import torch

from train.fixtures import small  # noqa: F401
from train.tiny import checkpoint, same_training, train


@pytest.fixture
def stopped(small):
    """The run folder of a training with two epochs behind it."""
    assert train("--max_epochs", "2") == 0
    return small / "runs" / "small"


def damage(path, how):
    data = path.read_bytes()
    path.unlink()  # best.ckpt may be the same file
    path.write_bytes({"truncated": data[: len(data) // 2], "zero bytes": b"", "a web page": b"<html>404</html>"}[how])


def resume(capsys):
    """(exit code, what was said) of going on to a third epoch."""
    capsys.readouterr()
    return train("--resume", "--max_epochs", "3"), capsys.readouterr().err


HOW = ["truncated", "zero bytes", "a web page"]


@pytest.mark.parametrize("how", HOW)
def test_fault_34_resume_falls_to_the_checkpoint_before_and_says_so(stopped, capsys, how):
    damage(stopped / "checkpoints" / "last.ckpt", how)
    code, told = resume(capsys)
    assert code == 0
    assert "last.ckpt" in told
    assert "resuming from previous.ckpt" in told
    assert checkpoint(stopped)["torchfpn"]["position"]["epoch"] == 3


def test_fault_34_falling_back_changes_nothing_in_the_end(small, capsys):
    assert train("--max_epochs", "3", "--name", "undisturbed") == 0
    assert train("--max_epochs", "3") == 0
    run = small / "runs" / "small"
    damage(run / "checkpoints" / "last.ckpt", "truncated")
    assert resume(capsys)[0] == 0
    assert same_training(small / "runs" / "undisturbed", run) == []


@pytest.mark.parametrize("how", HOW)
def test_fault_34_no_good_checkpoint_at_all(stopped, capsys, how):
    for name in ("last.ckpt", "previous.ckpt"):
        damage(stopped / "checkpoints" / name, how)
    code, told = resume(capsys)
    assert code == 2
    assert told.count("\n") == 1
    assert "last.ckpt" in told
    assert "previous.ckpt" in told


@pytest.mark.parametrize("how", HOW)
def test_fault_34_a_damaged_checkpoint_that_was_named(stopped, capsys, how):
    file = stopped / "checkpoints" / "best.ckpt"
    damage(file, how)
    capsys.readouterr()
    assert train("--resume", str(file)) == 2
    told = capsys.readouterr().err
    assert "best.ckpt" in told
    assert told.count("\n") == 1


def test_fault_34_a_damaged_best_leaves_the_last_weights(stopped, capsys):
    damage(stopped / "checkpoints" / "best.ckpt", "truncated")
    (stopped / "model.safetensors").unlink()
    capsys.readouterr()
    assert train("--resume") == 0
    assert "the last weights are kept instead" in capsys.readouterr().err
    assert (stopped / "model.safetensors").exists()


class Touch:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize("protocol", ["zip", "pickle"])
def test_fault_35_a_checkpoint_that_would_run_code_is_refused(stopped, small, capsys, protocol):
    good = checkpoint(stopped)
    evil = {**good, "callbacks": Touch()}
    for name in ("last.ckpt", "previous.ckpt"):
        path = stopped / "checkpoints" / name
        path.unlink()
        if protocol == "zip":
            torch.save(evil, path)
        else:
            path.write_bytes(pickle.dumps(evil))
    code, told = resume(capsys)
    assert code == 2
    assert "refused" in told or "not a checkpoint" in told or "not as it was written" in told
    assert told.count("\n") == 1
    assert not (small / "hacked").exists()
    capsys.readouterr()
    assert train("--resume", str(stopped / "checkpoints" / "last.ckpt")) == 2
    assert not (small / "hacked").exists()


def test_fault_36_another_architecture_names_the_first_five_tensors(stopped, capsys):
    before = (stopped / "checkpoints" / "last.ckpt").read_bytes()
    capsys.readouterr()
    assert train("--resume", "--model.backbone", "torchvision/resnet18") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "last.ckpt" in told
    assert told.count("missing backbone.stages.") == 5
    assert (stopped / "checkpoints" / "last.ckpt").read_bytes() == before


def test_fault_36_another_width_names_both_shapes(stopped, capsys):
    capsys.readouterr()
    assert train("--resume", "--model.head_channels", "16") == 2
    told = capsys.readouterr().err
    assert "[8, 8, 3, 3]" in told
    assert "[16, 8, 3, 3]" in told


def test_fault_36_other_parameter_groups(stopped, capsys):
    capsys.readouterr()
    assert train("--resume", "--freeze", "backbone", "--max_epochs", "3") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "the optimizer's state is of other parameter groups" in told


def test_fault_36_other_classes_of_the_same_number(stopped, small, capsys):
    yaml = small / "data" / "dataset.yaml"
    yaml.write_text(yaml.read_text().replace("roof", "tree"))
    code, told = resume(capsys)
    assert code == 2
    assert "classes: ground, roof, road; expected those of the config: ground, tree, road" in told


def test_fault_36_a_newer_checkpoint_asks_for_a_newer_torchfpn(stopped, capsys):
    for name in ("last.ckpt", "previous.ckpt"):
        content = checkpoint(stopped, name)
        content["torchfpn"]["schema"] = 99
        path = stopped / "checkpoints" / name
        path.unlink()
        torch.save(content, path)
    code, told = resume(capsys)
    assert code == 2
    assert "schema 99; expected up to 1; upgrade torchfpn" in told
