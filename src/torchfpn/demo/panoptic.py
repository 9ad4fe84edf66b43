"""The panoptic demo: scenes with buildings and trees as things, their annotations, and the segments of a town."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.demo.scenes import BANDS, CLASSES, COLORS, PIXEL, Scene
from torchfpn.io.atomic import make_directory, write_text

if TYPE_CHECKING:
    from torchfpn.config.settings import TrainConfig
    from torchfpn.data.labels.coco_panoptic_writing import PanopticCategory
    from torchfpn.data.labels.segments import SegmentMap
    from torchfpn.types import Panoptic

THINGS = ("building", "tree")
NAMES = (*THINGS, *(name for name in CLASSES if name not in THINGS))
TREE = (52, 104, 60)  # color
OF_CLASS = 2**16  # an id is this times 1 + the class, and the number of a thing
SMALLEST = 12  # pixels of a thing: what others leave of it may be less

YAML = """# made by `fpn demo`: aerial scenes that never were, at {pixel} m; every building and every tree is a segment
task: panoptic
bands: [{bands}]
splits:
  train: {{images: images/train, annotations: labels/train.json}}
  val: {{images: images/val, annotations: labels/val.json}}
"""


def segment_ids(painted: Scene) -> NDArray[np.int32]:
    """The segment of each pixel [H, W] of a scene; the ground under trees and between them is one."""
    classes = np.array([0, *(1 + NAMES.index(name) for name in CLASSES)], np.int32)
    ids = OF_CLASS * classes[painted.labels]
    for kind, numbers in enumerate((painted.numbers, painted.trees), start=1):
        areas = np.bincount(numbers.reshape(-1))
        shown = (areas[numbers] >= SMALLEST) & (numbers > 0)
        ids[shown] = OF_CLASS * kind + numbers[shown].astype(np.int32)
    buildings = (ids >= OF_CLASS) & (ids < 2 * OF_CLASS)
    return np.where(buildings & (ids % OF_CLASS == 0), 0, ids)  # of a building too small to count


def segment_map(ids: NDArray[np.int32]) -> "SegmentMap":
    """The segments of a map of such ids."""
    from torchfpn.data.labels.segments import SegmentMap

    numbers = np.unique(ids[ids > 0]).astype(np.int64)
    return SegmentMap.of(ids, numbers, numbers // OF_CLASS - 1)


def categories() -> "list[PanopticCategory]":
    """The classes of the demo, things first."""
    from torchfpn.data.labels.coco_panoptic_writing import PanopticCategory

    colors = dict(zip(CLASSES, COLORS, strict=True)) | {"tree": TREE}
    return [PanopticCategory(k, name, name in THINGS, colors[name]) for k, name in enumerate(NAMES, start=1)]


def describe_dataset(folder: Path) -> None:
    """Writes dataset.yaml."""
    make_directory(folder)
    write_text(folder / "dataset.yaml", YAML.format(pixel=PIXEL, bands=", ".join(BANDS)))


def write_annotations(folder: Path, labels: Iterable[Path]) -> None:
    """Writes labels/<split>.json of a dataset whose PNGs of ids are there.

    Args:
        folder: of the dataset.
        labels: the PNGs, labels/<split>/<name>.png.
    """
    from torchfpn.data.labels.coco_panoptic_writing import coco_panoptic
    from torchfpn.io.segment_png import read_segment_png

    splits: dict[str, list[Path]] = {}
    for path in labels:
        splits.setdefault(path.parent.name, []).append(path)
    for split, paths in splits.items():
        target = folder / "labels" / split
        with coco_panoptic(target.with_suffix(".json"), target, categories()) as annotations:
            for number, path in enumerate(sorted(paths), start=1):
                annotations.add(number, path.with_suffix(".tif").name, segment_map(read_segment_png(path)))


def panoptic_settings(config: "TrainConfig", head: dict[str, Any]) -> "TrainConfig":
    """The settings of the demo's panoptic training. head: options of the region branch."""
    from torchfpn.config.settings import LossConfig

    regions = head | {"anchor_sizes": [[8], [16], [32], [64], [128]], "detections": 400, "proposals": 600}
    options = {"head_options": {"regions": regions}}
    return replace(
        config,
        lr=1e-3,
        batch_size=4,
        model=replace(config.model, head_channels=64, merging={"stuff_area": 64.0}, options=options),
        loss=LossConfig(boxes=192),
        data=replace(config.data, class_aware=0.5),
    )


def map_segments(folder: Path, image: Path, truth_file: Path, model: Path) -> tuple[float, int, dict[str, Path]]:
    """Finds the segments of the town.

    Args:
        folder: of the demo.
        image: of the town.
        truth_file: PNG of its true ids.
        model: the model file.

    Returns:
        Panoptic quality; the number of outlined segments; and the files: "raster", a GeoTIFF of ids; "polygons",
        GeoJSON; "picture".
    """
    from torchfpn.inference.jobs import Job
    from torchfpn.inference.panoptic import predict_panoptic
    from torchfpn.inference.semantic import PredictOptions
    from torchfpn.io.segment_png import read_segment_png
    from torchfpn.metrics.panoptic import PanopticQuality
    from torchfpn.tasks.build import load

    task, place = load(model), folder / "town"
    others = {"raster": place / "segments.tif", "polygons": place / "segments.geojson"}
    job = Job(image, place / "panoptic.json", others)
    outcome = predict_panoptic(task, job, PredictOptions(polygons="geojson", precision="auto"))
    assert outcome.panoptic is not None
    truth = segment_map(read_segment_png(truth_file))
    quality = PanopticQuality(THINGS, NAMES[len(THINGS) :])
    quality.update(outcome.panoptic, truth)
    picture = _picture(folder / "picture.png", image, truth, outcome.panoptic)
    return quality.compute().pq, outcome.polygons, {"picture": picture, **others}


def _picture(path: Path, image: Path, truth: "SegmentMap", found: "Panoptic") -> Path:
    """The town, its true segments and those that were found, side by side."""
    from torchfpn.io.atomic import write_bytes
    from torchfpn.io.images import read_image
    from torchfpn.report.panoptic import SegmentMarks, panoptic_side_by_side

    picture = panoptic_side_by_side(
        read_image(image).array,
        SegmentMarks.of_truth(truth, len(THINGS), ()),
        SegmentMarks.of_result(found, ()),
        colors=[each.color or TREE for each in categories()],
        names=NAMES,
        bands=BANDS,
        palette=True,
    )
    write_bytes(path, picture)
    return path
