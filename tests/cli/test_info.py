"""fpn info tells what is in a model file."""

import json

import pytest

import torchfpn
from tiny_detector import tiny_detector
from torchfpn.cli.main import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("info") / "model.safetensors"
    task = torchfpn.create_task(
        "semantic", backbone="test_resnet", classes=["land", "[water]"], bands=["red", "nir"], channels=32,
        head_channels=32, label_ids=[1, 7], scaling=torchfpn.Scaling((10, 20.5), (1, 2), "mean-std"), dtype="uint16",
        source={"run": "water-3"},
    )  # fmt: skip
    task.save(path)
    return path, task


def test_it_shows_everything_a_person_asks(model, capsys):
    path, _ = model
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    for fact in (
        "semantic",
        "test_resnet",
        "nir",
        "20.5",
        "[water]",
        "uint16",
        "water-3",
        "1/4",
        "7",
        "receptive field",
    ):
        assert fact in out, fact


def test_json_is_whole(model, capsys):
    path, task = model
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == ["land", "[water]"]
    assert facts["label_ids"] == [1, 7]
    assert facts["scaling"] == {"offset": [10, 20.5], "scale": [1, 2], "method": "mean-std"}
    assert sum(facts["parameters"].values()) == sum(p.numel() for p in task.model.parameters())
    assert facts["levels"]["pyramid"] == [[32, 4], [32, 8], [32, 16], [32, 32]]


def test_it_says_how_images_are_shown_to_a_detector(tmp_path, capsys):
    task = tiny_detector("instance", rules={"resize": {"shorter": 320, "longer": 512}, "masks": "detectron2"})
    task.save(tmp_path / "model.safetensors")
    assert main(["info", str(tmp_path / "model.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "the shorter side 320 pixels, or less for the longer side 512 pixels" in " ".join(out.split())
    assert "masks pasted as in detectron2" in " ".join(out.split())
    assert "receptive field" not in out


def test_it_tells_things_from_stuff_and_how_they_are_merged(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    torchfpn.create_task(
        "panoptic", backbone="test_resnet", things=["car"], stuff=["road", "sky"], channels=16, head_channels=16,
        head_options={"regions": {"hidden": 16}}, rules={"panoptic": {"stuff_area": 64}},
    ).save(path)  # fmt: skip
    assert main(["info", str(path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "panoptic segmentation" in out
    assert "1 of things, 2 of stuff" in out
    assert "1.0*instance + 0.5*semantic" in out
    assert "merging overlap 0.5, score 0.5, stuff area 64" in out
    assert "car │ thing" in out
    assert "sky │ stuff" in out
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["things"], facts["stuff"]) == (["car"], ["road", "sky"])
    assert facts["rules"]["panoptic"] == {"score": 0.5, "overlap": 0.5, "stuff_area": 64}


def test_nothing_is_shown_as_python_and_no_name_twice(tmp_path, capsys):
    source = {"convert": {"family": "smp", "file": "a.pth"}, "bands_of": ["red", "nir"], "finished": True}
    task = tiny_detector("instance", source=source)
    task.save(tmp_path / "model.safetensors")
    assert main(["info", str(tmp_path / "model.safetensors")]) == 0
    out = capsys.readouterr().out
    assert not set("{}'") & set(out)
    assert not {"None", "True", "False"} & set(out.split())
    shown = " ".join(out.split())
    for line in ("head options hidden 32, proposals 50", "convert family smp, file a.pth", "bands of red, nir"):
        assert line in shown, line
    names = [line.split("  ")[0] for line in out.splitlines()[1:] if line[:1].isalpha()]
    assert len(names) == len(set(names))
    assert "backbone test_resnet: 32 channels at 1/4; 48 channels at 1/8" in shown
