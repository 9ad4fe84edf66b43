"""The demo where every building is an object: what differs in training, and the houses of the town one by one."""

from pathlib import Path
from typing import TYPE_CHECKING

from torchfpn.demo.dataset import Sheet
from torchfpn.demo.scenes import BANDS
from torchfpn.files.atomic import write_bytes

if TYPE_CHECKING:
    from torchfpn.config import TrainConfig
    from torchfpn.ops.instances import Instances
    from torchfpn.types import Objects

BELIEVED = 0.5  # the score from which on a building is drawn and outlined
MOST = 300  # buildings of an image
HEAD = {  # a few hundred buildings teach a small head
    "hidden": 256,
    "mask_hidden": 64,
    "proposals": 500,
    "detections": MOST,
    "anchor_sizes": [[16], [32], [64], [128], [256]],
}


def object_settings(config: "TrainConfig") -> "TrainConfig":
    """The settings of the demo's training for objects; the rest is as for classes of pixels."""
    from dataclasses import replace

    from torchfpn.config import LossConfig

    head = dict(HEAD)
    return replace(
        config,
        lr=1e-3,
        batch_size=4,
        model=replace(config.model, head_channels=128, options={"head_options": head}),
        loss=LossConfig(boxes=128),
        data=replace(config.data, class_aware=0.8),
    )


def map_objects(folder: Path, town: Sheet, model: Path) -> tuple[float, int, dict[str, Path]]:
    """AP50 of the town's buildings, how many are outlined, and the files made of them.

    The files: "numbers", a raster of numbered masks; "outlines", GeoJSON; "picture".
    """
    from torchfpn.raster.predict import Options
    from torchfpn.raster.predict_objects import predict_objects
    from torchfpn.raster.sources import Job
    from torchfpn.tasks.storage import load

    task, place = load(model), folder / "town"
    others = {"polygons": place / "buildings.geojson"}
    if task.recipe.task == "instance":
        others["instances"] = place / "numbers.tif"
    options = Options(polygons="geojson", precision="auto")
    outcome = predict_objects(task, Job(town.image, place / "objects.json", others), options, score=BELIEVED)
    truth = _truth(folder / "dataset", town)
    picture = _picture(folder / "picture.png", town, truth, outcome.found.above(BELIEVED))
    return _score(truth, outcome.found), outcome.polygons, {"picture": picture, **others}


def _truth(dataset: Path, town: Sheet) -> "Objects":
    """The buildings of the town as they were painted."""
    from torchfpn.data.dataset import read_dataset
    from torchfpn.data.geometry import Geometry
    from torchfpn.data.moving import every_object
    from torchfpn.data.numbered import read_numbered
    from torchfpn.data.splits import Pair
    from torchfpn.files.geo import Window

    size = (town.size, town.size)
    truth = read_numbered(read_dataset(dataset), Pair(town.image, town.label), size, None)
    return every_object(truth, Geometry(Window(0, 0, *size), size))


def _score(truth: "Objects", found: "Instances") -> float:
    from torchfpn.metrics.average_precision import AveragePrecision

    scores = AveragePrecision(["building"], masks=found.crops is not None)
    scores.update(found, truth)
    return scores.compute().ap50


def _picture(path: Path, town: Sheet, truth: "Objects", found: "Instances") -> Path:
    """The town, its buildings and those that were found, side by side."""
    from torchfpn.files.images import read_image
    from torchfpn.report.objects import objects_side_by_side

    image = read_image(town.image).array
    colors = [(222, 92, 64)]
    picture = objects_side_by_side(image, truth, found, colors=colors, names=["building"], bands=BANDS, palette=True)
    write_bytes(path, picture)
    return path
