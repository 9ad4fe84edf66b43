"""The score of the weights as they are: loss and confusion matrix over the validation images, one forward pass each."""

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from torchfpn.errors import NotFiniteError
from torchfpn.metrics.confusion import ConfusionMatrix
from torchfpn.tasks.finite import check_logits
from torchfpn.tasks.task import Task
from torchfpn.types import IGNORE, Batch, Semantic

log = logging.getLogger(__name__)


class Validation:
    """One round over the validation images, batch by batch.

    reduce: sums a tensor over the processes that train together.
    """

    def __init__(self, task: Task, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        self.task, self.reduce = task, reduce
        self.confusion = ConfusionMatrix(len(task.classes))
        self.loss, self.images, self.told = 0.0, 0, False

    def step(self, batch: Batch) -> list[Semantic]:
        """Takes in one batch and gives its results; the task is in eval mode and on the device of the batch."""
        task = self.task
        images, valid = task.normalize(batch.images)
        raw = task.model(images)
        try:
            check_logits(raw, valid, [(name, None) for name in batch.names])
        except NotFiniteError as error:  # the weights of an epoch may be bad and those of a later one good
            self._tell(error)
        targets = torch.where(valid, batch.targets, IGNORE)
        losses = task.criterion(raw, targets)
        labelled = int((targets != IGNORE).flatten(1).any(1).sum())  # an image without a label has no loss, and not 0
        self.loss += float(torch.stack(list(losses.values())).sum()) * labelled
        self.images += labelled
        results: list[Semantic] = task.postprocess(raw, batch.sizes, valid)
        for result, target, (height, width) in zip(results, targets, batch.sizes, strict=True):
            self.confusion.update(result.labels, target[:height, :width])
        return results

    def _tell(self, error: NotFiniteError) -> None:
        """A warning about the first image; there may be as many as there are images."""
        if not self.told:
            log.warning("%s", error)
        self.told = True

    def row(self) -> dict[str, float]:
        """The columns of metrics.csv; NaN for a class that occurs neither in truth nor in prediction."""
        sums = self.reduce(torch.tensor([self.loss, self.images], dtype=torch.float64))
        self.confusion.matrix = self.reduce(self.confusion.matrix)
        ious = zip(self.task.classes, self.confusion.iou().tolist(), strict=True)
        return {
            "val/loss": float(sums[0] / sums[1]) if sums[1] else math.nan,
            "val/miou": self.confusion.miou(),
            "val/pixel_accuracy": self.confusion.pixel_accuracy(),
            **{f"val/iou_{name}": iou for name, iou in ious},
        }
