"""Faults of annotations of objects: the place in the file, what was found, what is allowed; all of them at once."""

import json
import tracemalloc

import numpy as np
import pytest
import torch

from made_data import picture, write_png
from made_objects import YAML, broken, coco, make_objects, record, ring
from torchfpn.cli.main import main
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.data.sample import collate
from torchfpn.data.transforms import ObjectAugment
from torchfpn.errors import DataError
from torchfpn.ops.masks import areas

NAMES = "classes: {3: cell, 7: dot}\n"


def complaints(folder, capsys, *flags):
    """Of `fpn check`: the exit code, and what is said of the annotations without the name of the file."""
    code = main(["check", str(folder), *flags])
    lines = capsys.readouterr().err.splitlines()
    return code, [line.split("instances.json: ", 1)[1] for line in lines if "instances.json: " in line]


def refused(folder):
    """The one line that stops a training."""
    with pytest.raises(DataError) as caught:
        ObjectDataset(read_dataset(folder), "train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fault_17_names_that_are_odd(tmp_path):
    names = ["with space.png", "new\nline.png", "\u00fcml\u00e4ut.png", "x" * 240 + ".png"]
    value = coco([], images=0)
    value["images"] = [{"id": i, "file_name": name, "height": 24, "width": 32} for i, name in enumerate(names)]
    make_objects(tmp_path, value)
    for name in names:
        write_png(tmp_path / "train" / "images" / name, picture(0))
    assert [len(sample.objects) for sample in ObjectDataset(read_dataset(tmp_path), "train")] == [0] * 4
    folder = tmp_path / "train" / "images"
    (folder / "loop.png").symlink_to(folder / "loop.png")
    value["images"] += [
        {"id": 10 + i, "file_name": name, "height": 24, "width": 32}
        for i, name in enumerate(["loop.png", "y" * 300 + ".png", "\ud800.png", "zero\0.png", "", None])
    ]
    make_objects(tmp_path, value)
    line = refused(tmp_path)
    for i in range(4, 10):
        assert f"images[{i}].file_name" in line


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "empty file (0 bytes)"),
        ("hello", "not JSON: Expecting value at line 1, column 1"),
        (json.dumps(coco([record(1, (2, 3, 10, 9))]))[:-40], "not JSON: cut off at line 1, column"),
        ("[1, 2]", "[1, 2]; expected an object with images, annotations and categories"),
        ('{"annotations": [], "categories": []}', 'no list "images"; expected COCO: lists of images, annotations'),
        ('{"images": [], "annotations": []}', 'no list "categories"'),
        ('{"images": {}, "annotations": [], "categories": []}', "images: {}"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": ' + "9" * 5000 + "}", "not JSON"),
        ('{"images": [], "images": [], "annotations": [], "categories": []}', 'the key "images" twice'),
    ],
)
def test_fault_20_not_a_coco_file(tmp_path, capsys, text, found):
    make_objects(tmp_path, text=text, yaml=NAMES + YAML)
    code, lines = complaints(tmp_path, capsys)
    assert code == 2
    assert len(lines) == 1
    assert found in lines[0]
    assert "instances.json" in refused(tmp_path)
    (tmp_path / "train" / "instances.json").write_bytes(b"\xff\xfe{}")
    assert "not UTF-8 (byte 0)" in refused(tmp_path)


