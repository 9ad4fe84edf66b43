"""What the verbs of `fpn` leave on the disk, and the batches and losses of a training, compared with stored ones.

All of it goes through the command line and the files it writes. Labels, polygons and counts must be equal; figures that
are computed with floats may differ in the last digits, because processors add in different orders.
`python tests/test_journeys.py --write [JOURNEY ...]` stores what the present code gives.
"""

import contextlib
import csv
import hashlib
import json
import math
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from PIL import Image

import torchfpn
from golden import named_weights
from made_data import write_png, write_tiff
from made_objects import coco, record, write_numbers
from made_panoptic import make_panoptic
from passes import after_pass, interrupted_at
from tiny_model import CLASSES, COLORS, IDS
from torchfpn.cli.main import main

STORED = Path(__file__).with_name("golden_journeys.json")
SIZE = (150, 190)
PHOTOS = {"a": (60, 80), "b": (45, 33)}
CORNER = (500_000.0, 5_800_000.0)
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, CORNER[0], 0, -0.5, CORNER[1])}
FACTORS = {"dense.each.predict": 0.03, "box.predict.scores": 0.05, "box.predict.deltas": 0.01}  # of weights
TOLERANCE = {"rel": 2e-3, "abs": 2e-4}
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


# -- a small world: models, a scene, pictures, truth; nothing random but fixed draws of numpy


