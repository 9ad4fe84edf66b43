"""Small datasets of panoptic annotations that tests make: images, PNGs of ids, and the JSON beside them."""

import json

import numpy as np
from PIL import Image

from made_data import picture, write_png

SIZE = (24, 32)
CATEGORIES = [
    {"id": 3, "name": "cell", "isthing": 1},
    {"id": 4, "name": "grass", "isthing": 0},
    {"id": 7, "name": "dot", "isthing": 1},
]
YAML = "task: instance\nsplits:\n  train: {images: train/images, annotations: train/panoptic.json}\n"


def first_map():
    """Grass (5), a cell (259) of two parts, a dot (70000), a crowd of cells (9), and a row that is not labelled."""
    ids = np.full(SIZE, 5)
    ids[2:6, 3:9] = ids[8:10, 4:6] = 259
    ids[10:20, 20:30] = 70000
    ids[15:, :8] = 9
    ids[0] = 0
    return ids


def second_map():
    """A cell alone, its id that of the other image's dot."""
    ids = np.zeros(SIZE, int)
    ids[4:20, 8:12] = 70000
    return ids


FIRST, SECOND = first_map(), second_map()
KINDS = ({5: 4, 259: 3, 70000: 7, 9: 3}, {70000: 3})


def segment(ids, number, category, **more):
    """The record of one id of a map."""
    ys, xs = np.nonzero(ids == number)
    box = [int(xs.min()), int(ys.min()), int(xs.max() - xs.min()) + 1, int(ys.max() - ys.min()) + 1]
    return {"id": number, "category_id": category, "area": len(ys), "bbox": box, "iscrowd": 0, **more}


def panoptic(maps=(FIRST, SECOND), kinds=KINDS, crowds=(9,)):
    """The whole file as a value."""
    return {
        "images": [
            {"id": i + 1, "file_name": f"a{i}.png", "height": ids.shape[0], "width": ids.shape[1]}
            for i, ids in enumerate(maps)
        ],
        "annotations": [
            {
                "image_id": i + 1,
                "file_name": f"a{i}.png",
                "segments_info": [segment(ids, n, kind, iscrowd=int(n in crowds)) for n, kind in named.items()],
            }
            for i, (ids, named) in enumerate(zip(maps, kinds, strict=True))
        ],
        "categories": CATEGORIES,
    }


def write_map(path, ids):
    """A PNG of ids."""
    ids = np.asarray(ids)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(path)
    return path


def make_panoptic(folder, value=None, *, maps=(FIRST, SECOND), text=None, yaml=YAML):
    """A folder with images, `maps` and `value` (or `text`) as what they mean; the folder."""
    for name in ("images", "panoptic"):
        (folder / "train" / name).mkdir(parents=True, exist_ok=True)
    for i, ids in enumerate(maps):
        write_png(folder / "train" / "images" / f"a{i}.png", picture(i, ids.shape))
        write_map(folder / "train" / "panoptic" / f"a{i}.png", ids)
    value = panoptic() if value is None else value
    (folder / "train" / "panoptic.json").write_text(json.dumps(value) if text is None else text)
    if yaml:
        (folder / "dataset.yaml").write_text(yaml)
    return folder


# -- labels of pixels and files of objects -----------------------------------------------------------------------------
COMPOSED = """task: panoptic
classes: [grass, water, cell, dot]
things: [cell, dot]
splits:
  train: {images: train/images, labels: train/labels, objects: train/objects}
"""


def make_composed(folder, target, objects, *, yaml=COMPOSED, name="a0"):
    """A folder with one image, the class values `target` of its pixels and its objects: numbers, or a JSON value."""
    for kind in ("images", "labels", "objects"):
        (folder / "train" / kind).mkdir(parents=True, exist_ok=True)
    target = np.asarray(target, np.uint8)
    write_png(folder / "train" / "images" / f"{name}.png", picture(0, target.shape))
    write_png(folder / "train" / "labels" / f"{name}.png", target)
    if isinstance(objects, dict):
        (folder / "train" / "objects.json").write_text(json.dumps(objects))
    else:
        numbers = Image.fromarray(np.asarray(objects, np.uint16))
        numbers.save(folder / "train" / "objects" / f"{name}.png")
    (folder / "dataset.yaml").write_text(yaml)
    return folder