def test_fault_20_records_that_cannot_be(tmp_path, capsys):
    text = json.dumps(
        coco(
            [
                record(1, (2, 3, 10, 9)),
                record("2", (2, 3, 10, 9)),
                record(1, (2, 3, 10, 9)),
                record(4, (2, 3, 10, 9), area=float("nan")),
                7,
                record(2**70, (2, 3, 10, 9)),
                record(True, (2, 3, 10, 9)),
                {**record(8, (2, 3, 10, 9)), "twice": "here"},
                record(9, (2, 3, 10, 9), score=float("inf")),
            ]
        )
    ).replace('"twice": "here"', '"iscrowd": 0')
    code, lines = complaints(make_objects(tmp_path, text=text), capsys)
    assert code == 2
    assert lines == [
        "annotations[1].id: '2'; expected a whole number",
        "annotations[2].id: 1 again",
        "annotations[3].area: nan; JSON has no such number",
        "annotations[4]: 7; expected an object",
        "annotations[5].id: 1180591620717411303424; expected a whole number",
        "annotations[6].id: True; expected a whole number",
        'annotations[7]: the key "iscrowd" twice',
        "annotations[8].score: inf; JSON has no such number",
    ]
    value = coco([])
    value["images"] += [{**value["images"][0], "file_name": "a9.png"}, {"id": 5, "file_name": "a0.png", "height": 24}]
    value["categories"] = [{"id": 3, "name": "cell"}, {"id": 3, "name": "dot"}, {"id": 4, "name": "cell"}, {"id": 5}]
    code, lines = complaints(make_objects(tmp_path, value, yaml=NAMES.replace(", 7: dot", "") + YAML), capsys)
    assert lines == [
        "categories[1].id: 3 again",
        'categories[2].name: "cell" again, as categories[0]',
        "categories[3].name: None; expected text",
        "images[2].id: 1 again",
        "images[3].width: None; expected a number of pixels",
        "images[3].file_name: 'a0.png' again, as images[0]",
    ]


SHAPES = [
    ([[1, 2, 3, 4, 5, 6, 7]], "segmentation[0]: 7 numbers; expected pairs of x and y"),
    ([ring(2, 3, 10, 9), [1, 2, 3, 4]], "segmentation[1]: 2 points; expected 3 at least"),
    ([[1, 2, float("nan"), 4, 5, 6]], "segmentation[0][2]: nan; JSON has no such number"),
    ([[1, 2, 1e30, 4, 5, 6]], "segmentation[0]: the coordinate 1e+30 in an image of 32 x 24"),
    ([[1, 2, 10**400, 4, 5, 6]], "segmentation[0]: the coordinate inf in an image of 32 x 24"),
    ([[1, 2, "3", 4, 5, 6]], "segmentation[0]: [1, 2, '3', 4, 5, 6]; expected a list of numbers"),
    (
        [1, 2, 3, 4, 5, 6],
        "segmentation: [1, 2, 3, 4, 5, 6]; expected a list of polygons: [[x, y, x, y, x, y, ...], ...]",
    ),
    ([ring(20, 20, 30, 23)], "segmentation: lies outside of its bbox [2.0, 3.0, 10.0, 9.0]"),
    ([], "segmentation: []; expected polygons or run lengths"),
    (None, "segmentation: None; expected polygons or run lengths"),
    ({"size": [24, 32], "counts": [0, 10]}, "segmentation.counts: runs of 10 pixels together; expected 24 x 32 = 768"),
    ({"size": [24, 32], "counts": [0, -4, 772]}, "segmentation.counts: a run of -4 pixels; expected 0 and more"),
    ({"size": [32, 24], "counts": [0, 768]}, "segmentation.size: size [32, 24]; expected [24, 32], as of the image"),
    ({"size": [24, 32], "counts": "zz"}, "segmentation.counts: character 'z'"),
    ({"size": [24, 32], "counts": "0" * 5 + "o"}, "segmentation.counts: it ends in the middle of a number"),
    ({"size": [24, 32], "counts": [768]}, "segmentation.counts: a mask without a pixel"),
    ({"counts": [768]}, "segmentation: no run lengths"),
]


@pytest.mark.parametrize(("shape", "found"), SHAPES)
def test_fault_21_shapes_that_cannot_be(tmp_path, capsys, shape, found):
    good = record(1, (2, 3, 10, 9))
    folder = make_objects(tmp_path, coco([good, record(2, (2, 3, 10, 9), segmentation=shape)]))
    code, lines = complaints(folder, capsys)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"annotations[1].{found}")
    assert complaints(folder, capsys, "--fix") == (0, [])
    (folder / "dataset.yaml").write_text("fix: true\n" + YAML)
    samples = ObjectDataset(read_dataset(folder), "train")
    assert len(samples[0].objects) == 1 + found.startswith("segmentation[1]")  # the other polygon is good
    (folder / "dataset.yaml").write_text(YAML.replace("instance\n", "detection\n"))  # masks are not looked at
    assert "nan" in found or len(ObjectDataset(read_dataset(folder), "train")[0].objects) == 2


