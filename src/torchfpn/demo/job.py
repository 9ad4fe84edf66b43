"""The steps of `fpn demo`: a dataset of scenes, training, scores on held-out scenes, a map of a town, pictures."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from torchfpn.demo import panoptic
from torchfpn.demo.scenes import BANDS, CLASSES, COLORS, PIXEL, scene
from torchfpn.errors import ConfigError, amount
from torchfpn.geo.georef import Geo
from torchfpn.io.atomic import make_directory, write_bytes, write_text

if TYPE_CHECKING:
    from torchfpn.config.settings import TrainConfig
    from torchfpn.ops.masks import Instances
    from torchfpn.train.fit import RunResult
    from torchfpn.types import Objects

CRS = "EPSG:32759"  # UTM zone 59 south: the plains of Canterbury, where the sun stands in the north
WEST, NORTH = 570_000.0, 5_170_000.0  # metres, of the first scene
COLUMNS = 4  # scenes in a row on the map

YAML = """# made by `fpn demo`: aerial scenes that never were, at {pixel} m
task: semantic
classes:
{classes}
ignore_index: 0
bands: [{bands}]
splits:
  train: {{images: images/train, labels: labels/train}}
  val: {{images: images/val, labels: labels/val}}
"""

OBJECTS = """# made by `fpn demo`: aerial scenes that never were, at {pixel} m; every building has a number
task: {task}
classes: [building]
bands: [{bands}]
splits:
  train: {{images: images/train, labels: labels/train}}
  val: {{images: images/val, labels: labels/val}}
"""

BELIEVED = 0.5  # the score from which on a building is drawn and outlined
MOST = 300  # buildings of an image

HEAD = {  # a few hundred buildings teach a small head
    "hidden": 256,
    "mask_hidden": 64,
    "proposals": 500,
    "detections": MOST,
    "anchor_sizes": [[16], [32], [64], [128], [256]],
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sheet:
    """One scene to be made: its seed, size and place in the grid, and its files.

    numbered: the labels are the numbers of the buildings. numbers: a second file of labels, for these numbers.
    segmented: the labels are the ids of panoptic segments. segments: a further file of labels, for these ids.
    """

    seed: int
    size: int
    row: int
    column: int
    image: Path
    label: Path
    numbered: bool = False
    numbers: Path | None = None
    segmented: bool = False
    segments: Path | None = None

    def west_north(self) -> tuple[float, float]:
        """Its upper left corner, metres."""
        side = self.size * PIXEL
        return WEST + self.column * side, NORTH - self.row * side


def plan_dataset(
    folder: Path, *, seed: int, train: int, val: int, size: int, numbered: bool = False, segmented: bool = False
) -> list[Sheet]:
    """The sheets of a dataset in `folder`; each has a seed of its own, no two overlap on the map."""
    sheets = []
    for number in range(train + val):
        split, name = ("train", f"{number + 1:02d}") if number < train else ("val", f"{number - train + 1:02d}")
        row, column = divmod(number, COLUMNS)
        image, label = (folder / kind / split / f"scene-{name}.tif" for kind in ("images", "labels"))
        if segmented:
            label = label.with_suffix(".png")
        sheets.append(Sheet(1000 * seed + number, size, row, column, image, label, numbered, segmented=segmented))
    return sheets


def plan_map(folder: Path, *, seed: int, size: int, numbered: bool = False, segmented: bool = False) -> Sheet:
    """The larger sheet, made from another seed, south of the dataset."""
    truth = folder / ("truth.png" if segmented else "truth.tif")
    return Sheet(1000 * seed + 999, size, 8, 0, folder / "town.tif", truth, numbered, segmented=segmented)


def describe_dataset(folder: Path, task: str = "semantic") -> None:
    """Writes dataset.yaml."""
    make_directory(folder)
    if task == "panoptic":
        panoptic.describe_dataset(folder)
        return
    if task != "semantic":
        write_text(folder / "dataset.yaml", OBJECTS.format(pixel=PIXEL, task=task, bands=", ".join(BANDS)))
        return
    rows = [
        f'  - {{name: {name}, id: {i}, color: "#{r:02x}{g:02x}{b:02x}"}}'
        for i, (name, (r, g, b)) in enumerate(zip(CLASSES, COLORS, strict=True), start=1)
    ]
    text = YAML.format(pixel=PIXEL, classes="\n".join(rows), bands=", ".join(BANDS))
    write_text(folder / "dataset.yaml", text)


def make_data(folder: Path, *, seed: int, train: int, val: int, size: int, town: int, processes: int | None) -> None:
    """Writes the demo's data into a new `folder`, which appears whole or not at all.

    ``semantic/``, ``instance/`` and ``panoptic/`` are datasets of the same scenes, ``town/`` a larger scene: town.tif,
    the classes of its pixels in truth.tif, the numbers of its buildings in houses.tif.

    Args:
        folder: absent, or empty.
        seed: of the scenes.
        train: scenes to train on.
        val: scenes to validate on.
        size: side of a scene, pixels.
        town: side of the town, pixels.
        processes: how many paint at once.

    Raises:
        ConfigError: something is in the folder.
    """
    refuse_filled(folder)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        sheets = plan_dataset(part / "semantic", seed=seed, train=train, val=val, size=size)
        numbers = part / "instance" / "labels"
        segments = part / "panoptic" / "labels"
        both = []
        for sheet in sheets:
            name = sheet.label.relative_to(part / "semantic" / "labels")
            both.append(replace(sheet, numbers=numbers / name, segments=segments / name.with_suffix(".png")))
        place = replace(plan_map(part / "town", seed=seed, size=town), numbers=part / "town" / "houses.tif")
        list(make_sheets([place, *both], processes=processes))
        panoptic.write_annotations(part / "panoptic", [sheet.segments for sheet in both if sheet.segments])
        for task in ("semantic", "instance", "panoptic"):
            if task != "semantic":
                shutil.copytree(part / "semantic" / "images", part / task / "images")
            describe_dataset(part / task, task)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def refuse_filled(folder: Path) -> None:
    """Passes a folder that is absent or empty.

    Raises:
        ConfigError: something is in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("already exists", file=folder, field="--data", allowed="a new folder")


