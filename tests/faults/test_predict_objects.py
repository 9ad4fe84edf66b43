"""What must happen when `fpn predict` looks for objects in bad or unusual images; numbers are those of faults.md."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image

from file_events import full_disk
from made_data import picture, write_png, write_tiff
from tiny_detector import tiny_detector
from torchfpn.cli.main import main

PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "instance.safetensors"
    tiny_detector().save(path)
    return path


def run(*words):
    return main(["predict", *map(str, words), "--device", "cpu"])


def held(path):
    value = json.loads(path.read_text())
    return {image["id"]: image["file_name"] for image in value["images"]}, value["annotations"]


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.tif"])
def test_fault_01_a_truncated_image_fails_and_the_others_go_on(model, tmp_path, capsys, name):
    whole = tmp_path / f"whole{name[3:]}"
    if name.endswith("tif"):
        write_tiff(whole, np.moveaxis(picture(0, (200, 200)), -1, 0).copy(), photometric="RGB", **PLACE)
    else:
        Image.fromarray(picture(0, (200, 200))).save(whole)
    data = whole.read_bytes()
    whole.unlink()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    for good in ("a.png", "z.png"):
        write_png(tmp_path / good, picture(1))
    assert run(model, tmp_path / "a.png", tmp_path / name, tmp_path / "z.png", "--out", tmp_path / "out") == 1
    captured = capsys.readouterr()
    (error,) = [line for line in captured.err.splitlines() if line]
    assert error.startswith(f"fpn: {tmp_path / name}: ")
    assert "2 predicted, 1 failed" in captured.out
    images, records = held(tmp_path / "out" / "objects.json")
    assert images == {1: "a.png", 3: "z.png"}
    assert {r["image_id"] for r in records} == {1, 3}


def test_all_failed_leaves_nothing(model, tmp_path, capsys):
    (tmp_path / "x.png").write_text("this is no image\n" * 40)
    assert run(model, tmp_path / "x.png", "--out", tmp_path / "out") == 2
    assert "x.png: not an image this program reads" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_fault_05_a_bomb_and_a_raster_too_large_are_refused_before_they_are_decoded(model, tmp_path, capsys):
    array = np.zeros((3, 400, 500), np.uint8)
    write_png(tmp_path / "bomb.png", np.moveaxis(array, 0, -1).copy())
    write_tiff(tmp_path / "large.tif", array, photometric="RGB", **PLACE)
    words = ("--out", tmp_path / "out", "--max-pixels", 199_999)
    assert run(model, tmp_path / "bomb.png", tmp_path / "large.tif", *words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 2
    assert all(
        "500 x 400 = 200000 pixels; expected at most 199999" in line and "--max-pixels" in line for line in lines
    )


def test_fault_07_and_08_other_bands_and_another_pixel_type(model, tmp_path, capsys):
    four = np.moveaxis(picture(0, bands=4), -1, 0).copy()
    write_tiff(tmp_path / "four.tif", four, photometric="MINISBLACK", alpha="NO", **PLACE)
    write_tiff(tmp_path / "deep.tif", four[:3].astype(np.uint16), photometric="RGB", **PLACE)
    assert run(model, tmp_path / "four.tif", tmp_path / "deep.tif", "--out", tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert "has 4 bands" in lines[0]
    assert "name them, in the model's order, with --bands" in lines[0]
    assert "holds uint16; expected uint8, as the model was trained on" in lines[1]
    assert run(model, tmp_path / "four.tif", "--out", tmp_path / "out", "--bands", "3,2,1") == 0


def test_an_image_without_any_data_has_no_objects_and_a_warning(model, tmp_path, capsys):
    write_png(tmp_path / "a.png", np.zeros((20, 30, 4), np.uint8))  # alpha 0 everywhere
    assert run(model, tmp_path / "a.png", "--out", tmp_path / "out", "--overlay", "--polygons", "pixels") == 0
    captured = capsys.readouterr()
    assert "a.png: contains no valid pixel" in captured.err
    assert "0 objects" in captured.out
    assert held(tmp_path / "out" / "objects.json") == ({1: "a.png"}, [])
    assert not np.asarray(Image.open(tmp_path / "out" / "a.png")).any()


def test_a_full_disk_leaves_no_half_file(model, tmp_path, capsys):
    write_png(tmp_path / "a.png", picture(0))
    with full_disk("objects.json"):
        assert run(model, tmp_path / "a.png", "--out", tmp_path / "out") == 2
    assert "objects.json: cannot be written (No space left on device)" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.json"))
    assert not list((tmp_path / "out").glob(".fpn-*"))


def test_names_that_are_no_utf8(model, tmp_path):
    path = tmp_path / "a\udcff.png"
    try:
        write_png(path, picture(0))
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system has no such names")
    assert run(model, path, "--out", tmp_path / "out") == 0
    assert held(tmp_path / "out" / "objects.json")[0] == {1: "a\udcff.png"}
