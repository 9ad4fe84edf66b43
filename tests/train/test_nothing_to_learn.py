"""Before the first step: what `fpn check` notes is said, and data with nothing to learn from are refused."""

import json

import numpy as np
import pytest
import shapely
from PIL import Image

from made_data import write_png
from made_maps import NORTH, WEST, box, write_geojson, write_map
from made_objects import record
from torchfpn.cli.main import main
from train.tiny import make_data, train

MAPS = "classes: [ground, roof]\nsplits: {{train: {{images: images, labels: labels.geojson}}{more}}}\n"
QUICK = ("--fast_dev_run", "true", "--accelerator", "cpu", "--num_workers", "0", "--model.backbone", "test_resnet")


def fit(folder, *more):
    return main(["train", "--dataset", str(folder), "--data.crop", "32", *QUICK, *more])


def ignore_all(folder, split):
    for path in (folder / split / "labels").iterdir():
        with Image.open(path) as image:
            size = image.size
        Image.new("L", size, 255).save(path)


@pytest.fixture
def town(tmp_path):
    """A map with the labels in the file labels.geojson, which each test writes."""
    write_map(tmp_path / "images" / "a.tif")
    (tmp_path / "dataset.yaml").write_text(MAPS.format(more=""))
    return tmp_path


def test_what_check_notes_is_said_before_the_training(tmp_path, monkeypatch, capsys):
    from train.tiny import SETTINGS

    make_data(tmp_path / "data")
    twin = tmp_path / "data" / "train"
    for kind in ("images", "labels"):
        (tmp_path / "data" / "val" / kind / "0.png").write_bytes((twin / kind / "1.png").read_bytes())
    (tmp_path / "small.yaml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    assert train("--fast_dev_run", "true") == 0
    assert "note: 1 image in several splits: train/1.png = val/0.png\n" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_a_labelled_pixel(tmp_path, split, capsys):
    ignore_all(make_data(tmp_path), split)
    assert fit(tmp_path) == 2
    told = capsys.readouterr().err
    assert f'dataset.yaml: no labelled pixel in the split "{split}": all ' in told
    assert main(["check", str(tmp_path)]) == 2


def test_a_validation_that_is_not_made_needs_no_labels(tmp_path):
    ignore_all(make_data(tmp_path), "val")
    assert fit(tmp_path, "--overfit_batches", "1") == 0


def test_one_labelled_image_among_many_is_found(tmp_path):
    """More images than are looked at before a training, and only one of them has a label."""
    from torchfpn.data.check import check
    from torchfpn.data.config import read_dataset

    dataset = read_dataset(make_data(tmp_path))
    for path in (tmp_path / "train" / "labels").iterdir():
        if path.stem != "5":
            Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    assert check(dataset, splits=["train"], max_parts=2).ok
    write_png(tmp_path / "val" / "labels" / "0.png", np.zeros((32, 48), np.uint8))
    notes = check(dataset, splits=["val"], max_parts=1).notes
    assert notes == ("in 1 of 2 images and windows: val: no pixel of roof, road",)


def test_a_training_split_without_labels(tmp_path, capsys):
    make_data(tmp_path)
    text = (tmp_path / "dataset.yaml").read_text()
    (tmp_path / "dataset.yaml").write_text(text.replace("train/images, labels: train/labels", "train/images"))
    assert fit(tmp_path) == 2
    assert 'no labels in the split "train", so there is nothing to train on' in capsys.readouterr().err


@pytest.mark.parametrize("crowd", [True, False])
def test_objects_that_are_all_crowds_or_none(tmp_path, crowd, capsys):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48), (9, 99, 9)).save(tmp_path / "images" / "a.png")
    annotation = {**record(1, (5, 5, 25, 25), image=1, category=1), "iscrowd": 1}
    value = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [annotation] if crowd else [],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(value))
    (tmp_path / "dataset.yaml").write_text("task: detection\nsplits: {train: {images: images, annotations: a.json}}\n")
    assert fit(tmp_path) == 2
    told = capsys.readouterr().err
    more = ": all 1 are crowds; set iscrowd to 0 where an annotation is one object" if crowd else ""
    assert f'a.json: no object in the split "train"{more}\n' in told


def lon_lat(shape):
    import rasterio.warp

    return shapely.transform(
        shape, lambda points: np.stack(rasterio.warp.transform("EPSG:32633", "OGC:CRS84", *points.T), axis=1)
    )


def swap(shape):
    return shapely.transform(shape, lambda points: points[:, ::-1])


WRONG_PLACES = {
    "swapped degrees": (
        swap(lon_lat(box(5, 5))),
        None,
        "they would with their axes swapped: write each coordinate as longitude, latitude",
    ),
    "swapped metres": (
        swap(box(5, 5)),
        "EPSG:32633",
        "they would with their axes swapped: write each coordinate as east, north",
    ),
    "another system": (
        box(5, 5),
        "EPSG:32632",
        "they would in the coordinate system of the images (EPSG:32633): the file names another one",
    ),
    "elsewhere": (
        box(300000, 5),
        "EPSG:32633",
        "the polygons lie around longitude 18.8",
    ),
}


@pytest.mark.parametrize("task", ["semantic", "instance"])
@pytest.mark.parametrize("name", WRONG_PLACES)
def test_polygons_that_meet_no_image_with_the_likely_reason(town, name, task, capsys):
    shape, crs, reason = WRONG_PLACES[name]
    write_geojson(town / "labels.geojson", [shape], crs=crs)
    classes = "classes: [roof]" if task == "instance" else "classes: [ground, roof]"
    (town / "dataset.yaml").write_text(
        f"task: {task}\n" + MAPS.format(more="").replace("classes: [ground, roof]", classes)
    )
    for verb in (fit, lambda folder: main(["check", str(folder)])):
        assert verb(town) == 2
        told = capsys.readouterr().err
        assert f'labels.geojson: no polygon meets an image of the split "train"; {reason}' in told
    if task == "semantic":
        assert main(["weights", str(town)]) == 2
        assert f'no polygon is drawn on an image of the split "train"; {reason}' in capsys.readouterr().err


def test_a_file_without_a_polygon(town, capsys):
    write_geojson(town / "labels.geojson", [])
    assert fit(town) == 2
    assert 'labels.geojson: no polygon for the images of the split "train"' in capsys.readouterr().err


def test_an_image_without_a_polygon_beside_one_that_has_some_is_no_error(town, capsys):
    import rasterio

    write_map(town / "val" / "b.tif", transform=rasterio.Affine(1, 0, WEST + 500, 0, -1, NORTH))
    write_geojson(town / "labels.geojson", [box(5, 5)])
    (town / "dataset.yaml").write_text(MAPS.format(more=", val: {images: val, labels: labels.geojson}"))
    assert fit(town) == 0
    assert "note: 1 image that no polygon meets: b.tif" in capsys.readouterr().err
