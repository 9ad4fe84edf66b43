"""Named pipes, sockets, devices and folders where a file belongs: one line at once, from every verb; limits."""

import os
import signal
import socket
import struct
import sys

import numpy as np
import pytest
import rasterio

from made_data import declare_size, make_dataset, write_png, write_tiff
from tiny_model import tiny_task
from torchfpn.cli.main import main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes in folders")
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)}
YAML = """task: semantic
classes: [grass, road, water]
splits:
  train: {images: train/images, labels: train/labels}
  val: {images: val/images, labels: val/labels}
"""
VERBS = {
    "check": ["check", "ODD"],
    "weights": ["weights", "ODD"],
    "train": ["train", "--config", "ODD"],
    "train-dataset": ["train", "--dataset", "ODD"],
    "train-pretrained": ["train", "--dataset", "data", "--model.pretrained=ODD"],
    "train-resume": ["train", "--dataset", "data", "--resume", "ODD"],
    "evaluate-model": ["evaluate", "ODD", "data"],
    "evaluate-data": ["evaluate", "m.safetensors", "ODD"],
    "evaluate-map": ["evaluate", "ODD", "labels.tif"],
    "predict-model": ["predict", "ODD", "a.png", "--out", "out"],
    "predict-image": ["predict", "m.safetensors", "ODD", "--out", "out"],
    "rasterize": ["rasterize", "ODD", "a.png", "--out", "out"],
    "compare-image": ["compare", "ODD", "--truth", "labels.tif", "--out", "out"],
    "compare-truth": ["compare", "a.png", "--truth", "ODD", "--out", "out"],
    "polygons": ["polygons", "ODD", "out.geojson"],
    "panoptic-from": ["panoptic-from", "ODD", "--out", "out"],
    "panoptic-instances": ["panoptic-from", "data", "--instances", "ODD", "--things", "road", "--out", "out"],
    "panoptic-semantic": ["panoptic-from", "data", "--semantic", "ODD", "--things", "road", "--out", "out"],
    "convert": ["convert", "ODD", "out.safetensors"],
    "info": ["info", "ODD"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("special")
    make_dataset(folder / "data")
    tiny_task(bands=("red", "green", "blue"), dtype="uint8", classes=("grass", "road", "water")).save(
        folder / "m.safetensors"
    )
    write_png(folder / "a.png", np.zeros((24, 32, 3), np.uint8))
    write_tiff(folder / "labels.tif", np.ones((1, 24, 32), np.uint8), **PLACE)
    return folder


@pytest.fixture
def at_once():
    """Fails what waits for longer than ten seconds, as a reader of a pipe does."""

    def late(*_):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make(kind, path):
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    return path


def one_line(capsys, code, path):
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert code == 2
    assert len(lines) == 1, lines
    assert path.name in lines[0] or "ODD" not in path.name
    return lines[0]


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a folder"])
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_file_is_one_line_from_every_verb(made, tmp_path, monkeypatch, capsys, at_once, verb, kind):
    monkeypatch.chdir(made)
    odd = make(kind, tmp_path / "odd.tif")
    code = main([word.replace("ODD", str(odd)) for word in VERBS[verb]])
    line = one_line(capsys, code, odd)
    assert kind == "a folder" or f"odd.tif: {kind}; expected a regular file" in line


def test_a_socket(made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as held:
        held.bind("odd.tif")
        assert main(["info", "odd.tif"]) == 2
    assert "odd.tif: a socket; expected a regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("images/odd.png", ["predict", "m.safetensors", "images", "--out", "out"]),
        ("a.tif.msk", ["predict", "m.safetensors", "a.tif", "--out", "out"]),
        ("a.tif.aux.xml", ["predict", "m.safetensors", "a.tif", "--out", "out"]),
        ("a.tfw", ["predict", "m.safetensors", "a.tif", "--out", "out"]),
        ("val/labels/a0.png", ["evaluate", "m.safetensors", "."]),
        ("roads.dbf", ["rasterize", "roads.shp", "a.tif", "--out", "out"]),
        ("roads.geojson", ["rasterize", "roads.geojson", "a.tif", "--out", "out"]),
    ],
)
def test_pipes_beside_and_inside_of_what_is_named(made, tmp_path, monkeypatch, capsys, at_once, name, words):
    make_dataset(tmp_path, train=1, val=1)
    (tmp_path / "images").mkdir()
    (tmp_path / "roads.shp").write_bytes(b"\0\0\x27\x0a" + bytes(96))
    write_tiff(tmp_path / "a.tif", np.zeros((3, 24, 32), np.uint8), photometric="RGB", **PLACE)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    code = main([str(made / word) if word == "m.safetensors" else word for word in words])
    assert "a named pipe; expected a regular file" in one_line(capsys, code, tmp_path / name)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "wide.tif", "wide.tif"],
        ["evaluate", "wide.tif", "box.geojson"],
        ["compare", "wide.tif", "--truth", "wide.tif", "--out", "out"],
        ["compare", "small.tif", "--truth", "wide.tif", "--out", "out"],
        ["polygons", "wide.tif", "out.geojson"],
    ],
    ids=["labels", "polygons", "image", "truth", "outlines"],
)
def test_sides_that_no_raster_has_are_refused_and_the_limit_can_be_raised(
    tmp_path, monkeypatch, capsys, at_once, words
):
    monkeypatch.chdir(tmp_path)
    for name in ("wide.tif", "small.tif"):
        write_tiff(tmp_path / name, np.ones((1, 32, 48), np.uint8), **PLACE)
    (tmp_path / "box.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": {"type":'
        ' "Polygon", "coordinates": [[[15, 45.1], [15.001, 45.1], [15.001, 45.101], [15, 45.1]]]}}]}'
    )
    assert main([*words, "--max-side", "47"]) == 2
    assert "48 x 32 pixels; expected at most 47 pixels a side; if this is right, allow more with --max-side N" in (
        capsys.readouterr().err
    )
    declare_size(tmp_path / "wide.tif", 2**31 - 1, 32)
    assert main(words) == 2
    assert "2,147,483,647 x 32 pixels; expected at most 1,048,576 pixels a side" in capsys.readouterr().err


def test_a_folder_of_tiles_around_the_world(made, tmp_path, capsys, at_once):
    for x in (0, 2**18):
        (tmp_path / "tiles" / "20" / str(x)).mkdir(parents=True)
        write_png(tmp_path / "tiles" / "20" / str(x) / "7.png", np.zeros((256, 256, 3), np.uint8))
    code = main(["predict", str(made / "m.safetensors"), str(tmp_path / "tiles"), "--out", str(tmp_path / "out")])
    assert "tiles: 67,109,120 x 256 pixels; expected at most" in one_line(capsys, code, tmp_path)


def many_bands(path, count):
    """A TIFF of one pixel with so many bands of a byte, written by hand: GDAL takes seconds for it."""
    data = 8 + 2 + 12 * 9 + 4
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, count, data), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, data + 2 * count), (277, 3, 1, count), (278, 3, 1, 1), (279, 4, 1, count)]  # fmt: skip
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(head + bytes(4) + struct.pack("<H", 8) * count + bytes(count))
    return path


@pytest.mark.parametrize("verb", ["predict", "compare", "check"])
def test_tens_of_thousands_of_bands(made, tmp_path, capsys, at_once, verb):
    folder = make_dataset(tmp_path, train=1, val=1, size=(1, 1))
    (folder / "train" / "images" / "a0.png").unlink()
    path = many_bands(folder / "train" / "images" / "a0.tif", 34_712)
    words = {
        "predict": [str(made / "m.safetensors"), str(path), "--out", str(tmp_path / "out")],
        "compare": [str(path), "--truth", str(made / "labels.tif"), "--out", str(tmp_path / "out")],
        "check": [str(folder)],
    }
    assert main([verb, *words[verb]]) != 0
    said = capsys.readouterr()
    assert "has 34,712 bands; expected at most 4,096; write those you need" in " ".join((said.out + said.err).split())
