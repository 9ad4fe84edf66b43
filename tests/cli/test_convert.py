"""fpn convert, as a user runs it."""

import pytest
import torch
from PIL import Image

import torchfpn
from importers.test_convert import small
from torchfpn.cli.main import main


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A checkpoint of pytorch-fpn, in the current folder."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": small("panoptic").state_dict(), "epoch": 4}, "theirs.pth")
    return tmp_path


def test_it_says_what_it_recognised_and_the_model_predicts(theirs, capsys):
    assert main(["convert", "theirs.pth", "m.safetensors", "--classes", "field, road", "--scaling", "unit"]) == 0
    told = capsys.readouterr().out
    assert "pytorch-fpn: panoptic on resnet18" in told
    assert "176 placed, none missing, none left" in told
    assert "field, road" in told
    Image.new("RGB", (70, 45), (90, 120, 30)).save("photo.png")
    assert main(["predict", "m.safetensors", "photo.png", "--out", "labels"]) == 0
    assert (theirs / "labels").is_dir()
    assert main(["info", "m.safetensors"]) == 0
    assert "pytorch-fpn" in capsys.readouterr().out


def test_more_bands(theirs):
    assert main(["convert", "theirs.pth", "m.safetensors", "--bands", "red,green,blue,nir"]) == 0
    assert torchfpn.load("m.safetensors").recipe.bands == ("red", "green", "blue", "nir")
    assert main(["convert", "theirs.pth", "n.safetensors", "--bands", "6"]) == 0
    assert len(torchfpn.load("n.safetensors").recipe.bands) == 6


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["m.pth"], "ends in .safetensors"),
        (["there.safetensors"], "replace it with --overwrite"),
        (["m.safetensors", "--classes", "a,b,c"], "--classes: 3 names; expected 2 classes"),
        (["m.safetensors", "--classes", "a,a"], '--classes: "a" twice'),
        (["m.safetensors", "--classes", "a,"], "--classes: an empty name"),
        (["m.safetensors", "--bands", "nir,red"], "bands: ['nir', 'red']; expected 3 or more"),
        (["m.safetensors", "--align-corners"], "align_corners: has no effect on pytorch-fpn"),
        (["m.safetensors", "--bands", "5", "--scaling", "imagenet"], "--scaling: 5 bands"),
        (["m.safetensors", "--anchors", "32,64:x"], '--anchors: "32,64:x"; expected SIZES or SIZES:RATIOS'),
        (["m.safetensors", "--anchors", "32,64"], "anchors: has no effect on pytorch-fpn"),
        (["m.safetensors", "--source", "robosatt"], 'did you mean "robosat"'),
    ],
)
def test_mistakes_are_told_in_one_line(theirs, capsys, flags, told):
    (theirs / "there.safetensors").write_bytes(b"precious")
    assert main(["convert", "theirs.pth", *flags]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert (theirs / "there.safetensors").read_bytes() == b"precious"
    assert not (theirs / "m.safetensors").exists()