def make_sheets(
    sheets: list[Sheet], *, processes: int | None = None, meanwhile: Callable[[], object] | None = None
) -> Iterator[Sheet]:
    """Makes the files of all sheets; each is given back when it is there, in order.

    processes: how many at once, by default one per core, two at most. meanwhile: called while they work.
    """
    for sheet in sheets:
        make_directory(sheet.image.parent)
        make_directory(sheet.label.parent)
        for further in (sheet.numbers, sheet.segments):
            if further is not None:
                make_directory(further.parent)
    count = min(2, os.cpu_count() or 1) if processes is None else processes
    if count <= 1:
        yield from map(make_sheet, sheets)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_parent) as pool:
        made = [pool.submit(make_sheet, sheet) for sheet in sheets]
        try:
            if meanwhile is not None:
                meanwhile()
            for future in made:
                yield future.result()
        except BaseException:  # Ctrl-C as well: what is not begun is not painted
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_sheet(sheet: Sheet) -> Sheet:
    """Paints one scene and writes its two files."""
    from torchfpn.io.geotiff import write_bands, write_label_raster
    from torchfpn.io.rasters import import_rasterio
    from torchfpn.io.segment_png import write_segment_png

    painted = scene(sheet.seed, sheet.size)
    west, north = sheet.west_north()
    crs = import_rasterio().crs.CRS.from_user_input(CRS).to_wkt()
    geo = Geo(crs, (PIXEL, 0.0, west, 0.0, -PIXEL, north))
    write_bands(sheet.image, painted.image, names=BANDS, geo=geo)
    if sheet.segmented:
        write_segment_png(sheet.label, panoptic.segment_ids(painted))
        return sheet
    if sheet.segments is not None:
        write_segment_png(sheet.segments, panoptic.segment_ids(painted))
    if sheet.numbered:
        write_bands(sheet.label, painted.numbers[None], names=("building",), geo=geo)
        return sheet
    if sheet.numbers is not None:
        write_bands(sheet.numbers, painted.numbers[None], names=("building",), geo=geo)
    names, colors = dict(enumerate(CLASSES, start=1)), dict(enumerate(COLORS, start=1))
    write_label_raster(sheet.label, painted.labels, geo=geo, colors=colors, names=names, nodata=0)
    return sheet


