"""What `fpn check` says of datasets of objects, and the first description it writes of them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from made_data import picture, write_png
from made_objects import YAML, coco, make_objects, record, write_numbers
from made_panoptic import make_panoptic
from torchfpn import DataError
from torchfpn.cli.main import main
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.init import init_dataset


def test_facts(tmp_path, capsys):
    crowd = record(3, (0, 0, 5, 5), iscrowd=1)
    large = record(4, (0, 0, 100, 100), image=2)
    medium = record(5, (0, 0, 40, 40), image=2, category=7)
    value = coco([record(1, (2, 3, 10, 9)), record(2, (20, 10, 30, 20)), crowd, large, medium], 3, (120, 130))
    folder = make_objects(tmp_path, value, images=3, size=(120, 130))
    found = check(read_dataset(folder))
    assert found.ok
    counts = found.splits[0].objects
    assert (counts.objects, counts.images_with_class, counts.sizes) == ((3, 1), (2, 1), (2, 1, 1))
    assert (counts.crowds, counts.images, counts.empty) == (1, 3, 1)
    assert (counts.min_side, counts.max_side) == (pytest.approx(48**0.5), 100)
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    for fact in ("cell", "dot", "2/1/1", "7..100", "75.00%", "red", "ok: 3 images, no problems"):
        assert fact in out, fact
    assert main(["check", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["task"] == "instance"
    assert report["splits"]["train"]["objects_of_class"] == [3, 1]
    assert report["splits"]["train"]["medium"] == 1


def test_bad_images_are_named_beside_bad_annotations(tmp_path, capsys):
    folder = make_objects(tmp_path, coco([record(1, (2, 3, 10, 9)), record(2, (9, 9, 9, 9))], 3), images=3)
    (folder / "train" / "images" / "a1.png").write_bytes(b"no image")
    write_png(folder / "train" / "images" / "a2.png", picture(2, (10, 10)))
    assert main(["check", str(folder)]) == 2
    err = capsys.readouterr().err
    assert "instances.json: annotations[1].bbox: [9, 9, 0, 0]; expected width and height above 0" in err
    assert "a1.png: not an image" in err
    assert "a2.png: 10 x 10 pixels, 32 x 24 in instances.json" in err
    assert "fpn: 3 bad files" in err


def test_numbered_images_are_checked(tmp_path, capsys):
    for name, values in (("a", np.eye(24, 32)), ("b", np.zeros((24, 32))), ("c", np.ones((9, 9)))):
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
        write_png(tmp_path / "images" / f"{name}.png", picture(1))
        write_numbers(tmp_path / "labels" / f"{name}.png", values)
    yaml = "task: instance\nclasses: [cell]\nsplits: {train: {images: images, labels: labels}}\n"
    (tmp_path / "dataset.yaml").write_text(yaml)
    found = check(read_dataset(tmp_path))
    assert [problem.file.name for problem in found.problems] == ["c.png"]
    assert found.splits[0].objects.objects == (1,)
    assert "1 image without an object" in found.notes[0]


def test_the_sheet_shows_objects(tmp_path):
    folder = make_objects(tmp_path)
    sheet = tmp_path / "sheet.png"
    assert main(["check", str(folder), "--sheet", str(sheet)]) == 0
    page = np.asarray(Image.open(sheet).convert("RGB")).reshape(-1, 3)
    for c in read_dataset(folder).classes:
        assert (np.abs(page.astype(int) - c.color).sum(1) < 6).sum() > 100


@pytest.mark.parametrize("layout", ["split folders", "beside the images", "annotations", "images below"])
def test_a_first_description(tmp_path, layout, capsys):
    folder = make_objects(tmp_path, yaml=None)
    (folder / "train" / "panoptic.json").write_text(
        json.dumps({"images": [], "annotations": [{"segments_info": []}], "categories": []})
    )
    if layout == "beside the images":
        for path in (folder / "train" / "images").iterdir():
            path.rename(folder / "train" / path.name)
        (folder / "train" / "images").rmdir()
    elif layout != "split folders":
        (folder / "annotations").mkdir()
        (folder / "images").mkdir()
        for split in ("train2017", "val2017"):
            shutil.copy(folder / "train" / "instances.json", folder / "annotations" / f"instances_{split}.json")
            where = folder / split if layout == "annotations" else folder / "images" / split
            shutil.copytree(folder / "train" / "images", where)
        shutil.rmtree(folder / "train")
    dataset = init_dataset(folder)
    assert dataset.task == "instance"
    assert dataset.names == ("cell", "dot")
    assert list(dataset.splits) == (["train"] if layout in ("split folders", "beside the images") else ["train", "val"])
    assert check(dataset).splits[0].objects.total == 2
    assert main(["check", "--init", str(folder), "--overwrite"]) == 0
    assert "2 classes (cell, dot); train 2" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["split folders", "flat", "annotations"])
def test_a_first_description_of_panoptic_maps(tmp_path, layout):
    folder = make_panoptic(tmp_path, yaml=None)
    if layout == "flat":
        for path in (folder / "train").iterdir():
            path.rename(folder / path.name)
        (folder / "train").rmdir()
    elif layout == "annotations":
        (folder / "annotations").mkdir()
        for name in ("panoptic", "panoptic.json"):
            path = folder / "train" / name
            path.rename(folder / "annotations" / f"panoptic_train2017{path.suffix}")
        (folder / "train" / "images").rename(folder / "train2017")
        (folder / "train").rmdir()
    dataset = init_dataset(folder)
    assert (dataset.task, dataset.things, dataset.stuff) == ("panoptic", ("cell", "dot"), ("grass",))
    assert list(dataset.splits) == ["train"]
    found = check(dataset)
    assert not found.problems
    assert found.splits[0].objects.total == 3


def test_panoptic_files_without_their_maps_say_so(tmp_path):
    folder = make_panoptic(tmp_path, yaml=None)
    shutil.rmtree(folder / "train" / "panoptic")
    with pytest.raises(DataError, match=r"panoptic annotations without maps; expected PNGs in panoptic/ beside it"):
        init_dataset(folder)


def test_panoptic_files_without_their_maps_beside_labels_of_pixels_are_left_alone(tmp_path):
    folder = make_panoptic(tmp_path, yaml=None)
    (folder / "train" / "panoptic").rename(folder / "train" / "labels")
    for i in range(2):
        write_png(folder / "train" / "labels" / f"a{i}.png", np.eye(24, 32, dtype=np.uint8))
    assert init_dataset(folder).task == "semantic"


def test_a_folder_of_numbers_called_like_the_annotations_holds_no_images(tmp_path):
    folder = make_objects(tmp_path, yaml=None) / "train"
    (folder / "instances").mkdir()
    write_numbers(folder / "instances" / "a0.png", np.zeros((24, 32)))
    assert init_dataset(folder).splits["train"].images == "images"


def test_a_first_description_of_boxes_alone(tmp_path):
    value = coco([record(1, (2, 3, 10, 9), segmentation=[])])
    assert init_dataset(make_objects(tmp_path, value, yaml=None)).task == "detection"
    assert "annotations" in (tmp_path / "dataset.yaml").read_text()
    assert YAML not in (tmp_path / "dataset.yaml").read_text()