def smooth(seed, size, bands=3):
    """Bytes [H, W, C]: patches of 10 pixels with soft borders and a little texture, by whole numbers."""
    draw = np.random.RandomState(seed)
    rows, columns = (-(-side // 10) + 1 for side in size)
    coarse = draw.randint(0, 256, (rows, columns, bands)).repeat(10, 0).repeat(10, 1)
    soft = sum(coarse[i : i + size[0], j : j + size[1]] for i in range(0, 8, 2) for j in range(0, 8, 2)) // 16
    return np.clip(soft + draw.randint(-12, 13, soft.shape), 1, 255).astype(np.uint8)


def patches(seed, size, values, side=18):
    """Labels [H, W]: rectangles of the values."""
    rows, columns = (-(-length // side) for length in size)
    grid = np.asarray(values, np.uint8)[np.random.RandomState(seed).randint(0, len(values), (rows, columns))]
    return grid.repeat(side, 0).repeat(side, 1)[: size[0], : size[1]]


def tiff(path, image, **more):
    """[H, W, C] or [H, W] as a GeoTIFF of tiles of 64 in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.moveaxis(image, -1, 0) if image.ndim == 3 else image[None]
    photometric = {"photometric": "RGB"} if image.ndim == 3 else {}
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    return write_tiff(path, np.ascontiguousarray(array), **(tiled | PLACE | photometric | more))


def boxes(path, *parts, name="class"):
    """GeoJSON of (left, top, right, bottom, class) in pixels of the scene."""
    features = []
    for left, top, right, bottom, value in parts:
        x, y = CORNER
        shape = shapely.box(x + left / 2, y - bottom / 2, x + right / 2, y - top / 2)
        held = shapely.geometry.mapping(shape)
        features.append({"type": "Feature", "properties": {name: value}, "geometry": held})
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))


def save_models():
    """A semantic model without a favourite class, and one of objects."""
    scaling = torchfpn.Scaling((120.0,) * 3, (60.0,) * 3, "given")
    task = torchfpn.create_task(
        "semantic", backbone="test_resnet", classes=CLASSES, bands=("red", "green", "blue"), dtype="uint8", channels=16,
        head_channels=16, strides=(4, 8), scaling=scaling, label_ids=IDS, colors=COLORS, ignore_index=0,
    )  # fmt: skip
    named_weights(task)
    image = torch.from_numpy(smooth(0, SIZE)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        task.model.head.classify.bias -= task.logits(image).mean((0, 2, 3))
    task.save("model.safetensors")
    task = torchfpn.create_task(
        "instance", backbone="test_resnet", classes=("cell", "dot"), bands=("red", "green", "blue"), dtype="uint8",
        channels=16, head_options={"hidden": 32, "mask_hidden": 16, "proposals": 10}, label_ids=(3, 7),
    )  # fmt: skip
    named_weights(task)
    with torch.no_grad():  # scores from 0.1 to 0.9 and proposals of many sizes
        for name, value in task.state_dict().items():
            value *= next((factor for part, factor in FACTORS.items() if part in name), 1)
    task.save("detector.safetensors")


def make_world():
    """Everything in the current folder."""
    save_models()
    scene = smooth(0, SIZE)
    scene[:40, :50] = 0
    tiff(Path("scene.tif"), scene, nodata=0)
    Path("photos").mkdir()
    for seed, (name, size) in enumerate(PHOTOS.items(), start=1):
        write_png(Path(f"photos/{name}.png"), smooth(seed, size))
    for row in range(2):
        for column in range(2):
            Path(f"town/18/{10 + column}").mkdir(parents=True, exist_ok=True)
            part = smooth(3, (128, 128))[64 * row : 64 * row + 64, 64 * column : 64 * column + 64]
            write_png(Path(f"town/18/{10 + column}/{20 + row}.png"), part)
    tiff(Path("maps/scene.tif"), patches(5, SIZE, (0, *IDS)))
    tiff(Path("truth/scene.tif"), patches(6, SIZE, (0, *IDS)))
    boxes(Path("roofs.geojson"), (5, 5, 60, 50, "roof"), (90, 20, 150, 75, "roof"), (20, 90, 80, 140, "road"))
    boxes(Path("found.geojson"), (8, 5, 60, 52, "roof"), (90, 60, 150, 110, "roof"), (22, 92, 85, 140, "road"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder of the world, as the current one."""
    with contextlib.chdir(tmp_path_factory.mktemp("world")):
        make_world()
        yield


def fpn(*words, code=0):
    assert main([*map(str, words)]) == code, words


# -- what is compared


def digest(array):
    """Of the bytes of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def raster(path):
    """Pixels and all that a reader of the file sees."""
    with rasterio.open(path) as source:
        pixels = source.read()
        facts = {
            "pixels": digest(pixels),
            "values": {str(v): int(n) for v, n in zip(*np.unique(pixels, return_counts=True), strict=True)},
            "shape": list(pixels.shape),
            "dtype": source.dtypes[0],
            "crs": source.crs.to_epsg() if source.crs else None,
            "transform": list(source.transform)[:6],
            "nodata": source.nodata,
            "names": list(source.descriptions),
            "tags": {key: value for key, value in source.tags().items() if key not in ("TIFFTAG_SOFTWARE",)},
            "layout": source.tags(ns="IMAGE_STRUCTURE"),
            "blocks": [list(block) for block in source.block_shapes],
            "overviews": source.overviews(1),
        }
        with contextlib.suppress(ValueError):
            facts["colours"] = digest(np.array(list(source.colormap(1).values()), np.uint8))
    return facts


def shares(path):
    """Of probabilities: facts, and every 997th value, a whole number or not, as a share of one."""
    facts = raster(path)
    with rasterio.open(path) as source:
        array = source.read().astype(np.float64)
    for name in ("pixels", "values"):
        del facts[name]
    scale = 254 if facts["dtype"] == "uint8" else 1  # a step of a byte may go either way: see TOLERANCE
    known = np.where(np.isfinite(array), array / scale, -1)
    facts["means"] = known.mean((1, 2)).tolist()
    facts["some"] = [] if facts["dtype"] == "uint8" else known.reshape(-1)[::997].tolist()
    return facts


def picture(path):
    """Pixels, type and palette of a picture."""
    with Image.open(path) as image:
        palette = image.getpalette()
        return {
            "mode": image.mode,
            "size": list(image.size),
            "pixels": digest(np.asarray(image)),
            "palette": None if palette is None else digest(np.array(palette[: 3 * 8], np.uint8)),
        }


def opened(path):
    """The pixels of a picture."""
    with Image.open(path) as image:
        return np.asarray(image)


def features(path):
    """Attributes and outlines: coordinates to the millimetre, or to 1e-7 degrees, as a digest."""
    meta, _, shapes, columns = pyogrio.raw.read(path)
    names, step = meta["fields"].tolist(), 1e-7 if "4326" in str(meta["crs"]) else 1e-3
    rows = []
    for index, shape in enumerate(shapely.from_wkb(shapes)):
        held = {name: plain(column[index]) for name, column in zip(names, columns, strict=True)}
        points = np.round(shapely.get_coordinates(shape) / step).astype(np.int64)
        rows.append({**held, "type": shape.geom_type, "points": len(points), "outline": digest(points)})
    return {"crs": meta["crs"], "type": meta["geometry_type"], "features": rows}


def plain(value):
    return value.item() if isinstance(value, np.generic) else value


def outlines(value):
    """JSON with long lists of numbers (rings, run lengths) as digests."""
    if isinstance(value, dict):
        return {key: outlines(part) for key, part in value.items()}
    if isinstance(value, list) and len(value) > 4 and "[" in str(value)[1:]:
        flat = [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", str(value))]
        if len(flat) > 12 and not re.search(r"[a-z]{2}", str(value)):
            return {"length": len(flat), "digest": digest(np.round(np.array(flat) * 100).astype(np.int64))}
    return [outlines(part) for part in value] if isinstance(value, list) else value


def stored_json(path):
    return outlines(json.loads(Path(path).read_text()))


def counted(value):
    """JSON of a check without its wording: sentences become the number of lines they have."""
    if isinstance(value, dict):
        return {key: counted(part) for key, part in value.items()}
    if isinstance(value, list):
        return [counted(part) for part in value]
    if isinstance(value, str):
        return "text" if " " in value else value.removeprefix(f"{Path.cwd()}/")
    return value


# -- the journeys: each gives plain values, in the order in which they are compared


def predict_whole():
    fpn(
        "predict",
        "model.safetensors",
        "scene.tif",
        "photos",
        "--out",
        "whole",
        "--probabilities",
        "float32",
        "--overlay",
    )
    return {
        "names": sorted(path.name for path in Path("whole").glob("[!.]*")),
        "labels": raster("whole/scene.tif"),
        "probabilities": shares("whole/scene.probs.tif"),
        "pictures": {name: picture(f"whole/{name}.png") for name in ("a", "b")},
        "overlays": {name: picture(f"whole/{name}.overlay.png") for name in ("a", "scene")},
    }


WINDOWS = ("--tile-size", 64, "--margin", 16, "--probabilities", "uint8")


def predict_windows():
    words = ("predict", "model.safetensors", "scene.tif", *WINDOWS, "--out")
    fpn(*words, "windows", "--polygons", "gpkg", "--min-pixels", 20)
    with interrupted_at(4):
        fpn(*words, "resumed", "--polygons", "gpkg", "--min-pixels", 20, code=130)
    fpn(*words, "resumed", "--polygons", "gpkg", "--min-pixels", 20, "--resume")
    fpn(*words, "blended", "--blend")
    same = [
        Path("windows", n).read_bytes() == Path("resumed", n).read_bytes() for n in ("scene.tif", "scene.probs.tif")
    ]
    return {
        "names": sorted(path.name for path in Path("windows").glob("[!.]*")),
        "labels": raster("windows/scene.tif"),
        "probabilities": shares("windows/scene.probs.tif"),
        "polygons": features("windows/scene.gpkg"),
        "resumed is unbroken": [*same, features("windows/scene.gpkg") == features("resumed/scene.gpkg")],
        "blended": raster("blended/scene.tif"),
    }


def predict_tiles():
    words = ("predict", "model.safetensors", "town", "--tile-size", 64, "--margin", 16)
    fpn(*words, "--out", "tiles", "--polygons", "geojson", "--min-pixels", 20)
    fpn(*words, "--out", "mosaic", "--mosaic", "town")
    tiles = sorted(Path("tiles").rglob("*.png"))
    return {
        "tiles": {path.as_posix(): picture(path) for path in tiles},
        "polygons": features("tiles/town.geojson"),
        "mosaic": raster("mosaic/town.tif"),
    }


def predict_polygons():
    found = {}
    for kind in ("geojson", "fgb", "pixels"):
        out = f"polygons-{kind}"
        fpn(
            "predict",
            "model.safetensors",
            "scene.tif",
            "--out",
            out,
            "--polygons",
            kind,
            "--min-pixels",
            20,
            "--simplify",
            1,
        )
        (path,) = (p for p in Path(out).glob("[!.]*") if p.suffix not in (".tif", ".png"))
        found[path.name] = stored_json(path) if kind == "pixels" else features(path)
    return found


def predict_objects():
    """A pixel at the edge of a mask may go either way: areas are compared, as shares of the image."""
    words = ("predict", "detector.safetensors", "scene.tif")
    fpn(*words, "photos", "--out", "objects", "--overlay")
    fpn(*words, "--out", "outlined", "--polygons", "gpkg", "--min-score", 0.3)
    objects, outlined = json.loads(Path("objects/objects.json").read_text()), features("outlined/scene.gpkg")
    for each in objects["annotations"]:
        height, width = each["segmentation"].pop("size")
        each["area"] /= height * width
        assert each.pop("segmentation").keys() == {"counts"}
    for each in outlined["features"]:
        del each["points"], each["outline"]
    masks, numbers = raster("objects/scene.tif"), opened("objects/a.png")
    del masks["pixels"], masks["values"]
    return {
        "names": sorted(path.name for path in Path("objects").glob("[!.]*")),
        "objects": objects,
        "masks": {"scene": masks, "a": (np.bincount(numbers.ravel()) / numbers.size).tolist()},
        "overlays": {name: list(opened(f"objects/{name}.overlay.png").shape) for name in ("a", "scene")},
        "polygons": outlined,
    }


def polygons():
    fpn("polygons", "maps/scene.tif", "map.gpkg", "--min-pixels", 10)
    fpn("polygons", "maps/scene.tif", "square.fgb", "--square", "--simplify", 1)
    fpn("polygons", "maps/scene.tif", "map.geojson", "--min-area", 50)
    fpn("polygons", "map.gpkg", "merged.gpkg", "--merge", 6, "--min-area", 30, "--exclude", "roofs.geojson")
    return {name: features(name) for name in ("map.gpkg", "square.fgb", "map.geojson", "merged.gpkg")}


def rasterize():
    fpn("rasterize", "roofs.geojson", "scene.tif", "--out", "drawn", "--field", "class")
    words = ("--classes", "ground,road,roof", "--field", "class", "--all-touched", "--ignore-border", 1.5)
    fpn("rasterize", "roofs.geojson", "scene.tif", "--out", "touched", *words)
    return {"centres": raster("drawn/scene.tif"), "touched": raster("touched/scene.tif")}


def scored(*words):
    fpn("evaluate", *words, "--json", "scores.json", "--overwrite", "-q")
    return stored_json("scores.json")


def evaluate_maps():
    names = ("--classes", "1=grass,2=road,7=roof", "--ignore", 0)
    return {
        "maps and maps": scored("maps", "truth", *names),
        "maps and polygons": scored("maps/scene.tif", "roofs.geojson", "--classes", "1=grass,2=road,7=roof"),
        "polygons and polygons": scored("found.geojson", "roofs.geojson"),
    }


def evaluate_models():
    for name in ("a", "b"):
        Path("split/labels").mkdir(parents=True, exist_ok=True)
        write_png(Path(f"split/labels/{name}.png"), patches(8, PHOTOS[name], (0, *IDS)))
    shutil.copytree("photos", "split/images")
    ids = dict(zip(IDS, CLASSES, strict=True))
    splits = "splits: {val: {images: images, labels: labels}}\n"
    Path("split/dataset.yaml").write_text(f"task: semantic\nclasses: {ids}\nignore_index: 0\n{splits}")
    truth = coco([record(1, (2, 3, 30, 29)), record(2, (20, 10, 44, 40), category=7)], images=1, size=(60, 80))
    found = [
        {"image_id": 1, "category_id": kind, "bbox": box, "score": score}
        for kind, box, score in ((3, [2, 3, 26, 28], 0.9), (7, [22, 12, 24, 28], 0.7), (3, [50, 30, 9, 9], 0.4))
    ]
    Path("truth.json").write_text(json.dumps(truth))
    Path("results.json").write_text(json.dumps(found))
    return {
        "model and dataset": scored("model.safetensors", "split", "--device", "cpu"),
        "results": scored("results.json", "truth.json"),
    }


def compare():
    fpn(
        "compare", "scene.tif", "--truth", "truth", "--prediction", "maps", "--out", "sheets",
        "--classes", "1=grass,2=road,7=roof", "--ignore", 0,
    )  # fmt: skip
    fpn("compare", "scene.tif", "--prediction", "roofs.geojson", "--out", "looked")
    names = {out: sorted(path.name for path in Path(out).rglob("*.*")) for out in ("sheets", "looked")}
    return {**names, "scores": stored_json("sheets/compare.json")}


def make_masks(folder, count=6):
    """A dataset of PNG masks; image and label."""
    for kind in ("images", "labels"):
        Path(folder, kind).mkdir(parents=True)
    for i in range(count):
        size = (48 + 8 * (i % 2), 64 - 8 * (i % 3))
        write_png(Path(folder, "images", f"{i}.png"), smooth(20 + i, size))
        write_png(Path(folder, "labels", f"{i}.png"), patches(40 + i, size, (0, 1, 2), side=12))
    split = "{images: images, labels: labels}"
    Path(folder, "dataset.yaml").write_text(
        f"task: semantic\nclasses: [ground, roof, road]\nsplits: {{train: {split}, val: {split}}}\n"
    )


def make_coco(folder, count=6):
    """A dataset of objects as COCO has them."""
    Path(folder, "images").mkdir(parents=True)
    held = []
    for i in range(count):
        write_png(Path(folder, "images", f"a{i}.png"), smooth(60 + i, (72, 96)))
        for k in range(i % 4):
            box = (4 + 22 * k, 6 + 9 * k, 24 + 22 * k, 30 + 11 * k)
            held.append(record(len(held) + 1, box, image=i + 1, category=(3, 7)[k % 2], iscrowd=0))
    Path(folder, "objects.json").write_text(json.dumps(coco(held, images=count, size=(72, 96))))
    few = [each for each in held if each["image_id"] in (2, 4)]
    for each in few:
        each["image_id"] //= 2
    Path(folder, "val").mkdir()
    for i in range(2):
        shutil.copy(Path(folder, "images", f"a{1 + 2 * i}.png"), Path(folder, "val", f"a{i}.png"))
    Path(folder, "few.json").write_text(json.dumps(coco(few, images=2, size=(72, 96))))
    val = "{images: val, annotations: few.json}"
    Path(folder, "dataset.yaml").write_text(
        f"task: instance\nsplits: {{train: {{images: images, annotations: objects.json}}, val: {val}}}\n"
    )


def make_polygon_scenes(folder):
    """A scene that is read by windows, with polygons as labels."""
    tiff(Path(folder, "images", "scene.tif"), smooth(0, SIZE), nodata=0)
    boxes(Path(folder, "roofs.geojson"), (5, 5, 60, 50, "roof"), (90, 20, 150, 75, "roof"), (20, 90, 80, 140, "road"))
    split = "{images: images, labels: roofs.geojson}"
    Path(folder, "dataset.yaml").write_text(
        "task: semantic\nclasses: [ground, roof, road]\nscene_pixels: 1000\npolygons: {field: class, border: 1}\n"
        f"splits: {{train: {split}, val: {split}}}\n"
    )


def make_numbered(folder, count=4):
    """A dataset of numbered objects."""
    for kind in ("images", "labels"):
        Path(folder, kind).mkdir(parents=True)
    for i in range(count):
        write_png(Path(folder, "images", f"{i}.png"), smooth(80 + i, (64, 64)))
        numbers = np.zeros((64, 64), int)
        for k in range(3):
            numbers[6 + 18 * k : 20 + 18 * k, 4 + 7 * i + 10 * k : 20 + 8 * i + 10 * k] = k + 1
        write_numbers(Path(folder, "labels", f"{i}.png"), numbers)
    Path(folder, "dataset.yaml").write_text(
        "task: instance\nclasses: [cell]\nsplits: {train: {images: images, labels: labels}}\n"
    )


def check():
    make_masks("checked")
    write_png(Path("checked/labels/1.png"), np.full((9, 9), 1, np.uint8))
    write_png(Path("checked/labels/2.png"), np.full((48, 48), 77, np.uint8))
    Path("checked/images/3.png").write_bytes(Path("checked/images/3.png").read_bytes()[:200])
    Path("checked/labels/4.png").unlink()
    make_coco("checked-coco")
    value = json.loads(Path("checked-coco/objects.json").read_text())
    value["annotations"][0]["bbox"][2] = -4
    value["annotations"][1]["category_id"] = 99
    Path("checked-coco/objects.json").write_text(json.dumps(value))
    return {
        "masks": checked("checked", code=2),
        "objects": checked("checked-coco", code=2),
        "objects with --fix": checked("checked-coco", "--fix", code=0),
    }


def checked(*words, code):
    told = Told()
    with contextlib.redirect_stdout(told):
        fpn("check", *words, "--json", "-q", code=code)
    return counted(json.loads("".join(told.parts)))


class Told:
    """A stream that keeps what is written."""

    def __init__(self):
        self.parts = []

    def write(self, text):
        self.parts.append(text)
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return False


TRAINING = ("num_workers: 0", "accelerator: cpu", "precision: 32-true", "seed: 3", "lr: 1.0e-4")
SEMANTIC = (
    "model: {backbone: test_resnet, channels: 8, head_channels: 8, pretrained: false}",
    "data: {crop: 32, scale: [0.5, 2.0], hflip: 0.5, rotate: true, brightness: 0.2, noise: 0.1, class_aware: 0.5}",
)
OBJECTS = (
    "model: {backbone: test_resnet, channels: 8, pretrained: false, options: {head_options: {hidden: 16, mask_hidden: "
    "16, proposals: 50, detections: 10, anchor_sizes: [[16], [24], [32], [64], [128]]}}}",
    "data: {shorter: [56, 64], scale: [0.8, 1.25], vflip: 0.5, brightness: 0.2}",
    "loss: {anchors: 32, boxes: 16}",
)


def trained(folder, settings, **sizes):
    """The batches and losses of a training, and its metrics.csv."""
    lines = [f"dataset: {folder}", *TRAINING, *settings, *(f"{name}: {value}" for name, value in sizes.items())]
    Path(f"{folder}.yaml").write_text("\n".join(lines))
    steps = []

    def keep(number, inputs, losses):
        (batch,) = inputs
        if losses and next(iter(losses.values())).requires_grad:
            terms = {name: loss.item() for name, loss in losses.items()}
            steps.append({**batch_facts(batch), "losses": terms})

    with after_pass(keep, torchfpn.Task):
        fpn("train", "--config", f"{folder}.yaml", "-q")
    with Path("runs", folder, "metrics.csv").open() as file:
        rows = [{key: number(text) for key, text in row.items()} for row in csv.DictReader(file)]
    names = sorted(path.name for path in Path("runs", folder).glob("[!.]*"))
    return {"files": names, "steps": steps, "metrics": rows}


def number(text):
    """A cell of a CSV."""
    try:
        return float(text)
    except ValueError:
        return text


def batch_facts(batch):
    """Names, sizes, targets; of the images the mean, the spread and a sum that knows the order."""
    images = batch.images.double().nan_to_num(-1)
    order = torch.linspace(0, 1, images[0].numel(), dtype=torch.float64).view_as(images[0])
    facts = {
        "names": [re.sub(r".*/", "", name) for name in batch.names],
        "sizes": [list(size) for size in batch.sizes],
        "shape": list(images.shape),
        "missing": int(batch.images.isnan().sum()),
        "images": [[float(x.mean()), float(x.std()), float((x * order).mean())] for x in images],
    }
    if isinstance(batch.targets, torch.Tensor):
        return {**facts, "targets": [digest(target.numpy()) for target in batch.targets]}
    return {**facts, "targets": [objects_facts(objects) for objects in batch.targets]}


def objects_facts(objects):
    """Boxes, classes, crowds, and the pixels of masks."""
    masks, crowds = objects.masks, objects.crowds
    return {
        "boxes": objects.boxes.double().flatten().tolist(),
        "labels": objects.labels.tolist(),
        "crowds": None if crowds is None else crowds.double().flatten().tolist(),
        "masks": None if masks is None else [masks.windows.tolist(), digest(masks.pixels.numpy())],
    }


def train_masks():
    make_masks("masks")
    return trained("masks", SEMANTIC, batch_size=4, max_epochs=2, steps_per_epoch=5)


def train_polygons():
    make_polygon_scenes("scenes")
    return trained("scenes", SEMANTIC, batch_size=4, max_epochs=1, steps_per_epoch=2)


def train_coco():
    make_coco("coco")
    return trained("coco", OBJECTS, batch_size=2, max_epochs=2, steps_per_epoch=5)


def train_numbered():
    make_numbered("numbered")
    return trained("numbered", OBJECTS, batch_size=4, max_epochs=1, steps_per_epoch=2)


def train_panoptic():
    make_panoptic(Path("panoptic"))
    return trained("panoptic", OBJECTS, batch_size=4, max_epochs=1, steps_per_epoch=2)


JOURNEYS = (
    predict_whole, predict_windows, predict_tiles, predict_polygons, predict_objects, polygons, rasterize,
    evaluate_maps, evaluate_models, compare, check, train_masks, train_polygons, train_coco, train_numbered,
    train_panoptic,
)  # fmt: skip


def differences(found, stored, name=""):
    """Where two nested values are not the same, floats but for their last digits."""
    if isinstance(found, dict) and isinstance(stored, dict):
        keys = [f"{name}/{key}: only in one" for key in found.keys() ^ stored.keys()]
        return keys + [
            d for key in found if key in stored for d in differences(found[key], stored[key], f"{name}/{key}")
        ]
    if isinstance(found, list) and isinstance(stored, list) and len(found) == len(stored):
        return [d for i, (a, b) in enumerate(zip(found, stored, strict=True)) for d in differences(a, b, f"{name}/{i}")]
    if isinstance(found, float) and isinstance(stored, float | int) and not isinstance(stored, bool):
        return [] if found == pytest.approx(stored, **TOLERANCE, nan_ok=True) else [f"{name}: {found} {stored}"]
    return [] if found == stored else [f"{name}: {found} {stored}"]


def through_json(value):
    """As it is after being stored; floats with six digits."""
    return json.loads(json.dumps(rounded(value)))


def rounded(value):
    if isinstance(value, dict):
        return {str(key): rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.9g}") if isinstance(value, float) and math.isfinite(value) else value


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey.__name__)
def test_journey(world, journey):
    stored = json.loads(STORED.read_text())[journey.__name__]
    assert differences(through_json(journey()), stored) == []


if __name__ == "__main__" and sys.argv[1:2] == ["--write"]:
    kept = json.loads(STORED.read_text()) if STORED.exists() else {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_world()
        for chosen in JOURNEYS:
            if chosen.__name__ in (sys.argv[2:] or [chosen.__name__]):
                kept[chosen.__name__] = through_json(chosen())
    STORED.write_text(json.dumps(kept, indent=0, sort_keys=True) + "\n")
