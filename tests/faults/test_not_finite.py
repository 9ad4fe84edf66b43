"""Pixels beyond float32, and answers of models with NaN or infinity: counted, or an error that says where."""

import json

import numpy as np
import pytest
import rasterio
import torch

import torchfpn
from made_data import write_tiff
from passes import interrupted_at
from tiny_detector import tiny_detector
from tiny_model import BANDS, tiny_task
from torchfpn.cli.main import main
from torchfpn.errors import NotFiniteError

PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), "photometric": "MINISBLACK"}
SIZE = (64, 96)
YAML = """task: {task}
classes: [{names}]
bands: [{bands}]
splits:
  val: {{images: images, labels: {labels}}}
"""


def scaled(by, kind="semantic"):
    """A task of floats that divides them by `by`."""
    scaling = torchfpn.Scaling((0.0,) * 4, (by,) * 4)
    if kind == "semantic":
        return tiny_task(dtype="float32", scaling=scaling)
    return tiny_detector(kind, bands=BANDS, dtype="float32", scaling=scaling)


def overflowing(kind="semantic"):
    """One whose first convolution takes pixels of 1e18 to infinity, and those of 0..1 to large numbers."""
    task = scaled(1.0, kind)
    with torch.no_grad():
        next(each for each in task.model.parameters() if each.ndim == 4).mul_(1e22)
    return task


def floats(path, value=3e38, dtype="float32", rows=slice(40, 44), columns=slice(70, 73)):
    """A float TIFF of 0..1 with `value` at 12 pixels."""
    array = np.random.default_rng(0).uniform(0, 1, (4, *SIZE)).astype(dtype)
    array[1, rows, columns] = value
    return write_tiff(path, array, descriptions=BANDS, **PLACE)


def predict(task, tmp_path, *words):
    task.save(tmp_path / "m.safetensors")
    return main(["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "a.tif"), "--out", str(tmp_path / "out"),
                 "--device", "cpu", *words])  # fmt: skip


@pytest.mark.parametrize("windows", [[], ["--tile-size", "32", "--margin", "32"]], ids=["whole", "windows"])
@pytest.mark.parametrize(("value", "dtype", "by"), [(3e38, "float32", 0.1), (-1e300, "float64", 1.0)])
def test_values_that_overflow_when_scaled_are_no_data_and_counted(tmp_path, capsys, windows, value, dtype, by):
    floats(tmp_path / "a.tif", value, dtype)
    assert predict(scaled(by), tmp_path, "--accept-dtype", *windows) == 0
    said = capsys.readouterr()
    assert "12 pixels with values too large for float32 when scaled count as no data" in said.err
    assert "12 pixels without data" in said.out
    with rasterio.open(tmp_path / "out" / "a.tif") as source:
        assert (source.read(1) == 0).sum() == 12


def test_their_number_is_that_of_all_windows_after_a_kill(tmp_path, capsys):
    floats(tmp_path / "a.tif", rows=slice(0, 2))
    task = scaled(0.1)
    with interrupted_at(4):
        assert predict(task, tmp_path, "--tile-size", "32", "--margin", "32") == 130
    capsys.readouterr()
    assert predict(task, tmp_path, "--tile-size", "32", "--margin", "32", "--resume") == 0
    assert "6 pixels with values too large for float32 when scaled" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["detection", "instance"])
def test_detectors_count_them_too(tmp_path, capsys, kind):
    floats(tmp_path / "a.tif")
    assert predict(scaled(0.1, kind), tmp_path) == 0
    said = capsys.readouterr()
    assert "12 pixels with values too large for float32 when scaled count as no data" in said.err
    assert "12 pixels without data" in said.out


@pytest.mark.parametrize(
    "windows", [[], ["--tile-size", "32", "--margin", "0", "--batch-size", "2"]], ids=["whole", "windows"]
)
def test_an_overflow_inside_the_network_names_image_and_window(tmp_path, capsys, windows):
    floats(tmp_path / "a.tif", 1e18)
    assert predict(overflowing(), tmp_path, *windows) == 2
    line = capsys.readouterr().err
    where = ": window at row 32, column 64 (32 x 32 pixels)" if windows else ""
    assert f"a.tif{where}: the model gives NaN or infinity for " in line
    assert not list((tmp_path / "out").iterdir())  # no blocks either: they would be in the way of a mended file


@pytest.mark.parametrize("kind", ["detection", "instance"])
def test_an_overflow_inside_a_detector_is_no_empty_answer(tmp_path, capsys, kind):
    floats(tmp_path / "a.tif", 1e18)
    assert predict(overflowing(kind), tmp_path) == 2
    assert "a.tif: the model gives NaN or infinity for " in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("value", [3e38, 1e18], ids=["scaling", "network"])
def test_evaluate_of_pixels(tmp_path, capsys, caplog, value):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    floats(tmp_path / "images" / "a.tif", value)
    write_tiff(tmp_path / "labels" / "a.tif", np.ones((1, *SIZE), "uint8"), **PLACE)
    yaml = YAML.format(task="semantic", names="grass, road, roof", bands=", ".join(BANDS), labels="labels")
    (tmp_path / "dataset.yaml").write_text(yaml)
    (scaled(0.1) if value > 1e20 else overflowing()).save(tmp_path / "m.safetensors")
    assert main(["evaluate", str(tmp_path / "m.safetensors"), str(tmp_path), "--device", "cpu"]) == (
        0 if value > 1e20 else 2
    )
    told = "12 pixels with values too large" if value > 1e20 else "a.tif: the model gives NaN or infinity for "
    assert told in caplog.text + capsys.readouterr().err


@pytest.mark.parametrize("value", [3e38, 1e18], ids=["scaling", "network"])
def test_evaluate_of_objects(tmp_path, capsys, caplog, value):
    (tmp_path / "images").mkdir()
    floats(tmp_path / "images" / "a.tif", value)
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 20, 30], "area": 600, "iscrowd": 0}
    image = {"id": 1, "file_name": "a.tif", "height": SIZE[0], "width": SIZE[1]}
    names = [{"id": 1, "name": "cell"}, {"id": 2, "name": "dot"}]
    (tmp_path / "a.json").write_text(json.dumps({"images": [image], "annotations": [box], "categories": names}))
    yaml = YAML.format(task="detection", names="cell, dot", bands=", ".join(BANDS), labels="a.json")
    (tmp_path / "dataset.yaml").write_text(yaml.replace("labels:", "annotations:"))
    (scaled(0.1, "detection") if value > 1e20 else overflowing("detection")).save(tmp_path / "m.safetensors")
    assert main(["evaluate", str(tmp_path / "m.safetensors"), str(tmp_path), "--device", "cpu"]) == (
        0 if value > 1e20 else 2
    )
    told = "12 pixels with values too large" if value > 1e20 else "a.tif: the model gives NaN or infinity for "
    assert told in caplog.text + capsys.readouterr().err


def test_task_predict_names_the_image_of_a_list():
    good = torch.rand(4, 40, 40)
    bad = good.clone()
    bad[:, 5, 5] = 1e18
    with pytest.raises(NotFiniteError, match="image 2 of 2: the model gives NaN or infinity for"):
        overflowing().predict([good, bad])
    with pytest.raises(NotFiniteError, match="image 2 of 2: the model gives NaN or infinity for"):
        overflowing("instance").predict(torch.stack([good, bad]))
