"""Data sets as other tools export them: `fpn check --init` describes them, writing COCO where they have none."""

import base64
import io
import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from made_data import picture, write_png
from torchfpn.cli.main import main
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset

SIZE = (24, 32)
BOX = (4, 6, 12, 18)  # x1, y1, x2, y2 of the object of every image
RING = [4, 6, 12, 6, 12, 18, 4, 18]
VOC = """<annotation><filename>{name}</filename><size><width>32</width><height>24</height><depth>3</depth></size>
<object><name>cat</name><difficult>{difficult}</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object></annotation>"""


def image(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_png(path, picture(number, SIZE))


def text(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def shape(label="cat", kind="polygon", points=((4, 6), (12, 6), (12, 18), (4, 18)), **more):
    return {"label": label, "shape_type": kind, "points": [list(point) for point in points], **more}


def labelme(*shapes, name="a.png"):
    return {
        "version": "5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": name,
        "imageHeight": 24,
        "imageWidth": 32,
    }


def instances(names, **more):
    """A COCO file of one object an image."""
    ids = range(len(names))
    segmentation = {"segmentation": [RING], "iscrowd": 0} | more
    return {
        "images": [{"id": i, "file_name": name, "height": 24, "width": 32} for i, name in zip(ids, names, strict=True)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 0, "bbox": [4, 6, 8, 12], "area": 96, **segmentation} for i in ids
        ],
        "categories": [{"id": 0, "name": "cat"}],
    }


def yolo_roboflow(folder):
    for split in ("train", "valid"):
        image(folder / split / "images" / "a.png")
        text(folder / split / "labels" / "a.txt", "1 0.25 0.5 0.25 0.5\n")
    text(folder / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['dog', 'cat']\n")
    return "detection"


def yolo_polygons(folder):
    for split in ("train", "val"):
        image(folder / "images" / split / "a.png")
        text(
            folder / "labels" / split / "a.txt",
            "0 " + " ".join(str(v / (24 if i % 2 else 32)) for i, v in enumerate(RING)),
        )
    text(folder / "set.yaml", "path: ../datasets/x\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n")
    return "instance"


def yolo_darknet(folder):
    for i in range(3):
        image(folder / "obj_train_data" / f"{i}.png", i)
        text(folder / "obj_train_data" / f"{i}.txt", "0 0.25 0.5 0.25 0.5\n")
    text(folder / "obj.names", "cat\n")
    return "detection"


def labelme_beside(folder):
    for i in range(3):
        image(folder / f"{i}.png", i)
        text(folder / f"{i}.json", labelme(shape(), name=f"{i}.png"))
    return "instance"


def labelme_apart(folder):
    image(folder / "images" / "a.png")
    text(
        folder / "labels" / "a.json",
        labelme(shape(kind="rectangle", points=((12, 18), (4, 6))), name="..\\images\\a.png"),
    )
    return "detection"


def voc(folder):
    for i in range(3):
        image(folder / "JPEGImages" / f"{i}.png", i)
        text(folder / "Annotations" / f"{i}.xml", VOC.format(5, 7, 12, 18, name=f"{i}.png", difficult=0))
    text(folder / "ImageSets" / "Main" / "train.txt", "0\n1\n")
    text(folder / "ImageSets" / "Main" / "val.txt", "2\n")
    return "detection"


def voc_roboflow(folder):
    for split in ("train", "valid"):
        image(folder / split / "a.png")
        text(folder / split / "a.xml", VOC.format(4, 6, 12, 18, name="a.png", difficult=0))
    image(folder / "train" / "b.png", 1)
    text(folder / "train" / "b.xml", VOC.format(0, 0, 5, 5, name="b.png", difficult=1))
    return "detection"


def label_studio(folder):
    for i in range(2):
        image(folder / "images" / f"{i}.png", i)
    text(folder / "result.json", instances(["images/0.png", "images\\1.png"]))
    return "instance"


def cvat(folder):
    image(folder / "images" / "default" / "a.png")
    mask = np.zeros(SIZE, bool)
    mask[6:18, 4:12] = True
    flat = np.flatnonzero(np.diff(mask.T.ravel().astype(int), prepend=0)).tolist()
    counts = np.diff([0, *flat, mask.size]).tolist()
    value = instances(["a.png"], segmentation={"size": [24, 32], "counts": counts}, iscrowd=1)
    text(folder / "annotations" / "instances_default.json", value)
    return "instance"


def roboflow(folder):
    for split in ("train", "valid"):
        image(folder / split / "a.png")
        value = instances(["a.png"])
        value["categories"] = [{"id": 0, "name": "cat", "supercategory": "none"}]
        value["categories"].append({"id": 1, "name": "cat", "supercategory": "cat"})
        value["annotations"][0]["category_id"] = 1
        text(folder / split / "_annotations.coco.json", value)
    return "instance"


LAYOUTS = [
    yolo_roboflow, yolo_polygons, yolo_darknet, labelme_beside, labelme_apart, voc, voc_roboflow, label_studio, cvat,
    roboflow,
]  # fmt: skip


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_layouts_of_other_tools(tmp_path, make, capsys):
    task = make(tmp_path)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert main(["check", "--init", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert main(["check", str(tmp_path)]) == 0
    dataset = read_dataset(tmp_path)
    assert dataset.task == task
    assert "cat" in dataset.names
    sample = ObjectDataset(dataset, "train")[0].objects
    assert sample.boxes.tolist() == [list(BOX)]
    assert [dataset.names[label] for label in sample.labels.tolist()] == ["cat"]
    if task == "instance":
        assert sample.masks.pixels.sum() == 8 * 12
    if make is voc_roboflow:
        assert "marked difficult, so not used in training or scores: 1" in out
    assert all(path.is_file() for path in before)
    assert main(["check", "--init", str(tmp_path), "--overwrite"]) == 0  # again, of the files it found at first
    assert read_dataset(tmp_path) == dataset


SETTINGS = """
dataset: {folder}
max_epochs: 1
steps_per_epoch: 2
batch_size: 1
num_workers: 0
accelerator: cpu
precision: 32-true
model:
  backbone: test_resnet
  channels: 8
  options:
    head_options:
      {{hidden: 8, mask_hidden: 8, proposals: 20, detections: 5, anchor_sizes: [[8], [16], [32], [64], [128]]}}
data: {{shorter: [64, 64]}}
loss: {{anchors: 16, boxes: 8}}
"""


@pytest.mark.parametrize("make", [yolo_polygons, labelme_beside, voc, label_studio, cvat, roboflow],
                         ids=lambda make: make.__name__)  # fmt: skip
def test_layouts_of_other_tools_are_trained_on(tmp_path, make, capsys):
    make(tmp_path / "data")
    assert main(["check", "--init", str(tmp_path / "data")]) == 0
    (tmp_path / "small.yaml").write_text(SETTINGS.format(folder=tmp_path / "data"))
    assert main(["train", "--config", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "small" / "model.safetensors").is_file()


def test_images_of_yolo_without_labels_have_no_objects_and_are_said(tmp_path, capsys):
    yolo_darknet(tmp_path)
    image(tmp_path / "obj_train_data" / "empty.png", 9)
    text(tmp_path / "obj_train_data" / "1.txt", "")
    image(tmp_path / "runs" / "results.png", 8)  # of another folder, where nothing is labelled
    assert main(["check", "--init", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "note: 1 image without a .txt file, taken for images without objects" in out
    assert "note: 1 image without a .txt file left out" in out
    assert len(ObjectDataset(read_dataset(tmp_path), "train").pairs) == 4


BAD_LINES = [
    ("0 16 12 8 12", "line 2: the value 16; shares of the image, 0 to 1, not pixels"),
    ("0 0.5 0.5 0.1 0.1 0.9", "line 2: 5 values after the class; 4 of a box"),
    ("7 0.5 0.5 0.1 0.1", "line 2: the class 7; 0 to 0, as named"),
    ("0 0.5 0.5 nan 0.1", "line 2: the value nan"),
    ("0 0.5 0.5 0 0.1", "line 2: a box without an area"),
    ("cat 0.5 0.5 0.1 0.1", "line 2: 'cat 0.5 0.5 0.1 0.1'; numbers"),
]


@pytest.mark.parametrize(("line", "found"), BAD_LINES)
def test_bad_lines_of_yolo_are_named_or_left_out_and_counted(tmp_path, capsys, line, found):
    yolo_darknet(tmp_path)
    text(tmp_path / "obj_train_data" / "1.txt", f"0 0.25 0.5 0.25 0.5\n{line}\n")
    assert main(["check", "--init", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert found in err
    assert "--init --fix leaves it out" in err
    assert not list(tmp_path.glob("*.json")) + list(tmp_path.glob("dataset.yaml"))
    assert main(["check", "--init", str(tmp_path), "--fix"]) == 0
    assert "note: 1 bad object left out" in capsys.readouterr().out
    assert main(["check", str(tmp_path)]) == 0


def test_fix_of_bad_labels_never_empties_a_class(tmp_path, capsys):
    labelme_beside(tmp_path)
    text(tmp_path / "1.json", labelme(shape(), shape("dog", "line", ((1, 2), (3, 4))), name="1.png"))
    assert main(["check", "--init", str(tmp_path), "--fix"]) == 2
    assert "shapes[1]: a line; polygon, rectangle, circle or mask" in (err := capsys.readouterr().err)
    assert '--fix would leave nothing of "dog" (1); repair it' in err


def test_shapes_of_labelme(tmp_path, capsys):
    window = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [255, 255]], np.uint8)).save(window, "PNG")
    mask = shape("m", "mask", ((20, 3), (21, 4)), mask=base64.b64encode(window.getvalue()).decode())
    parts = [shape("p", points=((1, 1), (3, 1), (3, 3), (1, 3)), group_id=4)]
    parts.append(shape("p", points=((5, 5), (7, 5), (7, 7), (5, 7)), group_id=4))
    circle = shape("c", "circle", ((24, 16), (24, 12)))
    image(tmp_path / "a.png")
    text(tmp_path / "a.json", labelme(mask, circle, *parts))
    assert main(["check", "--init", str(tmp_path)]) == 0
    dataset = read_dataset(tmp_path)
    assert (dataset.names, dataset.task) == (("c", "m", "p"), "instance")
    objects = ObjectDataset(dataset, "train")[0].objects
    found = dict(zip([dataset.names[i] for i in objects.labels.tolist()], range(3), strict=True))
    assert objects.boxes[found["m"]].tolist() == [20, 3, 22, 5]
    assert objects.boxes[found["p"]].tolist() == [1, 1, 7, 7]
    starts = objects.masks.starts().tolist()
    pixels = [int(objects.masks.pixels[starts[i] : starts[i + 1]].sum()) for i in range(3)]
    assert (pixels[found["m"]], pixels[found["p"]]) == (3, 8)
    assert pixels[found["c"]] == pytest.approx(np.pi * 16, rel=0.05)


@pytest.mark.parametrize(
    "doctype",
    ['<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>', '<!DOCTYPE a [<!ENTITY b "bb">]>', "<!DOCTYPE a>"],
)
def test_xml_with_a_doctype_is_refused(tmp_path, capsys, doctype):
    voc(tmp_path)
    text(tmp_path / "Annotations" / "1.xml", f"{doctype}<annotation><filename>&b;</filename></annotation>")
    assert main(["check", "--init", str(tmp_path)]) == 2
    assert "1.xml: a DOCTYPE" in capsys.readouterr().err
    utf16 = f'<?xml version="1.0" encoding="UTF-16"?>{doctype}<annotation/>'.encode("utf-16")
    (tmp_path / "Annotations" / "1.xml").write_bytes(utf16)
    assert main(["check", "--init", str(tmp_path)]) == 2
    assert "1.xml: a DOCTYPE" in capsys.readouterr().err
    text(tmp_path / "Annotations" / "1.xml", "<a>" * 100)
    assert main(["check", "--init", str(tmp_path)]) == 2
    assert "nested too deeply" in capsys.readouterr().err


def test_sizes_that_do_not_fit_are_refused(tmp_path, capsys):
    voc(tmp_path)
    path = tmp_path / "Annotations" / "1.xml"
    text(path, path.read_text().replace("<width>32", "<width>64"))
    assert main(["check", "--init", str(tmp_path)]) == 2
    assert "1.xml: 64 x 24 pixels, 32 x 24 in the image" in capsys.readouterr().err


def test_a_failed_description_leaves_nothing_behind(tmp_path, capsys):
    label_studio(tmp_path)
    (tmp_path / "images" / "1.png").unlink()
    assert main(["check", "--init", str(tmp_path)]) == 2
    assert "images[1].file_name" in capsys.readouterr().err
    assert not (tmp_path / "dataset.yaml").exists()
    (tmp_path / "dataset.yaml").write_text("kept: true\n")
    assert main(["check", "--init", str(tmp_path), "--overwrite"]) == 2
    assert (tmp_path / "dataset.yaml").read_text() == "kept: true\n"
    assert main(["check", "--init", str(tmp_path), "--overwrite", "--fix"]) == 0
    assert read_dataset(tmp_path).fix


def test_masks_beside_files_of_other_formats_stay_what_is_learnt(tmp_path):
    for i in range(3):
        image(tmp_path / "images" / f"{i}.png", i)
        text(tmp_path / "boxes" / f"{i}.txt", "0 0.25 0.5 0.25 0.5\n")
        (tmp_path / "masks").mkdir(exist_ok=True)
        write_png(tmp_path / "masks" / f"{i}.png", np.eye(24, 32, dtype=np.uint8))
    assert main(["check", "--init", str(tmp_path)]) == 0
    assert read_dataset(tmp_path).task == "semantic"


@pytest.mark.parametrize(("suffix", "kind"), [("txt", "YOLO"), ("xml", "Pascal VOC"), ("json", "LabelMe")])
def test_labels_of_other_tools_in_a_description_are_answered_with_the_command(tmp_path, capsys, suffix, kind):
    image(tmp_path / "images" / "a.png")
    text(tmp_path / "labels" / f"a.{suffix}", labelme(shape()) if suffix == "json" else "0 0.5 0.5 0.1 0.1")
    yaml = "classes: [a, b]\nsplits: {train: {images: images, labels: labels}}\n"
    text(tmp_path / "dataset.yaml", yaml)
    assert main(["check", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert kind in err
    assert "fpn check --init FOLDER" in err
    if suffix == "json":
        text(
            tmp_path / "dataset.yaml", "task: instance\nsplits: {train: {images: images, annotations: labels/a.json}}\n"
        )
        assert main(["check", str(tmp_path)]) == 2
        assert "a file of LabelMe; expected COCO; fpn check --init FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("text_of", ["train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['dog', 'cat']\n",
                                     "path: .\ntrain: train/images\nnames:\n  0: dog\n  1: cat\n"])  # fmt: skip
def test_a_description_of_yolo_called_dataset_yaml_is_recognised_and_never_replaced(tmp_path, capsys, text_of):
    yolo_roboflow(tmp_path)
    (tmp_path / "data.yaml").unlink()
    text(tmp_path / "dataset.yaml", text_of)
    for words in (["check"], ["check", "--init"], ["check", "--init", "--overwrite"], ["weights"]):
        assert main([*words, str(tmp_path)]) == 2
        line = capsys.readouterr().err
        assert "dataset.yaml: a description of YOLO's (path, train, val, names); rename it to data.yaml, then: " in line
        assert f"fpn check --init {tmp_path}" in line
        assert (tmp_path / "dataset.yaml").read_text() == text_of
    (tmp_path / "dataset.yaml").rename(tmp_path / "data.yaml")
    assert main(["check", str(tmp_path / "data.yaml")]) == 2
    assert f"names); fpn check --init {tmp_path}" in capsys.readouterr().err
    assert main(["check", "--init", str(tmp_path)]) == 0
    assert read_dataset(tmp_path).names == ("dog", "cat")


def test_masks_of_the_names_of_images_are_no_images(tmp_path, capsys):
    yolo_roboflow(tmp_path)
    image(tmp_path / "train" / "masks" / "a.png", 5)
    assert main(["check", "--init", str(tmp_path)]) == 0
    assert [pair.image.parent.name for pair in ObjectDataset(read_dataset(tmp_path), "train").pairs] == ["images"]
    Image.open(tmp_path / "train" / "images" / "a.png").convert("RGB").save(tmp_path / "train" / "images" / "a.jpg")
    assert main(["check", "--init", str(tmp_path), "--overwrite"]) == 2
    assert "a.png: has the same name as train/images/a.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("make", [labelme_beside, voc])
def test_small_files_of_labels_take_little_memory(tmp_path, make, capsys):
    make(tmp_path)
    tracemalloc.start()
    try:
        assert main(["check", str(tmp_path), "--init"]) == 0
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()
