"""After the last step: the kept weights are scored on the validation images, saved, shown and reported."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from torchfpn.errors import WeightsError
from torchfpn.files.atomic import write_bytes, write_text
from torchfpn.metrics.boundary import BoundaryIoU
from torchfpn.report.pictures import side_by_side
from torchfpn.tasks.storage import fill
from torchfpn.tasks.task import Task
from torchfpn.train.build import VALIDATE, Parts
from torchfpn.train.checkpoints import STATE, read
from torchfpn.train.machine import Machine
from torchfpn.train.module import Training
from torchfpn.train.validation import Validation
from torchfpn.types import Batch

MODEL, SAMPLES = "model.safetensors", 8


def kept_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The model's tensors in a checkpoint: the averages where there are any, else the weights."""
    prefix = "task.model."
    tensors = {n.removeprefix(prefix): t for n, t in checkpoint["state_dict"].items() if n.startswith(prefix)}
    ema = checkpoint[STATE]["ema"]
    return tensors | (ema["averages"] if ema is not None else {})


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
    """Puts the kept weights into the task and leaves model.safetensors, validation.json, samples/ and report.html."""
    keeper, task = training.keeper, parts.task
    origin = _take(training, console)
    model = folder / MODEL
    task.eval().save(model)
    metrics = dict(keeper.journal.rows[-1]) if keeper.journal.rows else {}
    if parts.validate is not None:
        scores = score(task, training, machine, folder)
        write_text(folder / "validation.json", json.dumps(scores) + "\n")
        metrics |= {"miou": scores["miou"], "pixel_accuracy": scores["pixel_accuracy"]}
        console.print(f"validation of the {origin} weights", highlight=False)
        Console().print(_table(scores))
    from torchfpn.report.html import write_report

    write_report(folder)
    console.print(f"{model}  {folder / 'report.html'}", highlight=False, soft_wrap=True)
    unsaved = None if keeper.failure is None else str(keeper.failure)
    return RunResult(folder, metrics, model, unsaved)


def score(task: Task, training: Training, machine: Machine, folder: Path) -> dict[str, Any]:
    """The contents of validation.json; pictures of the first images go to samples/."""
    loader, recipe = training.validation_loader, task.recipe
    assert loader is not None
    validation, boundary = Validation(task), BoundaryIoU(len(task.classes))
    (folder / "samples").mkdir(exist_ok=True)
    device = torch.device(machine.accelerator)
    task.to(device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=machine.precision != "32-true"):
        for number, batch in enumerate(loader):
            (result,) = validation.step(batch.to(device))
            truth = batch.targets[0]
            boundary.update(result.labels.cpu(), truth)
            if number < SAMPLES:
                name = f"{number:02d}-{Path(batch.names[0]).stem[:80]}.png"
                _picture(folder / "samples" / name, batch, result.labels.cpu(), task)
    confusion = validation.confusion
    return {
        "split": VALIDATE,
        "classes": list(recipe.classes),
        "colors": [list(color) for color in recipe.colors],
        **confusion.to_dict(),
        "iou": _plain(confusion.iou()),
        "miou": confusion.miou(),
        "pixel_accuracy": confusion.pixel_accuracy(),
        "boundary_iou": _plain(boundary.iou()),
    }


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


def _picture(path: Path, batch: Batch, labels: Tensor, task: Task) -> None:
    recipe = task.recipe
    picture = side_by_side(
        batch.images[0].numpy(),
        batch.targets[0].numpy(),
        labels.numpy(),
        recipe.colors,
        names=recipe.classes,
        bands=recipe.bands,
    )
    write_bytes(path, picture)


def _table(scores: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("class", "IoU", "boundary IoU", "pixels"):
        table.add_column(column, justify="left" if column == "class" else "right")
    pixels = [sum(row) for row in scores["confusion"]]
    for row in zip(scores["classes"], scores["iou"], scores["boundary_iou"], pixels, strict=True):
        table.add_row(row[0], _shown(row[1]), _shown(row[2]), f"{row[3]:,}")
    table.add_row("mean", _shown(scores["miou"]), "", f"accuracy {scores['pixel_accuracy']:.4f}")
    return table


def _plain(values: Tensor) -> list[float | None]:
    """Numbers for JSON, which knows no NaN."""
    return [None if math.isnan(value) else value for value in values.tolist()]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