def object_settings(config: "TrainConfig") -> "TrainConfig":
    """The settings of the demo's training for objects; the rest is as for classes of pixels."""
    from dataclasses import replace

    from torchfpn.config.settings import LossConfig

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
    from torchfpn.inference.jobs import Job
    from torchfpn.inference.objects import predict_objects
    from torchfpn.inference.semantic import PredictOptions
    from torchfpn.tasks.build import load

    task, place = load(model), folder / "town"
    others = {"polygons": place / "buildings.geojson"}
    if task.recipe.task == "instance":
        others["instances"] = place / "numbers.tif"
    options = PredictOptions(polygons="geojson", precision="auto")
    outcome = predict_objects(task, Job(town.image, place / "objects.json", others), options, min_score=BELIEVED)
    assert outcome.objects is not None  # of a detection model
    truth = _truth(folder / "dataset", town)
    picture = _object_picture(folder / "picture.png", town, truth, outcome.objects.above(BELIEVED))
    return _score_objects(truth, outcome.objects), outcome.polygons, {"picture": picture, **others}


def _truth(dataset: Path, town: Sheet) -> "Objects":
    """The buildings of the town as they were painted."""
    from torchfpn.data.config import read_dataset
    from torchfpn.data.labels.instance_maps import read_instance_map
    from torchfpn.data.splits import Pair
    from torchfpn.data.transforms import Geometry, visible_objects
    from torchfpn.geo.window import Window

    size = (town.size, town.size)
    truth = read_instance_map(read_dataset(dataset), Pair(town.image, town.label), size, None)
    return visible_objects(truth, Geometry(Window(0, 0, *size), size))


def _score_objects(truth: "Objects", found: "Instances") -> float:
    from torchfpn.metrics.detection import AveragePrecision

    scores = AveragePrecision(["building"], masks=found.crops is not None)
    scores.update(found, truth)
    return scores.compute().ap50


def _object_picture(path: Path, town: Sheet, truth: "Objects", found: "Instances") -> Path:
    """The town, its buildings and those that were found, side by side."""
    from torchfpn.io.images import read_image
    from torchfpn.report.objects import objects_side_by_side

    image = read_image(town.image).array
    colors = [(222, 92, 64)]
    picture = objects_side_by_side(image, truth, found, colors=colors, names=["building"], bands=BANDS, palette=True)
    write_bytes(path, picture)
    return path


@dataclass(frozen=True)
class Plan:
    """How large a demo: scenes of `size` pixels, a town of `town` pixels, `epochs` of `steps` steps; what is learnt."""

    seed: int = 0
    task: str = "semantic"
    train: int = 12
    val: int = 4
    size: int = 384
    town: int = 1024
    epochs: int = 8
    steps: int = 24
    crop: int = 224
    batch: int = 4
    processes: int | None = None

    @classmethod
    def usual(cls, seed: int = 0, task: str = "semantic") -> "Plan":
        """What the command does by itself: as much as two to four minutes allow."""
        if task == "panoptic":
            return cls(seed, task, train=16, epochs=20, steps=24, crop=256)
        return cls(seed) if task == "semantic" else cls(seed, task, train=16, epochs=6, steps=20, crop=256)

    @classmethod
    def quick(cls, seed: int = 0, task: str = "semantic") -> "Plan":
        """Everything once, as small as it gets: to see whether it runs, not what it can."""
        return cls(seed, task, train=2, val=1, size=96, town=128, epochs=1, steps=1, crop=64, batch=2, processes=1)


@dataclass(frozen=True)
class Made:
    """What the demo left behind.

    files: each with what it is. score: how it is called. held_out: on the held-out scenes, a fraction. town: on the
    town. None or NaN: nothing to score.
    seconds: of each phase, in order.
    """

    folder: Path
    files: tuple[tuple[Path, str], ...]
    score: str
    held_out: float | None
    town: float | None
    seconds: tuple[tuple[str, float], ...] = ()


