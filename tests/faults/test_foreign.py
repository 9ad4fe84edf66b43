"""Faults 34 to 38 for convert: ten files that are not what they claim, each told in one line naming tensor or byte."""

import pickle

import pytest
import safetensors.torch
import torch

import torchfpn
from importers.test_convert import small
from torchfpn.cli.main import main
from torchfpn.errors import WeightsError


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
        lambda path, _: torch.save({"backbone.bottom_up.stem.conv1.weight": torch.zeros(1)}, path),
        'of no family that is known here: 1 tensors, the first is "backbone.bottom_up.stem.conv1.weight"',
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
    "newer": (newer, "a torchfpn model already"),
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


def test_fault_38_of_a_newer_recipe_names_the_versions(tmp_path):
    newer(tmp_path / "new.safetensors", {})
    with pytest.raises(WeightsError, match=r"recipe of schema 9.*reads up to"):
        torchfpn.load(tmp_path / "new.safetensors")
