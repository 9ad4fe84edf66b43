"""How long, how many, which columns: what follows from the settings and the number of images alone."""

from collections.abc import Sequence
from dataclasses import replace

from torchfpn.config import TrainConfig
from torchfpn.criteria.semantic import parse

FIRST, SECOND, MASKS = ["objectness", "anchors"], ["classes", "boxes"], ["masks"]  # the losses of detectors


def columns(config: TrainConfig, task: str, validated: Sequence[str]) -> list[str]:
    """The columns of metrics.csv. validated: the classes whose scores there will be; none without a validation."""
    if task != "semantic":
        return _of_objects(task == "instance", validated)
    deep = ["deep"] if config.loss.deep_supervision else []
    terms = [f"train/loss_{name}" for name in [*parse(config.loss.terms), *deep]]
    scores = [f"val/iou_{name}" for name in validated]
    validation = ["val/loss", "val/miou", "val/pixel_accuracy", *scores] if validated else []
    return ["epoch", "step", "lr", "train/loss", *terms, *validation]


def best_by(task: str) -> str:
    """The column that says which epoch was the best."""
    return {"semantic": "val/miou", "detection": "val/ap", "instance": "val/mask_ap"}[task]


def _of_objects(masks: bool, validated: Sequence[str]) -> list[str]:
    terms = [f"train/loss_{name}" for name in FIRST + SECOND + (MASKS if masks else [])]
    scores = ["val/ap", "val/ap50", "val/ap75"] + (["val/mask_ap", "val/mask_ap50"] if masks else [])
    validation = [*scores, *(f"val/ap_{name}" for name in validated)] if validated else []
    return ["epoch", "step", "lr", "train/loss", *terms, *validation]


def steps(config: TrainConfig, images: int, per_step: int) -> int:
    """Steps of an epoch: what is asked for, or the whole number nearest to one pass over the images; at least one.

    11 images at 8 a step make one step: each epoch draws other 8 of them.
    """
    wanted = config.steps_per_epoch or max(1, round(images / per_step))
    return count(config.limit_train_batches, wanted)


def count(limit: int | float | None, of: int) -> int:
    """How many of `of` things a limit leaves: a number of them, a share (at least one), or all."""
    if limit is None:
        return of
    return min(limit, of) if isinstance(limit, int) else max(min(1, of), int(limit * of))


def hurried(config: TrainConfig, out: str) -> TrainConfig:
    """The same training in one step and one image, below `out`."""
    return replace(config, out=out, resume=False, max_epochs=1, steps_per_epoch=1, limit_val_batches=1, num_workers=0)