def test_fault_22_values_that_do_not_fit_are_all_told(tmp_path, capsys):
    box = (2, 3, 10, 9)
    bad = [
        ({"bbox": [2, 3, 0, 6]}, "bbox: [2, 3, 0, 6]; expected width and height above 0"),
        ({"bbox": [2, 3, 8, -6]}, "bbox: [2, 3, 8, -6]; expected width and height above 0"),
        ({"bbox": [40, 3, 8, 6]}, "bbox: [40, 3, 8, 6] lies outside of the image of 32 x 24"),
        ({"bbox": [2, 3, 80, 6]}, "bbox: [2, 3, 80, 6] reaches out of the image of 32 x 24"),
        ({"bbox": [2, 3, 8]}, "bbox: [2, 3, 8]; expected [x, y, width, height]"),
        ({"bbox": [2, 3, 8, "6"]}, "bbox: [2, 3, 8, '6']; expected [x, y, width, height]"),
        ({"bbox": None}, "bbox: None; expected [x, y, width, height]"),
        ({"area": -1}, "area: -1; expected a number from 0"),
        ({"area": 700}, "area: 700 in a box of 8 x 6"),
        ({"category_id": 4}, "category_id: 4; expected the id of one of the categories"),
        ({"image_id": 9}, "image_id: 9; expected the id of one of the images"),
        ({"image_id": "1"}, "image_id: '1'; expected the id of one of the images"),
        ({"iscrowd": 2}, "iscrowd: 2; expected 0 or 1"),
    ]
    records = [record(i, box) | change for i, (change, _) in enumerate(bad)]
    value = coco([*records, record(50, box)])
    value["images"].append({"id": 3, "file_name": "gone.png", "height": 24, "width": 32})
    folder = make_objects(tmp_path, value)
    code, lines = complaints(folder, capsys)
    assert code == 2
    assert lines[0] == f"images[2].file_name: 'gone.png': no such file in {folder / 'train' / 'images'}"
    assert lines[1:] == [f"annotations[{i}].{line}" for i, (_, line) in enumerate(bad)]
    assert complaints(folder, capsys, "--fix") == (0, [])
    main(["check", str(folder), "--fix", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["splits"]["train"]["dropped"] == {"annotations": 10, "areas": 2, "boxes cut": 1, "images": 1}
    assert (
        report["splits"]["train"]["objects"] == 4
    )  # the good one, the one that was cut, two that get the area of their box
    many = coco([record(i, box) | {"bbox": [0, 0, 0, 0]} for i in range(30)])
    code, lines = complaints(make_objects(tmp_path, many), capsys)
    assert len(lines) == 20
    line = refused(tmp_path)
    assert "annotations[19].bbox" in line
    assert "annotations[20]" not in line
    assert "; and 10 more; or leave them out with `fix: true`" in line


def test_fault_22_boxes_may_be_off_by_a_pixel(tmp_path):
    value = coco([record(1, (2, 3, 10, 9)) | {"bbox": [-0.5, 3, 33.1, 6]}])
    boxes = ObjectDataset(read_dataset(make_objects(tmp_path, value)), "train")[0].objects.boxes
    assert boxes.tolist() == [[0, 3, 32, 9]]


@pytest.mark.parametrize("name", ["../a0.png", "/etc/passwd", "a/../../a0.png", "..\\a0.png", "C:\\a0.png", "C:a0.png"])
def test_fault_23_names_that_lead_out(tmp_path, capsys, name):
    value = coco([record(1, (2, 3, 10, 9))])
    value["images"][1]["file_name"] = name
    code, lines = complaints(make_objects(tmp_path, value), capsys)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("images[1].file_name: ")
    assert lines[0].endswith("leads out of the folder of the images; a path below it")


def test_fault_23_links_and_paths_of_the_yaml_that_lead_out(tmp_path, capsys):
    outside = write_png(tmp_path / "outside.png", picture(0))
    folder = make_objects(tmp_path / "data")
    (folder / "train" / "images" / "a1.png").unlink()
    (folder / "train" / "images" / "a1.png").symlink_to(outside)
    assert complaints(folder, capsys)[1] == [
        "images[1].file_name: 'a1.png' is a link that leads out of the root of the dataset"
    ]
    (folder / "dataset.yaml").write_text(YAML.replace("train/instances.json", "../instances.json"))
    assert main(["check", str(folder)]) == 2
    assert "splits.train.annotations: '../instances.json'; expected a path below the root" in capsys.readouterr().err
    (tmp_path / "other.json").write_text(json.dumps(coco([])))
    (folder / "train" / "instances.json").unlink()
    (folder / "train" / "instances.json").symlink_to(tmp_path / "other.json")
    (folder / "dataset.yaml").write_text(NAMES + YAML)
    assert "leads out of the root of the dataset" in complaints(folder, capsys)[1][0]


def test_fault_25_images_without_objects_are_samples(tmp_path, capsys):
    folder = make_objects(tmp_path, coco([record(1, (2, 3, 10, 9))]))
    for augment in (None, ObjectAugment(crop=(16, 16), turns=True, flip=0.5)):
        samples = ObjectDataset(read_dataset(folder), "train", augment=augment)
        empty = samples[1].objects
        assert empty.boxes.shape == (0, 4)
        assert empty.boxes.dtype == torch.float32
        assert (empty.labels.shape, empty.labels.dtype) == ((0,), torch.int64)
        assert empty.crowds.shape == (0, 4)
        assert len(empty.masks) == 0
        batch = collate([samples[0], samples[1]])
        assert [len(objects) for objects in batch.targets][1] == 0
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "note: train: 1 image without an object" in out
    assert "note: train: no object of dot" in out


def test_fault_27_ten_thousand_objects_in_one_image(tmp_path):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 990, (10_000, 2))
    records = [record(i, (x, y, x + 10, y + 10)) for i, (x, y) in enumerate(corners.round(1).tolist())]
    folder = make_objects(tmp_path, coco(records, images=1, size=(1000, 1000)), images=1, size=(1000, 1000))
    samples = ObjectDataset(read_dataset(folder), "train", augment=ObjectAugment(turns=True, scale=(0.8, 1.2)))
    tracemalloc.start()
    sample = samples[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sample.objects) == 10_000
    assert (areas(sample.objects.masks) > 0).all()
    assert peak < 100 * 2**20  # whole masks would be 9.3 GiB
    cropped = ObjectDataset(read_dataset(folder), "train", augment=ObjectAugment(crop=(100, 100)))[0]
    assert 20 < len(cropped.objects) < 300
    assert cropped.objects.masks.pixels.numel() < 300 * 11 * 11


def test_fault_27_a_thousand_objects_on_top_of_each_other(tmp_path):
    records = [record(i, (10 + i / 100, 10, 110, 110)) for i in range(1000)]
    folder = make_objects(tmp_path, coco(records, images=1, size=(128, 128)), images=1, size=(128, 128))
    sample = ObjectDataset(read_dataset(folder), "train", augment=ObjectAugment(crop=(96, 96), turns=True))[0]
    assert len(sample.objects) == 1000
    assert sample.objects.masks.pixels.numel() <= 1000 * 100 * 100


def outcome(folder):
    """Why the folder is refused; None if all of it can be read."""
    try:
        samples = ObjectDataset(read_dataset(folder), "train", cache=False)
        assert all(len(sample.objects.masks) == len(sample.objects) for sample in samples)
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("how", ["values", "bytes"])
def test_broken_files_are_refused_or_read_and_nothing_else(tmp_path, how):
    rng = np.random.default_rng(7)
    runs = {"size": [24, 32], "counts": [0, 24, 744]}
    value = coco(
        [record(1, (2, 3, 10, 9)), record(2, (0, 0, 1, 24), segmentation=runs), record(3, (0, 0, 9, 9), iscrowd=1)]
    )
    folder = make_objects(tmp_path, value, yaml=NAMES + YAML)
    file, outcomes = folder / "train" / "instances.json", {True: 0, False: 0}
    for _ in range(300):
        if how == "values":
            text = json.dumps(broken(rng, broken(rng, value) if rng.random() < 0.3 else value)).encode()
        else:
            text = bytearray(json.dumps(value).encode())
            for place in rng.integers(len(text), size=rng.integers(1, 4)):
                text[place] = rng.integers(256)
        file.unlink()
        file.write_bytes(text)
        said = outcome(folder)
        assert said is None or "instances.json" in said
        outcomes[said is None] += 1
    assert min(outcomes.values()) > 0
