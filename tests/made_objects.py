"""Small datasets of objects that tests make for themselves: images, and a COCO file that names what is on them."""

import json

import numpy as np
from PIL import Image

from made_data import picture, write_png

CATEGORIES = [{"id": 3, "name": "cell"}, {"id": 7, "name": "dot"}]
YAML = """task: instance
splits:
  train: {images: train/images, annotations: train/instances.json}
"""


def ring(x1, y1, x2, y2):
    """A rectangle as COCO spells polygons."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def record(number, box, image=1, category=3, **more):
    """One annotation: a rectangle of x1, y1, x2, y2."""
    x1, y1, x2, y2 = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "segmentation": [ring(*box)],
        **more,
    }


def coco(annotations, images=2, size=(24, 32)):
    """The whole file as a value."""
    named = [{"id": i + 1, "file_name": f"a{i}.png", "height": size[0], "width": size[1]} for i in range(images)]
    return {"images": named, "annotations": annotations, "categories": CATEGORIES}


def make_objects(folder, value=None, *, text=None, yaml=YAML, images=2, size=(24, 32)):
    """A folder with images and `value` (or `text`) as their annotations; the folder."""
    (folder / "train" / "images").mkdir(parents=True, exist_ok=True)
    for i in range(images):
        write_png(folder / "train" / "images" / f"a{i}.png", picture(i, size))
    value = coco([record(1, (2, 3, 10, 9)), record(2, (20, 10, 30, 20), category=7)]) if value is None else value
    (folder / "train" / "instances.json").write_text(json.dumps(value) if text is None else text)
    if yaml:
        (folder / "dataset.yaml").write_text(yaml)
    return folder


def write_numbers(path, values):
    """A label image of numbered objects, 16 bits."""
    Image.fromarray(np.asarray(values, np.uint16)).save(path)
    return path


def broken(rng, value):
    """The value with something in it replaced by what does not belong there."""
    odd = [None, True, -1, 0, 2**70, 1e308, float("nan"), "", "x", [], {}, [[]], [1, 2], {"size": 3}, "\ud800"]
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    if not keys or rng.random() < 0.2:
        return odd[rng.integers(len(odd))]
    key = list(keys)[rng.integers(len(keys))]
    if isinstance(value, dict):
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: broken(rng, value[key])}
    return [broken(rng, part) if i == key else part for i, part in enumerate(value)]
