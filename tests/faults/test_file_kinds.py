"""Files as other programs write them: every pixel type, picture format and way of saying where an image lies."""

import json

import numpy as np
import pytest
import rasterio

from made_data import write_png
from made_maps import PLACE
from tiny_model import tiny_task
from torchfpn.cli.main import main

TYPES = (
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
    "complex_int16", "complex64", "complex128",
)  # fmt: skip


def write_typed(path, dtype, **profile):
    """A one-band GeoTIFF of the values 0 and 1 in any type of GDAL's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = (np.indices((32, 40)).sum(0) // 7 % 2)[None].astype("complex64" if dtype == "complex_int16" else dtype)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=32, width=40, dtype=dtype, **(PLACE | profile)
    ) as sink:
        sink.write(array)
    return path


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "grey.safetensors"
    tiny_task(bands=("grey",), dtype="").save(path)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "photo.safetensors"
    tiny_task(bands=("red", "green", "blue"), dtype="uint8").save(path)
    return path


def run(*words):
    return main([str(word) for word in words])


def err(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_pixel_type_is_predicted_or_refused_in_one_line(grey, tmp_path, capsys, dtype):
    image = write_typed(tmp_path / "a.tif", dtype)
    for more in ([], ["--window", 32], ["--mosaic", "m"]):
        code = run("predict", grey, image, "--out", tmp_path / f"out{len(more)}{more[-1:]}", "--device", "cpu", *more)
        lines = err(capsys)
        if dtype.startswith("complex"):
            assert code == 2
            assert len(lines) == 1
            assert (
                f"a.tif: pixels of type {dtype}; expected whole or floating-point numbers; write the amplitude"
                in lines[0]
            )
        else:
            assert (code, lines) == (0, [])


@pytest.mark.parametrize("dtype", TYPES)
def test_every_pixel_type_has_an_answer_in_check_init_compare_and_evaluate(grey, tmp_path, capsys, dtype):
    for split in ("train", "val"):
        write_typed(tmp_path / "data" / split / "images" / "a.tif", dtype)
        write_typed(tmp_path / "data" / split / "labels" / "a.tif", "uint8")
    refused = dtype.startswith("complex")
    assert run("check", tmp_path / "data", "--init") == 2 * refused
    text = "classes: [a, b]\nsplits: {train: {images: train/images, labels: train/labels}}\n"
    (tmp_path / "data" / "dataset.yaml").write_text(text)
    assert run("check", tmp_path / "data") == 2 * refused
    val = tmp_path / "data" / "val"
    sheets = ("--prediction", val / "labels", "--truth", val / "labels", "--out", tmp_path / "sheets")
    assert run("compare", val / "images", *sheets) == 2 * refused
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    # as labels
    labels = write_typed(tmp_path / "labels" / "a.tif", dtype)
    assert run("evaluate", labels, tmp_path / "data" / "val" / "labels" / "a.tif") == 2 * refused
    assert all(line.startswith("fpn: ") for line in err(capsys))
    write_typed(tmp_path / "data" / "train" / "labels" / "a.tif", dtype)
    write_typed(tmp_path / "data" / "train" / "images" / "a.tif", "uint8")
    assert run("check", tmp_path / "data") == 2 * refused


NFC, NFD = "Stra\u00dfe \u00e4", "Stra\u00dfe a\u0308"  # one name, as it is typed and as macOS decomposes it


def write_pairs(folder, images, labels, count=2):
    """Image and label PNGs of one name, spelt in two ways."""
    for kind, stem in (("images", images), ("labels", labels)):
        (folder / kind).mkdir(parents=True)
        for i in range(count):
            write_png(folder / kind / f"{stem}{i}.png", np.full((32, 32, 3) if kind == "images" else (32, 32), i, "u1"))


@pytest.mark.parametrize(("images", "labels", "listed"), [(NFC, NFD, NFC), (NFD, NFC, NFC), (NFD, NFD, NFC)])
def test_names_are_one_however_their_accents_are_composed(tmp_path, capsys, images, labels, listed):
    write_pairs(tmp_path, images, labels)
    (tmp_path / "dataset.yaml").write_text(
        "classes: [a, b]\nsplits: {train: {images: images, labels: labels, list: train.txt}}\n"
    )
    (tmp_path / "train.txt").write_text(f"{listed}0\n{listed}1.png\n", encoding="utf-8")
    assert run("check", tmp_path) == 0, err(capsys)
    assert run("evaluate", tmp_path / "labels", tmp_path / "labels") == 0
    one = tmp_path / "images" / f"{images}0.png"
    assert run("compare", one, "--truth", tmp_path / "labels", "--out", tmp_path / "sheets") == 0, err(capsys)


def test_folders_and_coco_names_are_found_however_their_accents_are_composed(tmp_path, capsys):
    write_pairs(tmp_path / NFD, NFD, NFD)
    (tmp_path / "dataset.yaml").write_text(
        f"classes: [a, b]\nsplits: {{train: {{images: '{NFC}/images', labels: '{NFC}/labels'}}}}\n", encoding="utf-8"
    )
    assert run("check", tmp_path) == 0, err(capsys)
    coco = {
        "images": [{"id": 1, "file_name": f"{NFC}0.png", "width": 32, "height": 32}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
    }
    (tmp_path / "a.json").write_text(json.dumps(coco))
    (tmp_path / "dataset.yaml").write_text(
        f"task: detection\nsplits: {{train: {{images: '{NFC}/images', annotations: a.json}}}}\n", encoding="utf-8"
    )
    assert run("check", tmp_path) == 0, err(capsys)


def test_two_files_of_one_name_composed_in_two_ways_are_named(tmp_path, capsys):
    write_pairs(tmp_path, NFC, NFC, count=1)
    write_png(tmp_path / "images" / f"{NFD}0.png", np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nsplits: {train: {images: images, labels: labels}}\n")
    assert run("check", tmp_path) == 2
    assert "has the same name as" in "".join(err(capsys))


def test_a_byte_order_mark_in_a_list_is_no_part_of_the_first_name(tmp_path, capsys):
    write_pairs(tmp_path, "a", "a")
    text = "classes: [a, b]\nsplits: {train: {images: images, labels: labels, list: train.txt}}\n"
    (tmp_path / "dataset.yaml").write_text(text, encoding="utf-8-sig")
    (tmp_path / "train.txt").write_text("a0\r\na1\r\n", encoding="utf-8-sig")
    assert run("check", tmp_path) == 0, err(capsys)
