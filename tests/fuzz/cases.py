"""What the fuzzer tries: families of damaged files and the commands that read them. A seed gives its case, always."""

import random
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import damage

OUT = "out"  # where every command of a case writes


@dataclass(frozen=True)
class Family:
    """Files of one kind, how they are damaged, and the commands that read them ("{}" is the damaged file)."""

    files: tuple[str, ...]
    damages: tuple[damage.Damage, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One command on one damaged file.

    name: family and seed, enough to run it again. words: the command line. damaged: file -> its new bytes.
    """

    name: str
    words: list[str]
    damaged: dict[str, bytes] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The name without the seed."""
        return self.name.partition(":")[0]

    @property
    def several(self) -> bool:
        """Whether the command reads several sources, of which some may fail and others not."""
        return self.words[0] == "predict" and "maps/scene.tif" in self.words[3:]


BYTES = (damage.in_bytes, damage.in_bytes, damage.cut)
TEXT = (damage.in_text, damage.in_text, damage.in_bytes, damage.cut)
JSON = (damage.in_json, damage.in_json, damage.in_json, damage.in_bytes, damage.cut)
PIXELS, OBJECTS = "models/pixels.safetensors", "models/objects.safetensors"
FAMILIES = {
    "image": Family(
        tuple(
            f"images/{n}"
            for n in ("exif.png", "palette.png", "wide.png", "color.jpg", "cmyk.jpg", "color.bmp", "color.webp")
        ),
        BYTES,
        (f"predict {PIXELS} {{}} --out out", f"predict {OBJECTS} {{}} --out out", "compare {} --out out"),
    ),
    "raster": Family(
        ("images/strips.tif", "images/tiles.tif", "images/masked.tif", "maps/scene.tif"),
        BYTES,
        (
            f"predict {PIXELS} {{}} --out out --polygons pixels",
            f"predict {PIXELS} {{}} --out out --tile-size 64 --probabilities uint8 --polygons gpkg",
            f"predict {PIXELS} {{}} maps/scene.tif --out out",
            "compare {} --out out",
            "rasterize maps/roofs.geojson {} --out out",
        ),
    ),
    "side file": Family(
        tuple(f"beside/{n}" for n in ("photo.jgw", "scene.tif.aux.xml", "scene.tif.msk", "mosaic.vrt")),
        TEXT,
        (
            f"predict {PIXELS} beside/photo.jpg --out out",
            f"predict {PIXELS} beside/scene.tif --out out",
            f"predict {PIXELS} beside/scene.tif --out out --tile-size 64 --polygons gpkg",
            f"predict {PIXELS} beside/mosaic.vrt --allow-vrt --out out",
            "compare beside/scene.tif --out out",
            "rasterize maps/roofs.geojson beside/scene.tif --out out",
        ),
    ),
    "training image": Family(
        ("pixels/train/images/a0.png", "pixels/val/images/a0.png", "scenes/scene.tif"),
        BYTES,
        ("check pixels", "check scenes", "weights pixels", f"evaluate {PIXELS} pixels --json out.json"),
    ),
    "labels": Family(
        ("pixels/train/labels/a0.png", "pixels/val/labels/a0.png", "scenes/mask.tif", "labels/a0.png", "labels/a1.tif"),
        BYTES,
        (
            "check pixels",
            "check scenes",
            "weights pixels",
            f"evaluate {PIXELS} pixels --json out.json",
            "evaluate {} labels/a0.png --json out.json",
            "compare pixels/train/images/a0.png --truth {} --prediction labels/a0.png --out out",
        ),
    ),
    "label map": Family(
        ("maps/predicted.tif", "maps/truth.tif"),
        BYTES,
        (
            "polygons {} out.geojson",
            "polygons {} out.gpkg --min-pixels 3 --simplify 1",
            "evaluate maps/predicted.tif maps/truth.tif --json out.json",
            "evaluate maps/predicted.tif maps/roofs.geojson --classes x,y,roof --json out.json",
            "compare maps/scene.tif --truth maps/truth.tif --prediction maps/predicted.tif --out out",
        ),
    ),
    "coco": Family(
        ("objects/train/instances.json",),
        JSON,
        (
            "check objects",
            "check objects --init",
            f"evaluate {OBJECTS} objects --split train",
            "panoptic-from objects --background rest --out out",
        ),
    ),
    "annotations": Family(
        (
            "yolo/data.yaml",
            "yolo/labels/train/a0.txt",
            "labelme/a0.json",
            "voc/Annotations/a0.xml",
            "voc/ImageSets/Main/train.txt",
        ),
        TEXT,
        ("check yolo --init", "check labelme --init", "check voc --init"),
    ),
    "panoptic": Family(
        ("panoptic/train/panoptic.json",),
        JSON,
        (
            "check panoptic",
            "check panoptic --init",
            "check panoptic/whole.yaml",
            "panoptic-from panoptic/whole.yaml --out out",
        ),
    ),
    "panoptic map": Family(
        ("panoptic/train/panoptic/a0.png",),
        BYTES,
        ("check panoptic", "check panoptic/whole.yaml", "panoptic-from panoptic/whole.yaml --out out"),
    ),
    "results": Family(("results.json",), JSON, ("evaluate {} objects/train/instances.json --json out.json",)),
    "geojson": Family(
        ("maps/roofs.geojson",),
        JSON,
        (
            "rasterize {} maps/scene.tif --out out --field kind --classes bg,roof,shed",
            "polygons {} out.gpkg --field kind --merge 1 --square",
            "evaluate {} maps/roofs.gpkg --field kind --truth-field kind --json out.json",
            "compare maps/scene.tif --truth {} --out out",
        ),
    ),
    "vectors": Family(
        ("maps/roofs.gpkg", "maps/roofs.fgb", "maps/roofs.shp", "maps/roofs.shx", "maps/roofs.dbf", "maps/roofs.prj"),
        BYTES,
        (
            "rasterize {} maps/scene.tif --out out",
            "polygons {} out.geojson --field kind",
            "evaluate maps/roofs.geojson {} --json out.json",
        ),
    ),
    "dataset": Family(
        ("pixels/dataset.yaml", "objects/dataset.yaml", "scenes/dataset.yaml", "composed/dataset.yaml"),
        TEXT,
        (
            "check pixels",
            "check composed",
            "panoptic-from composed --out out",
            "check objects",
            "check scenes",
            "weights pixels",
            f"evaluate {PIXELS} pixels --json out.json",
        ),
    ),
    "settings": Family(("train.yaml",), TEXT, ("train --config train.yaml --out out --name run --max_epochs 1",)),
    "recipe": Family(
        (PIXELS, OBJECTS), (damage.in_recipe,), ("info {}", "info {} --json", "predict {} images/exif.png --out out")
    ),
    "model": Family((PIXELS, OBJECTS), BYTES, ("info {}", "predict {} images/exif.png --out out")),
    "checkpoint": Family(("models/foreign.pth",), BYTES, ("convert {} out.safetensors", "info {}")),
}
FLAGS = (
    "check pixels", "weights pixels", f"info {PIXELS}", "train --config train.yaml --out out --name run",
    f"predict {PIXELS} images/exif.png --out out", f"evaluate {PIXELS} pixels", "polygons maps/truth.tif out.geojson",
    "compare maps/scene.tif --truth maps/truth.tif --prediction maps/predicted.tif --out out",
    "rasterize maps/roofs.geojson maps/scene.tif --out out", "convert models/foreign.pth out.safetensors",
    "evaluate maps/predicted.tif maps/truth.tif", "check objects",
)  # fmt: skip
NAMES = (
    "--split", "--json", "--method", "--classes", "--ignore", "--min-pixels", "--min-area", "--field", "--layer",
    "--bands", "--tile-size", "--margin", "--batch-size", "--min-score", "--iou", "--max-pixels", "--simplify",
    "--merge", "--assume-crs", "--tiles", "--out", "--device", "--precision", "--lr", "--batch_size",
    "--model.backbone", "--model.channels", "--data.crop", "--seed", "--within", "--burn", "--buffer",
    "--max-detections", "--worst", "--panel-size", "--exclude",
)  # fmt: skip


def make_case(seed: int, originals: Path) -> Case:
    """The case of a seed; families take turns, so that every one gets its share."""
    rng = random.Random(seed)
    names = [*FAMILIES, "flags"]
    name = names[seed % len(names)]
    if name == "flags":
        words = rng.choice(FLAGS).split()
        for _ in range(rng.choice([1, 1, 2])):
            value = str(rng.choice(damage.ODD_VALUES)).replace("\ud800", "?").lstrip("/")  # stays in the folder
            words[len(words) :] = rng.choice([[rng.choice(NAMES), value], [value], [f"{rng.choice(NAMES)}={value}"]])
        return Case(f"{name}:{seed}", words)
    family = FAMILIES[name]
    file = rng.choice(family.files)
    data = rng.choice(family.damages)(rng, (originals / file).read_bytes())
    words = [word.replace("{}", file) for word in rng.choice(family.commands).split()]
    return Case(f"{name}:{seed}", words, {file: data})
