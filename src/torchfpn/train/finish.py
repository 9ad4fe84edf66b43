"""After the last step: the kept weights are scored on the validation images, saved, shown and reported."""

import contextlib
import csv
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchfpn.data.check import TRAIN, VALIDATE
from torchfpn.errors import FPNError, NotFiniteError, WeightsError, WriteError
from torchfpn.files.atomic import write_text
from torchfpn.metrics.plain import plain
from torchfpn.report.console import Console
from torchfpn.tasks.region_task import RegionTask
from torchfpn.tasks.storage import fill
from torchfpn.train.build import Parts
from torchfpn.train.checkpoints import read
from torchfpn.train.machine import Machine
from torchfpn.train.module import Training
from torchfpn.train.resume import kept_weights
from torchfpn.train.scoring import score_objects, score_pixels

MODEL = "model.safetensors"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What came of a training.

    metrics: the last row of metrics.csv, and of the kept weights "miou", "pixel_accuracy", or of objects "ap", "ap50"
    (of masks where there are any), fractions; None where there is nothing to score. model: the
    file of weights.
    unsaved: why the last checkpoint could not be written; None when it was.
    """

    folder: Path
    metrics: dict[str, float | None]
    model: Path
    unsaved: str | None = None


def finish(training: Training, parts: Parts, folder: Path, machine: Machine, console: Console) -> RunResult:
    """Puts the kept weights into the task and leaves model.safetensors, validation.json, samples/ and report.html.

    Raises:
        FPNError: something could not be written; nothing of the training is lost.
    """
    try:
        return _finish(training, parts, folder, machine, console)
    except OSError as error:
        reason = f"{error.file}: {error.reason}" if isinstance(error, WriteError) else str(error)
        raise FPNError(
            f"the results could not be written ({reason})",
            file=folder,
            hint="free disk space, then --resume writes them again",
        ) from error


def _finish(training: Training, parts: Parts, folder: Path, machine: Machine, console: Console) -> RunResult:
    keeper, task = training.keeper, parts.task
    origin = _take(training, console)
    model = folder / MODEL
    task.eval().save(model)
    row = keeper.journal.rows[-1] if keeper.journal.rows else {}
    metrics = {name: plain(value) for name, value in row.items()}
    try:
        metrics |= _score(training, folder, machine, console, origin)
    except NotFiniteError as error:  # the weights are good for other images
        log.warning("no scores of the %s weights: %s", origin, error)
    from torchfpn.report.html import write_report
    from torchfpn.report.run import write_about

    images = {name: len(samples) for name, samples in ((TRAIN, parts.train), (VALIDATE, parts.validate)) if samples}
    parameters = sum(each.numel() for each in task.model.parameters())
    seconds = _seconds(folder / "timing.csv")
    write_about(folder, seconds=seconds, parameters=parameters, images=images, weights=parts.weights)
    write_report(folder)
    console.print(f"{model}  {folder / 'report.html'}", soft_wrap=True)
    unsaved = None if keeper.failure is None else str(keeper.failure)
    return RunResult(folder, metrics, model, unsaved)


def _score(training: Training, folder: Path, machine: Machine, console: Console, origin: str) -> dict[str, Any]:
    """Writes validation.json and prints its table; the few numbers that sum it up, none without a validation split.

    Raises:
        NotFiniteError: the weights give NaN or infinity for an image.
    """
    if training.validation_loader is None:
        return {}
    task = training.task.to(machine.accelerator)
    score = score_objects if isinstance(task, RegionTask) else score_pixels
    with contextlib.closing(training.validation_loader.whole()) as loader:
        scored = score(task, loader, machine, folder, console)
    write_text(folder / "validation.json", json.dumps(scored.values) + "\n")
    console.print(f"validation of the {origin} weights")
    Console().print(scored.table)
    return scored.metrics


def _seconds(timing: Path) -> float:
    """All that training and validation took, over all the processes that took part."""
    if not timing.is_file():
        return 0.0
    with timing.open(newline="", encoding="utf-8") as file:
        return sum(float(row["train_s"]) + float(row["validate_s"]) for row in csv.DictReader(file))


def _take(training: Training, console: Console) -> str:
    """Puts the weights to keep into the task; "best" or "last"."""
    keeper, task = training.keeper, training.task
    if training.config.keep == "best" and keeper.best.is_file():
        try:
            fill(task.model, kept_weights(read(keeper.best)), file=keeper.best)
            return f"best (epoch {keeper.best_epoch})"
        except WeightsError as error:
            console.print(f"{error}; the last weights are kept instead", soft_wrap=True)
    if training.averages is not None:
        task.model.load_state_dict(task.model.state_dict() | training.averages.named())
    elif training.position.step == 0:  # nothing was trained in this process
        fill(task.model, kept_weights(read(keeper.last)), file=keeper.last)
    return "last"
