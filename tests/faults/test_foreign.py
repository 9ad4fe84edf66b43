"""Faults 34 to 38 for convert: files that are not what they claim, each told in one line naming tensor or byte."""

import pickle

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

import torchfpn
from importers.detectron2_oracle import Oracle
from importers.test_convert import small
from torchfpn.cli.main import main
from torchfpn.errors import WeightsError
from train.fixtures import small as small_training  # noqa: F401 - a fixture
from train.tiny import train


class Harmful:
    """What a malicious pickle asks for."""

    def __reduce__(self):
        import os

        return os.system, ("touch harmed",)


def truncated(path, tensors):
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:5000])


def newer(path, tensors):
    task = torchfpn.create_task(backbone="test_resnet", num_classes=2, channels=16, head_channels=16)
    told = task.recipe.to_json().replace('"schema": ', '"schema": 9')
    safetensors.torch.save_file(task.model.state_dict(), path, metadata={"torchfpn": told})


def without(path, tensors):
    del tensors["1.0.1.2.weight"]
    torch.save(tensors, path)


def renamed(path, tensors):
    tensors["1.0.1.2.weights"] = tensors.pop("1.0.1.2.weight")
    torch.save(tensors, path)


BAD = {
    "truncated": (truncated, "a pickle, truncated or damaged after 5000 bytes"),
    "html": (lambda path, _: path.write_text("<!DOCTYPE html><html>404</html>"), "it is an HTML page"),
    "wrong family": (
        lambda path, _: torch.save({"stages.0.blocks.0.weight": torch.zeros(1)}, path),
        'not of a known family: 1 tensor, the first is "stages.0.blocks.0.weight"',
    ),
    "one missing": (without, '"1.0.1.2.weight" [64, 128, 1, 1] is missing'),
    "one renamed": (renamed, '"1.0.1.2.weights" [64, 128, 1, 1] has no place'),
    "extra": (
        lambda path, tensors: torch.save({**tensors, "1.9.bias": torch.zeros(3)}, path),
        '"1.9.bias" [3] has no place',
    ),
    "NaN": (
        lambda path, tensors: torch.save({**tensors, "0.m.0.0.weight": torch.full((64, 3, 7, 7), torch.nan)}, path),
        "0.m.0.0.weight: 9408 of 9408 values are NaN or infinite",
    ),
    "malicious": (lambda path, _: path.write_bytes(pickle.dumps(Harmful())), "it would import posix.system"),
    "empty": (lambda path, _: path.write_bytes(b""), "the file is empty"),
    "newer": (newer, "already a torchfpn model"),
}


@pytest.mark.parametrize("kind", BAD)
def test_fault_34_to_38_of_foreign_files(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make, told = BAD[kind]
    path = tmp_path / ("bad.safetensors" if kind == "newer" else "bad.pth")
    make(path, small().state_dict())
    with pytest.raises(WeightsError) as caught:
        torchfpn.convert(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert main(["convert", str(path), "out.safetensors"]) == 2
    out = capsys.readouterr()
    assert out.err.count("\n") == 1
    assert told in out.err
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]  # nothing written, nothing run


def flipped(path, tensors):
    """A zip whose directory is whole, and whose pickle is not."""
    torch.save(tensors, path)
    data = bytearray(path.read_bytes())
    data[60:200] = bytes(140)
    path.write_bytes(data)


def no_zip(path, tensors):
    """The directory of a zip without the records it names."""
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[-400:])


