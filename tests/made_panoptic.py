"""Small datasets of panoptic annotations that tests make: images, PNGs of ids, and the JSON beside them."""

import json

import numpy as np
from PIL import Image

from made_data import picture, write_png
from made_maps import box, noise, write_geojson, write_map

SIZE = (24, 32)
CATEGORIES = [
    {"id": 3, "name": "cell", "isthing": 1},
    {"id": 4, "name": "grass", "isthing": 0},
    {"id": 7, "name": "dot", "isthing": 1},
]
WHOLE = "task: panoptic\nsplits:\n  train: {images: train/images, annotations: train/panoptic.json}\n"
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


def write_ids(path, ids):
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
        write_ids(folder / "train" / "panoptic" / f"a{i}.png", ids)
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
ONE = COMPOSED.replace("things: [cell, dot]", "things: [cell]").replace(", dot]", "]")  # one thing
JSON = COMPOSED.replace("train/objects", "train/objects.json")


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


def rectangles(*boxes):
    """Numbers 1, 2, ... of rectangles (x1, y1, x2, y2), later ones on top."""
    values = np.zeros(SIZE, int)
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        values[y1:y2, x1:x2] = number
    return values


def coco_of(*records):
    names = [{"id": 1, "file_name": "a0.png", "height": SIZE[0], "width": SIZE[1]}]
    categories = [{"id": 3, "name": "cell"}, {"id": 7, "name": "dot"}, {"id": 9, "name": "grass"}]
    return {"images": names, "annotations": list(records), "categories": categories}


def make_polygon_map(folder, *, scene_pixels=2**22, size=(40, 50), more=""):
    """A GeoTIFF with stuff as polygons and as a mask, and objects as polygons, with a class and without."""
    write_map(folder / "images" / "a.tif", noise(0, size), tiled=True, blockxsize=16, blockysize=16)
    stuff = [box(0, 0, 30), box(20, 20, 30)]
    write_geojson(folder / "stuff.geojson", stuff, ["grass", "water"])
    things = [box(5, 5, 12), box(8, 8, 4), box(30, 30, 6), box(40, 2, 20), box(25, 5, 3), box(20.6, 35.6, 0.3)]
    things.append(box(49.8, 30, 8))  # it reaches into the image, and holds no pixel's centre
    write_geojson(folder / "things.geojson", things, ["cell", "dot", "cell", "cell", "grass", "dot", "dot"])
    (folder / "dataset.yaml").write_text(
        "task: panoptic\nclasses: [grass, water, cell, dot]\nthings: [cell, dot]\npolygons: {field: kind}\n"
        f"scene_pixels: {scene_pixels}\n{more}"
        "splits: {train: {images: images, labels: stuff.geojson, objects: things.geojson}}\n"
    )
    return folder