def fresh_folder(wanted: Path) -> Path:
    """`wanted`, made; or wanted-2, wanted-3, ... where it is there already."""
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def write_data(folder: Path, plan: Plan, say: Say) -> None:
    """The demo's scenes and its town as data to try the other verbs on: see `make_data`.

    Raises:
        ConfigError: something is in the folder.
    """
    refuse_filled(folder)
    say(f"painting {plan.train + plan.val} scenes of {plan.size} x {plan.size} pixels and a town")
    sizes = {"train": plan.train, "val": plan.val, "size": plan.size, "town": plan.town}
    make_data(folder, seed=plan.seed, processes=plan.processes, **sizes)


def run_demo(folder: Path, plan: Plan, say: Say, *, resume: bool = False) -> Made:
    """Does all of it inside `folder`; with `resume`, what an interrupted demo of the same plan has not done there.

    Raises:
        Interrupted: a signal stopped the training, whose state is saved.
    """
    times = [time.monotonic()]
    town = _make(folder, plan, say)
    times.append(time.monotonic())
    from torchfpn import fit

    say(f"training on {amount(plan.train, 'scene')}, {amount(plan.epochs, 'epoch')}")
    result = fit(replace(train_config(folder, plan), resume=resume))
    times.append(time.monotonic())
    if plan.task == "panoptic":
        say("finding the segments of the town")
        made = _map_segments(folder, town, result)
    elif plan.task != "semantic":
        say("finding the houses of the town")
        made = _map_objects(folder, town, result, plan.task)
    else:
        say("labelling the town")
        made = _map(folder, town, result)
    times.append(time.monotonic())
    phases = ("painting", "training and scoring", "the town")
    return replace(made, seconds=tuple(zip(phases, (b - a for a, b in pairwise(times)), strict=True)))


