"""Checkpoints as training scripts leave them: a model among settings, optimisers, metrics, copies; and damaged ones."""

import argparse
import collections
import enum
import io
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

import torchfpn
from importers.test_convert import random, small
from torchfpn.cli.main import main
from torchfpn.errors import WeightsError
from torchfpn.importers.convert import converted
from torchfpn.io.weights import read_weights

CALLED = []


class Color(enum.Enum):
    RED = 1


class Settings(dict):
    """A dictionary that is also an object, as configuration libraries have them."""


def touch(word):
    """What a pickle asks to be called."""
    CALLED.append(word)
    return word


class Calls:
    def __reduce__(self):
        return touch, ("called",)


def extras(model):
    """What stands beside the weights in files of torchvision's references, of Lightning and of one's own scripts."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
    return {
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict() | {"milestones": collections.Counter([2, 5])},
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, device="cuda"),
        "hyper_parameters": {"root": pathlib.PurePosixPath("data"), "color": Color.RED, "s": Settings(a=1)},
        "best": np.float64(0.71),
        "seen": {1, 2},
        "calls": Calls(),
        "rows": np.array(["a", "b"]),
    }


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_what_stands_beside_the_weights_is_left_out_named_and_not_called(form, tmp_path, capsys):
    model = small()
    torch.save(
        {"model": model.state_dict(), **extras(model)},
        tmp_path / "a.pth",
        _use_new_zipfile_serialization=form == "zip",
    )
    made = converted(tmp_path / "a.pth")
    for name, tensor in model.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], tensor)
    assert made.placed == len(model.state_dict())
    assert any("left out: " in note and "args (argparse.Namespace)" in note for note in made.notes)
    assert main(["convert", str(tmp_path / "a.pth"), str(tmp_path / "out.safetensors")]) == 0
    assert "args (argparse.Namespace)" in capsys.readouterr().out
    assert CALLED == []


@pytest.mark.parametrize("form", ["zip", "legacy"])
@torch.no_grad()
def test_a_module_that_was_pickled_whole_gives_its_tensors(form, tmp_path):
    model = random(smp.FPN("resnet18", encoder_weights=None))
    torch.save(model, tmp_path / "best_model.pth", _use_new_zipfile_serialization=form == "zip")
    made = converted(tmp_path / "best_model.pth")
    images = torch.randn(1, 3, 64, 64)
    assert (made.model(images) - model(images)).abs().max() <= 1e-5
    assert any("pickled segmentation_models_pytorch" in note for note in made.notes)


@torch.no_grad()
def test_a_model_inside_a_lightning_module(tmp_path):
    model = random(smp.FPN("resnet18", encoder_weights=None))
    tensors = model.state_dict()
    beside = {
        "mean": torch.rand(1, 3, 1, 1),
        "std": torch.rand(1, 3, 1, 1),
        "loss_fn.weight": torch.ones(1),
        "metric.best": torch.tensor(torch.inf),
        "n_averaged": torch.tensor(3),
    }
    content = {
        **{f"model.{name}": tensor for name, tensor in tensors.items()},
        **{f"ema_model.module.{name}": torch.zeros_like(tensor) for name, tensor in tensors.items()},
        **beside,
    }
    torch.save({"state_dict": content, "hyper_parameters": {"arch": "FPN"}}, tmp_path / "last.ckpt")
    made = converted(tmp_path / "last.ckpt")
    images = torch.randn(1, 3, 64, 64)
    assert (made.model(images) - model(images)).abs().max() <= 1e-5
    (note,) = (note for note in made.notes if note.startswith("left out, beside model.*: "))
    assert "ema_model." in note or "and " in note


def test_two_models_in_one_file_are_not_guessed():
    tensors = small().state_dict()
    both = {f"{net}.{name}": tensor for net in ("first", "second") for name, tensor in tensors.items()}
    with pytest.raises(WeightsError, match=r"several models of pytorch-fpn: first\.\*, second\.\*"):
        torchfpn.convert(both)
    with pytest.raises(WeightsError, match="several sets of weights: first, second"):
        torchfpn.convert({"first": tensors, "second": tensors})
    assert converted({"net": tensors}).notes[-1] == 'tensors taken from "net"'


# -- damaged files and those that ask for more memory than they have bytes ---------------------------------------------
def saved(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def rezipped(content, change, compression=zipfile.ZIP_STORED):
    """torch.save's archive, its records changed: (name, bytes) -> bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(content))) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name.rpartition("/")[2], old.read(name)))
    return out.getvalue()


def view():
    return saved({"a": torch.ones(1).expand(200_000, 200_000)})


def long_pickle():
    return rezipped(
        {"a": torch.ones(3)},
        lambda name, old: b"\x80\x02" + b"(1" * 20_000_000 + b"." if name == "data.pkl" else old,
        zipfile.ZIP_DEFLATED,
    )


def numbered():
    """A pickle that files a value under the number 2**32 - 1, for which a table of 64 GiB would be made."""
    return pickle.dumps({"a": 1}, protocol=2)[:-1] + b"r\xff\xff\xff\xff."


def counted():
    legacy = saved({"a": torch.ones(3)}, _use_new_zipfile_serialization=False)
    return legacy.replace(b"K\x03Ntq", b"J\xff\xff\xff\x7fNtq")  # a storage of 2**31 - 1 numbers


BAD = {
    "a view of 149 GiB on one number": view,
    "a compressed pickle": long_pickle,
    "a table of 64 GiB": numbered,
    "a storage longer than the file": counted,
    "another storage": lambda: rezipped({"a": torch.ones(3)}, lambda name, old: old[:8] if name == "0" else old),
    "a zip of something else": lambda: rezipped({"a": torch.ones(3)}, lambda *_: b""),
    "bits turned": lambda: saved({"a": torch.ones(300)}).replace(b"\x80?\x00\x00\x80?", b"\x81?\x00\x00\x80?", 1),
    "sparse": lambda: saved({"a": torch.eye(3).to_sparse()}),
    "nested without end": lambda: pickle.dumps({"a": b"x" * 40})[:-1] + b"]" * 5000 + b"a" * 5000 + b".",
}


@pytest.mark.parametrize("kind", BAD)
def test_files_that_ask_for_more_than_they_hold_are_one_line(kind, tmp_path, capsys):
    for suffix in ("pth", "ckpt", "pkl"):
        path = tmp_path / f"bad.{suffix}"
        path.write_bytes(BAD[kind]())
        with pytest.raises(WeightsError) as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)
    assert main(["convert", str(path), str(tmp_path / "out.safetensors")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_small_view_and_what_torch_saves_otherwise_are_read(tmp_path):
    base = torch.arange(12.0)
    content = {
        "a view": base[2:8].view(2, 3).t(),
        "the same storage": base,
        "expanded": torch.ones(1).expand(5, 2),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.ones(0, 3),
        "number": torch.tensor(3),
        "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "uint16": torch.ones(3, dtype=torch.uint16),
        "bool": torch.tensor([True, False]),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    for form in (True, False):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=form)
        found = read_weights(tmp_path / "a.pth").tensors
        assert list(found) == list(content)
        for name, tensor in content.items():
            assert torch.equal(found[name], tensor.detach()), name
            assert found[name].dtype == tensor.dtype