DAMAGED = {name: BAD[name][0] for name in ("truncated", "html", "malicious", "empty")} | {
    "flipped": flipped,
    "no zip": no_zip,
    "noise": lambda path, _: path.write_bytes(np.random.default_rng(0).bytes(3000)),
    "a list": lambda path, _: path.write_bytes(pickle.dumps([1, 2])),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_fault_34_of_pretrained_weights(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    DAMAGED[kind](path, timm.create_model("test_resnet").state_dict())
    with pytest.raises(WeightsError) as caught:
        torchfpn.backbone("test_resnet", pretrained=path)
    assert str(caught.value).startswith(f"{path}: ")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.pth"]


@pytest.mark.parametrize("kind", [*DAMAGED, "of another project"])
def test_fault_34_of_a_checkpoint_to_resume_from(kind, small_training, capsys):  # noqa: F811
    folder = small_training / "runs" / "other" / "checkpoints"
    folder.mkdir(parents=True)
    path = folder / "bad.pth"
    make = DAMAGED.get(kind, lambda path, tensors: torch.save({"state_dict": tensors, "epoch": 3}, path))
    make(path, timm.create_model("test_resnet").state_dict())
    assert train("--resume", str(path)) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith(f"fpn: {path}: ")
    assert not any(line.startswith(("Traceback", " ")) for line in told)
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoints"]  # nothing written beside it


def test_fault_38_of_a_newer_recipe_names_the_versions(tmp_path):
    newer(tmp_path / "new.safetensors", {})
    with pytest.raises(WeightsError, match=r"recipe of schema 9.*or less"):
        torchfpn.load(tmp_path / "new.safetensors")


# -- detectron2's pickles of arrays ------------------------------------------------------------------------------------
def arrays():
    """A Faster R-CNN of detectron2, all zero."""
    with torch.device("meta"):
        tensors = Oracle(2, masks=False).state_dict()
    return {name: np.zeros(tensor.shape, dtype=np.float32) for name, tensor in tensors.items()}


def pickled(path, model, *, cut=None):
    path.write_bytes(pickle.dumps({"model": model, "__author__": "made here"})[:cut])


FC = "roi_heads.box_head.fc1.weight"
BAD_PICKLES = {
    "truncated": (
        lambda path: pickled(path, arrays(), cut=5000),
        "not a checkpoint: a pickle, truncated or damaged after 5000 bytes",
    ),
    "html": (lambda path: path.write_text("<html>404</html>"), "not a checkpoint: it is an HTML page"),
    "malicious": (lambda path: pickled(path, {"a": Harmful()}), "refused: it would import posix.system"),
    "a tensor": (
        lambda path: pickled(path, {"a": torch.zeros(1)}),
        "refused: it would import torch.storage._load_from_bytes",
    ),
    "an object": (lambda path: pickled(path, {"a": np.array([{}])}), "no tensors: __author__, a (numpy.ndarray)"),
    "no dictionary": (
        lambda path: path.write_bytes(pickle.dumps([1, 2])),
        "a list; expected a state_dict: names and tensors",
    ),
    "one missing": (
        lambda path: pickled(path, {k: v for k, v in arrays().items() if k != FC}),
        f'1 tensor does not fit Faster R-CNN on resnet50: "{FC}" [1024, 12544] is missing',
    ),
    "one misshaped": (
        lambda path: pickled(path, arrays() | {FC: np.zeros((1024, 9), np.float32)}),
        f'1 tensor does not fit Faster R-CNN on resnet50: "{FC}" is [1024, 9], not [1024, 12544]',
    ),
    "NaN": (
        lambda path: pickled(path, arrays() | {FC: np.full((2, 2), np.nan, np.float32)}),
        f"{FC}: 4 of 4 values are NaN or infinite",
    ),
    "one left over": (
        lambda path: pickled(path, arrays() | {"roi_heads.extra": np.zeros(3)}),
        '"roi_heads.extra" [3] has no place',
    ),
}


@pytest.mark.parametrize("kind", BAD_PICKLES)
def test_fault_35_of_pickles_of_arrays(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make, told = BAD_PICKLES[kind]
    make(tmp_path / "bad.pkl")
    assert main(["convert", str(tmp_path / "bad.pkl"), "out.safetensors"]) == 2
    out = capsys.readouterr()
    assert out.err.count("\n") == 1
    assert told in out.err
    assert str(tmp_path / "bad.pkl") in out.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pkl"]  # nothing written, nothing run
