"""fpn demo, as small as it gets, as a user runs it."""

import json
import re
import signal

import numpy as np
import pytest
import rasterio
from PIL import Image

import torchfpn
from passes import at_step, own_signal
from torchfpn.cli.main import main


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "fpn-demo"
    assert main(["demo", "--quick", "--out", str(folder), "--seed", "3"]) == 0
    return folder


def test_everything_lies_in_one_folder(made):
    names = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    wanted = {
        "dataset/dataset.yaml", "dataset/images/train/scene-01.tif", "dataset/labels/val/scene-01.tif", "picture.png",
        "town/town.tif", "town/truth.tif", "town/labels.tif", "town/buildings.geojson", "run/report.html",
        "run/model.safetensors", "run/metrics.csv", "run/validation.json", "run/config.yaml",
    }  # fmt: skip
    assert wanted <= names
    assert not [name for name in names if ".part" in name]


def test_the_label_map_is_georeferenced_and_the_model_s_own(made):
    with rasterio.open(made / "town" / "town.tif") as image, rasterio.open(made / "town" / "labels.tif") as labels:
        assert labels.crs == image.crs
        assert labels.transform == image.transform
        assert labels.shape == image.shape == (128, 128)
        assert json.loads(labels.tags()["CLASSES"]) == {"1": "vegetation", "2": "road", "3": "building", "4": "water"}
        assert set(np.unique(labels.read(1))) <= {1, 2, 3, 4}
    task = torchfpn.load(made / "run" / "model.safetensors")
    assert task.recipe.bands == ("red", "green", "blue", "nir")
    assert task.recipe.dtype == "uint16"


def test_outlines_are_buildings_in_longitude_and_latitude(made):
    held = json.loads((made / "town" / "buildings.geojson").read_text())
    assert held["type"] == "FeatureCollection"
    for feature in held["features"]:
        assert feature["properties"]["class"] == "building"
        assert 168 < feature["geometry"]["coordinates"][0][0][0] < 174


def test_the_picture_shows_image_truth_and_prediction(made):
    with Image.open(made / "picture.png") as picture:
        assert picture.width > 2.9 * 128
    assert (made / "picture.png").stat().st_size < 300_000


def test_it_ends_with_what_was_made_and_a_second_run_works(made, capsys):
    assert main(["demo", "--quick", "--out", str(made), "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^mIoU \d+\.\d\d % on the held-out scenes, \d+\.\d\d % on the town, in", out, re.MULTILINE)
    assert re.search(r" s \(painting \d+ s, training and scoring \d+ s, the town \d+ s\)\n", out)
    listed = [line.split()[0] for line in out.splitlines() if line.startswith(f"  {made}-2")]
    assert len(listed) == 6
    assert all(made.with_name(made.name + "-2") in made.parent.joinpath(name).parents for name in listed)


@pytest.mark.parametrize(("words", "said"), [(["--seed", "-1"], "seed: -1"), (["--epochs", "0"], "epochs: 0")])
def test_bad_numbers_are_refused(tmp_path, capsys, words, said):
    assert main(["demo", "--out", str(tmp_path / "x"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_place_that_cannot_be_written_is_said_at_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_a_demo_that_ctrl_c_stops_is_told_in_a_line_and_goes_on(tmp_path, capsys):
    out = tmp_path / "demo"
    with at_step(4, own_signal(signal.SIGINT)):  # the first epoch is done
        assert main(["demo", "--quick", "--epochs", "2000", "--out", str(out)]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"fpn: stopped by SIGINT; continue with --resume --out {out}"
    painted = (out / "town" / "town.tif").stat().st_mtime_ns
    assert main(["demo", "--quick", "--resume", "--epochs", "1", "--out", str(out)]) == 0
    assert (out / "town" / "town.tif").stat().st_mtime_ns == painted
    assert (out / "picture.png").is_file()
    assert not (tmp_path / "demo-2").exists()


def test_data_alone_are_datasets_that_check_passes(tmp_path, capsys):
    data = tmp_path / "data"
    assert main(["demo", "--data", str(data), "--quick", "--seed", "3"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    for task in ("semantic", "instance", "panoptic"):
        assert main(["check", str(data / task)]) == 0
    assert {path.name for path in (data / "town").iterdir()} == {"town.tif", "truth.tif", "houses.tif"}
    name = "labels/train/scene-01.tif"
    with rasterio.open(data / "semantic" / name) as classes, rasterio.open(data / "instance" / name) as numbers:
        assert np.array_equal(classes.read(1) == 3, numbers.read(1) > 0)  # roofs, less what trees hide, on both sides
        assert classes.transform == numbers.transform
    capsys.readouterr()
    assert main(["demo", "--data", str(data), "--quick"]) == 2
    assert capsys.readouterr().err == f"fpn: {data}: --data: already exists; expected a new folder\n"
    assert main(["demo", "--data", str(tmp_path / "x"), "--epochs", "3"]) == 2
    assert "--epochs: 3; expected to come without --data" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["instance", pytest.param("detection", marks=pytest.mark.slow)])
def test_houses_one_by_one(tmp_path, capsys, task):
    folder = tmp_path / "demo"
    assert main(["demo", "--quick", "--task", task, "--out", str(folder), "--seed", "3"]) == 0
    assert "AP50 " in capsys.readouterr().out
    assert torchfpn.load(folder / "run" / "model.safetensors").recipe.task == task
    assert main(["check", str(folder / "dataset")]) == 0
    held = json.loads((folder / "town" / "buildings.geojson").read_text())
    assert held["type"] == "FeatureCollection"
    assert (folder / "picture.png").is_file()
    with rasterio.open(folder / "town" / "truth.tif") as truth:
        assert truth.dtypes == ("uint16",)
        assert truth.crs.to_epsg() == 32759
    assert (folder / "town" / "numbers.tif").is_file() == (task == "instance")


def test_segments_of_houses_and_trees(tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["demo", "--quick", "--task", "panoptic", "--out", str(folder), "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^PQ \S+ % on the held-out scenes, \S+ % on the town, in", out, re.MULTILINE)
    assert main(["check", str(folder / "dataset")]) == 0
    task = torchfpn.load(folder / "run" / "model.safetensors")
    assert (task.things, task.stuff) == (("building", "tree"), ("vegetation", "road", "water"))
    assert task.recipe.rules["panoptic"]["stuff_area"] == 64
    with rasterio.open(folder / "town" / "town.tif") as image, rasterio.open(folder / "town" / "segments.tif") as found:
        assert (found.crs, found.transform, found.shape) == (image.crs, image.transform, image.shape)
        ids = found.read(1)
    features = json.loads((folder / "town" / "segments.geojson").read_text())["features"]
    assert sorted(each["properties"]["id"] for each in features) == sorted(np.unique(ids[ids > 0]).tolist())
    with Image.open(folder / "picture.png") as picture:
        assert picture.width > 2.9 * 128
