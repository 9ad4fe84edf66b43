"""After the last step: the kept weights are scored on the validation images, saved, shown and reported."""

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from torch import Tensor

from torchfpn.data.sample import Sample
from torchfpn.errors import FPNError, WeightsError
from torchfpn.files.atomic import write_bytes, write_text
from torchfpn.report.pictures import side_by_side
from torchfpn.report.run import parse_scores
from torchfpn.report.table import class_table
from torchfpn.tasks.evaluate import evaluate
from torchfpn.tasks.precision import Precision
from torchfpn.tasks.storage import fill
from torchfpn.tasks.task import Task
from torchfpn.train.build import VALIDATE, Parts
from torchfpn.train.checkpoints import read
from torchfpn.train.machine import Machine
from torchfpn.train.module import Training
from torchfpn.train.resume import kept_weights

MODEL, PICTURES = "model.safetensors", 8


@dataclass(frozen=True)
class RunResult:
    """What came of a training.

    metrics: the last row of metrics.csv, and "miou", "pixel_accuracy" of the kept weights. model: the file of weights.
    unsaved: why the last checkpoint could not be written; None when it was.
    """

    folder: Path
    metrics: dict[str, float]
    model: Path
    unsaved: str | None = None


def finish(training: Training, parts: Parts, folder: Path, machine: Machine, console: Console) -> RunResult:
    """Puts the kept weights into the task and leaves model.safetensors, validation.json, samples/ and report.html.

    Raises:
        FPNError: something could not be written; nothing of the training is lost.
    """
    try:
        return _finish(training, parts, folder, machine, console)
    except (OSError, SafetensorError) as error:
        raise FPNError(
            f"the results could not be written: {error}", file=folder, hint="make room, then --resume makes them again"
        ) from error


def _finish(training: Training, parts: Parts, folder: Path, machine: Machine, console: Console) -> RunResult:
    keeper, task = training.keeper, parts.task
    origin = _take(training, console)
    model = folder / MODEL
    task.eval().save(model)
    metrics = dict(keeper.journal.rows[-1]) if keeper.journal.rows else {}
    if training.validation_loader is not None:
        scores = score(training, machine, folder, console)
        write_text(folder / "validation.json", json.dumps(scores) + "\n")
        metrics |= {"miou": scores["miou"], "pixel_accuracy": scores["pixel_accuracy"]}
        console.print(f"validation of the {origin} weights", highlight=False)
        Console(highlight=False).print(class_table(parse_scores(scores)))
    from torchfpn.report.html import write_report

    write_report(folder)
    console.print(f"{model}  {folder / 'report.html'}", highlight=False, soft_wrap=True)
    unsaved = None if keeper.failure is None else str(keeper.failure)
    return RunResult(folder, metrics, model, unsaved)


def score(training: Training, machine: Machine, folder: Path, console: Console) -> dict[str, Any]:
    """The contents of validation.json; pictures of images all along the split go to samples/."""
    task, loader = training.task.to(machine.accelerator), training.validation_loader
    assert loader is not None
    numbers, apart = count(), max(1, len(loader) // PICTURES)  # neighbours in a split are often frames of one film

    def watch(sample: Sample, labels: Tensor) -> None:
        picture, between = divmod(next(numbers), apart)
        if picture < PICTURES and between == 0:
            name = f"{picture:02d}-{Path(sample.name).stem[:80]}.png"
            write_bytes(folder / "samples" / name, _picture(sample, labels, task))

    (folder / "samples").mkdir(exist_ok=True)
    batches = track(loader, "scoring", console=console, transient=True, disable=not console.is_terminal)
    samples = (Sample(batch.images[0], batch.targets[0], batch.names[0]) for batch in batches)
    precision: Precision = "bf16" if machine.precision == "bf16-mixed" else "fp32"
    return evaluate(task, samples, precision=precision, watch=watch).to_dict(VALIDATE)


def _take(training: Training, console: Console) -> str:
    """Puts the weights to keep into the task; "best" or "last"."""
    keeper, task = training.keeper, training.task
    if training.config.keep == "best" and keeper.best.is_file():
        try:
            fill(task.model, kept_weights(read(keeper.best)), file=keeper.best)
            return f"best (epoch {keeper.best_epoch})"
        except WeightsError as error:
            console.print(f"{error}; the last weights are kept instead", highlight=False, soft_wrap=True)
    if training.averages is not None:
        task.model.load_state_dict(task.model.state_dict() | training.averages.named())
    elif training.position.step == 0:  # nothing was trained in this process
        fill(task.model, kept_weights(read(keeper.last)), file=keeper.last)
    return "last"


def _picture(sample: Sample, labels: Tensor, task: Task) -> bytes:
    recipe = task.recipe
    image, truth = sample.image.numpy(), sample.target.numpy()
    return side_by_side(image, truth, labels.numpy(), recipe.colors, names=recipe.classes, bands=recipe.bands)