def train_config(folder: Path, plan: Plan) -> "TrainConfig":
    """A small network that learns in about a minute and a half on two cores; configs/demo.yaml says the same.

    The weights of the last epoch are kept, so the held-out scenes choose nothing. Half of the usual stem's width halves
    what the stem costs, which is a sixth of a step; small batches, and so more steps, learn more in the same time.
    """
    from torchfpn.config.settings import (
        DataConfig,
        LossConfig,
        ModelConfig,
        OptimizerConfig,
        ScheduleConfig,
        TrainConfig,
    )

    config = TrainConfig(
        dataset=str(folder / "dataset"),
        name="run",
        out=str(folder),
        max_epochs=plan.epochs,
        steps_per_epoch=plan.steps,
        batch_size=plan.batch,
        lr=3e-3,
        seed=plan.seed,
        val_every=max(1, plan.epochs // 2),
        ema=0.97,
        keep="last",
        model=ModelConfig(
            backbone="resnet10t",
            channels=64,
            head_channels=64,
            pretrained=False,
            options={"backbone_options": {"stem_width": 16}},
        ),
        loss=LossConfig(terms="ce + dice"),  # buildings are few: cross-entropy alone finds them late
        data=DataConfig(crop=plan.crop, vflip=0.5, rotate=True, brightness=0.1, contrast=0.1, noise=0.05),
        optimizer=OptimizerConfig(weight_decay=0.02),
        schedule=ScheduleConfig(name="cosine", warmup=max(1, plan.epochs * plan.steps // 10)),
    )
    if plan.task == "panoptic":
        return panoptic.panoptic_settings(config, HEAD)
    return config if plan.task == "semantic" else object_settings(config)


def _make(folder: Path, plan: Plan, say: Say) -> Sheet:
    """The dataset and the town; while other processes paint, this one loads torch and Lightning."""
    kinds = {"numbered": plan.task in ("detection", "instance"), "segmented": plan.task == "panoptic"}
    sheets = plan_dataset(folder / "dataset", seed=plan.seed, train=plan.train, val=plan.val, size=plan.size, **kinds)
    town = plan_map(folder / "town", seed=plan.seed, size=plan.town, **kinds)
    say(f"painting {len(sheets)} scenes of {plan.size} x {plan.size} pixels and a town of {plan.town} x {plan.town}")
    describe_dataset(folder / "dataset", plan.task)
    wanted = [sheet for sheet in (town, *sheets) if not (sheet.image.is_file() and sheet.label.is_file())]
    list(make_sheets(wanted, processes=plan.processes, meanwhile=_load))
    if plan.task == "panoptic":
        panoptic.write_annotations(folder / "dataset", [sheet.label for sheet in sheets])
    return town


def _load() -> None:
    import torchfpn.train.fit  # noqa: F401


def _map(folder: Path, town: Sheet, result: "RunResult") -> Made:
    """Labels and outlines of the town by the saved model, as `fpn predict` makes them, and a picture of it."""
    from torchfpn.inference.jobs import Job
    from torchfpn.inference.semantic import PredictOptions, predict_image
    from torchfpn.tasks.build import load

    outlines = folder / "town" / "buildings.geojson"
    job = Job(town.image, folder / "town" / "labels.tif", {"polygons": outlines})
    options = PredictOptions(polygons="geojson", vectorize=[CLASSES[2]], min_pixels=40, simplify=1.2, precision="auto")
    outcome = predict_image(load(result.model), job, options)
    files = (
        (result.folder / "report.html", "curves, scores, confusion, predictions beside truth"),
        (_picture(folder / "picture.png", town, job.labels), "the town, its truth, its prediction"),
        (job.labels, "labels of the town, georeferenced"),
        (outlines, f"{amount(outcome.polygons, 'building')} of the town in lon/lat"),
        *_models(folder, result),
    )
    return Made(folder, files, "mIoU", result.metrics["miou"], _score(town, job.labels))


def _map_objects(folder: Path, town: Sheet, result: "RunResult", task: str) -> Made:
    """The houses of the town by the saved model, as `fpn predict` finds them, and a picture of them."""
    score, count, paths = map_objects(folder, town, result.model)
    numbers = [(paths["instances"], "masks of the town's houses, numbered")] if "instances" in paths else []
    files = (
        (result.folder / "report.html", "curves, AP, precision and recall, best and worst scenes"),
        (paths["picture"], "the town, its houses, those that were found"),
        *numbers,
        (paths["polygons"], f"{amount(count, 'building')} of the town in lon/lat"),
        *_models(folder, result),
    )
    return Made(folder, files, "mask AP50" if task == "instance" else "AP50", result.metrics["ap50"], score)


def _map_segments(folder: Path, town: Sheet, result: "RunResult") -> Made:
    """The segments of the town by the saved model, as `fpn predict` finds them, and a picture of them."""
    score, count, paths = panoptic.map_segments(folder, town.image, town.label, result.model)
    files = (
        (result.folder / "report.html", "curves, PQ of things and stuff, best and worst scenes"),
        (paths["picture"], "the town, its segments, those that were found"),
        (paths["raster"], "ids of the town's segments, georeferenced"),
        (paths["polygons"], f"{amount(count, 'segment')} of the town in lon/lat"),
        *_models(folder, result),
    )
    return Made(folder, files, "PQ", result.metrics["pq"], score)


def _models(folder: Path, result: "RunResult") -> tuple[tuple[Path, str], ...]:
    return (
        (result.model, "the model: fpn info, fpn predict, torchfpn.load"),
        (folder / "dataset", "the scenes: fpn check, fpn train"),
    )


def _picture(path: Path, town: Sheet, labels: Path) -> Path:
    """The town, its truth and its prediction side by side."""
    from torchfpn.io.images import read_image
    from torchfpn.io.labels import read_labels
    from torchfpn.report.sheets import side_by_side

    image = read_image(town.image).array
    truth, prediction = (read_labels(file).values.astype("int64") - 1 for file in (town.label, labels))
    picture = side_by_side(image, truth, prediction, COLORS, names=CLASSES, bands=BANDS, errors=False, palette=True)
    write_bytes(path, picture)
    return path


def _score(town: Sheet, labels: Path) -> float:
    """The mIoU of the town's label file."""
    from torchfpn.io.labels import read_labels
    from torchfpn.metrics.confusion import ConfusionMatrix

    truth, prediction = (read_labels(file).values.astype("int64") - 1 for file in (town.label, labels))
    confusion = ConfusionMatrix(len(CLASSES))
    confusion.update(prediction, truth)
    return confusion.miou()
