"""The demo, step by step: scenes, training, scores on held-out scenes, a map of a town, its buildings, a picture."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from torchfpn.demo.dataset import Sheet, describe_dataset, make_data, make_sheets, plan_dataset, plan_map, refuse_filled
from torchfpn.demo.object_job import map_objects, object_settings
from torchfpn.demo.scenes import BANDS, CLASSES, COLORS
from torchfpn.errors import amount
from torchfpn.files.atomic import write_bytes

if TYPE_CHECKING:
    from torchfpn.config import TrainConfig
    from torchfpn.train.finish import RunResult

Say = Callable[[str], None]


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
    from torchfpn.train.run import fit

    say(f"training on {amount(plan.train, 'scene')}, {amount(plan.epochs, 'epoch')}")
    result = fit(replace(train_config(folder, plan), resume=resume))
    times.append(time.monotonic())
    if plan.task != "semantic":
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
    from torchfpn.config import DataConfig, LossConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig

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
    return config if plan.task == "semantic" else object_settings(config)


def _make(folder: Path, plan: Plan, say: Say) -> Sheet:
    """The dataset and the town; while other processes paint, this one loads torch and Lightning."""
    numbered = plan.task != "semantic"
    sheets = plan_dataset(
        folder / "dataset", seed=plan.seed, train=plan.train, val=plan.val, size=plan.size, numbered=numbered
    )
    town = plan_map(folder / "town", seed=plan.seed, size=plan.town, numbered=numbered)
    say(f"painting {len(sheets)} scenes of {plan.size} x {plan.size} pixels and a town of {plan.town} x {plan.town}")
    describe_dataset(folder / "dataset", plan.task)
    wanted = [sheet for sheet in (town, *sheets) if not (sheet.image.is_file() and sheet.label.is_file())]
    list(make_sheets(wanted, processes=plan.processes, meanwhile=_load))
    return town


def _load() -> None:
    import torchfpn.train.run  # noqa: F401


def _map(folder: Path, town: Sheet, result: "RunResult") -> Made:
    """Labels and outlines of the town by the saved model, as `fpn predict` makes them, and a picture of it."""
    from torchfpn.raster.predict import Options, predict_file
    from torchfpn.raster.sources import Job
    from torchfpn.tasks.storage import load

    outlines = folder / "town" / "buildings.geojson"
    job = Job(town.image, folder / "town" / "labels.tif", {"polygons": outlines})
    options = Options(polygons="geojson", outlined=[CLASSES[2]], least=40, simplify=1.2, precision="auto")
    outcome = predict_file(load(result.model), job, options)
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


def _models(folder: Path, result: "RunResult") -> tuple[tuple[Path, str], ...]:
    return (
        (result.model, "the model: fpn info, fpn predict, torchfpn.load"),
        (folder / "dataset", "the scenes: fpn check, fpn train"),
    )


def _picture(path: Path, town: Sheet, labels: Path) -> Path:
    """The town, its truth and its prediction side by side."""
    from torchfpn.files.images import read_image
    from torchfpn.files.labels import read_labels
    from torchfpn.report.sheets import side_by_side

    image = read_image(town.image).array
    truth, prediction = (read_labels(file).values.astype("int64") - 1 for file in (town.label, labels))
    picture = side_by_side(image, truth, prediction, COLORS, names=CLASSES, bands=BANDS, errors=False, palette=True)
    write_bytes(path, picture)
    return path


def _score(town: Sheet, labels: Path) -> float:
    """The mIoU of the town's label file."""
    from torchfpn.files.labels import read_labels
    from torchfpn.metrics.confusion import ConfusionMatrix

    truth, prediction = (read_labels(file).values.astype("int64") - 1 for file in (town.label, labels))
    confusion = ConfusionMatrix(len(CLASSES))
    confusion.update(prediction, truth)
    return confusion.miou()
