"""The score of the weights that are kept, image by image: for validation.json, samples/ and a terminal."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.progress import track
from torch import Tensor

from torchfpn.data.check import VALIDATE
from torchfpn.data.region_sample import RegionSample
from torchfpn.data.region_samples import RegionSamples
from torchfpn.data.sample import Sample
from torchfpn.data.samples import SemanticSamples
from torchfpn.files.atomic import make_directory, write_bytes
from torchfpn.metrics.plain import plain
from torchfpn.report.console import Console
from torchfpn.report.objects import picture_names, write_pictures
from torchfpn.report.run import parse_scores
from torchfpn.report.sheets import side_by_side
from torchfpn.report.tables import class_table, precision_table
from torchfpn.tasks.evaluate import evaluate
from torchfpn.tasks.evaluate_regions import RegionEvaluation, evaluate_regions
from torchfpn.tasks.precision import Precision
from torchfpn.tasks.task import Task
from torchfpn.train.loader import ValidationLoader
from torchfpn.train.machine import Machine
from torchfpn.train.sampling import whole_samples
from torchfpn.types import Batch

PICTURES = 8


@dataclass(frozen=True)
class Scored:
    """values: of validation.json. metrics: the few that sum them up. table: for a terminal."""

    values: dict[str, Any]
    metrics: dict[str, float | None]
    table: RenderableType


def score_pixels(task: Task, loader: ValidationLoader, machine: Machine, folder: Path, console: Console) -> Scored:
    """Of a class for every pixel; pictures of images all along the split go to samples/."""
    shown = _Shown(folder, len(loader))
    recipe = task.recipe

    def watch(sample: Sample, labels: Tensor) -> None:
        image, truth = sample.image.numpy(), sample.target.numpy()
        shown(
            sample.name,
            lambda: side_by_side(image, truth, labels.numpy(), recipe.colors, names=recipe.classes, bands=recipe.bands),
        )

    each = (Sample(batch.images[0], batch.targets[0], batch.names[0]) for batch in _batches(loader, console))
    source = whole_samples(loader.samples, SemanticSamples)
    values = evaluate(task, each, source=source, precision=_precision(machine), watch=watch).to_dict(VALIDATE)
    metrics = {"miou": values["miou"], "pixel_accuracy": values["pixel_accuracy"]}
    return Scored(values, metrics, class_table(parse_scores(values)))


def score_objects(task: Task, loader: ValidationLoader, machine: Machine, folder: Path, console: Console) -> Scored:
    """Of objects; pictures of images all along the split, of the worst and the best ones go to samples/."""
    each = (RegionSample(batch.images[0], batch.targets[0], batch.names[0]) for batch in _batches(loader, console))
    source = whole_samples(loader.samples, RegionSamples)
    found = evaluate_regions(task, each, source=source, precision=_precision(machine))
    sample, precision = loader.samples.__getitem__, _precision(machine)
    write_pictures(folder / "samples", picture_names(found), found, task, sample, precision=precision)
    values = found.to_dict(VALIDATE)
    return Scored(values, _summary(found), precision_table(values))


def _summary(found: RegionEvaluation) -> dict[str, float | None]:
    """AP of masks, or of boxes; None without an object in the truth."""
    return {"ap": plain(found.precisions.ap), "ap50": plain(found.precisions.ap50)}


class _Shown:
    """Keeps pictures of some images all along the split: neighbours in a split are often frames of one film."""

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.numbers, self.apart = folder / "samples", count(), max(1, images // PICTURES)
        make_directory(self.folder)

    def __call__(self, name: str, picture: Callable[[], bytes]) -> None:
        number, between = divmod(next(self.numbers), self.apart)
        if number < PICTURES and between == 0:
            write_bytes(self.folder / f"{number:02d}-{Path(name).stem[:80]}.png", picture())


def _batches(loader: ValidationLoader, console: Console) -> Iterator[Batch]:
    yield from track(loader, "scoring", console=console, transient=True, disable=not console.is_terminal)


def _precision(machine: Machine) -> Precision:
    return "bf16" if machine.precision == "bf16-mixed" else "fp32"
