"""Which class was taken for which, counted exactly, and the scores that follow from it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchfpn.errors import DataError, ShapeError, amount
from torchfpn.metrics.pairs import Pixels, class_count, pair, whole_numbers
from torchfpn.metrics.pixel_counts import PixelCounts
from torchfpn.recipe import IGNORE

WIDTH = IGNORE + 1  # a pair of bytes is one bin of WIDTH * WIDTH
CHUNK = 2**22  # pixels counted at a time: the bins of a whole raster's pixels would be four times the raster


class ConfusionMatrix:
    """matrix[t, p]: pixels of class t that were predicted as p, int64 [K, K]; pixels of truth 255 are left out.

    Every score is float64 and NaN where there is nothing to score: a class neither in the truth nor predicted has no
    IoU and is left out of the mean. Oracle: torchmetrics' MulticlassJaccardIndex; a loop over pixels.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = class_count(num_classes)
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, labels: Pixels, targets: Pixels) -> None:
        """Counts the pixels of a prediction of any shape and its truth, both of any integer type.

        Raises:
            ShapeError: the shapes differ or the types are not integers.
            DataError: a truth that is no class and not 255, or a label that is no class at a pixel with a truth.
        """
        predicted, truth = pair(labels, targets, self.num_classes)
        for p, t in zip(_chunks(predicted), _chunks(truth), strict=True):
            bins = (t.int() * WIDTH + p).bincount(minlength=WIDTH**2).view(WIDTH, WIDTH)
            self.matrix += bins[: self.num_classes, : self.num_classes].cpu()  # what lies outside is IGNORE

    def merge(self, other: "ConfusionMatrix") -> None:
        """Adds the counts of another matrix.

        Raises:
            ShapeError: it is of another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ShapeError(
                f"a confusion matrix of {amount(other.num_classes, 'class', 'classes')}", allowed=f"{self.num_classes}"
            )
        self.matrix += other.matrix

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        total = ConfusionMatrix(self.num_classes)
        total.merge(self)
        total.merge(other)
        return total

    def to_dict(self) -> dict[str, Any]:
        """{"confusion": rows of truth}, plain integers."""
        return {"confusion": self.matrix.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ConfusionMatrix":
        """The matrix that `to_dict` wrote; other keys are passed over.

        Raises:
            DataError: not a square of whole numbers >= 0.
        """
        rows = data.get("confusion")
        if not isinstance(rows, list) or not rows or not all(whole_numbers(row, len(rows)) for row in rows):
            raise DataError("no confusion matrix", field="confusion", allowed="a square of whole numbers")
        made = cls(len(rows))
        made.matrix = torch.tensor(rows, dtype=torch.int64)
        return made

    def counts(self) -> PixelCounts:
        """The same counts in NumPy, from which the scores follow."""
        return PixelCounts(self.num_classes, self.matrix.cpu().numpy())

    def iou(self) -> Tensor:
        """Intersection over union of each class, [K]."""
        return torch.from_numpy(self.counts().iou())

    def miou(self) -> float:
        """Mean IoU over the classes that occur in the truth or the prediction."""
        return self.counts().miou()

    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right."""
        return self.counts().pixel_accuracy()

    def precision(self) -> Tensor:
        """Share of the pixels predicted as each class that are right, [K]."""
        return torch.from_numpy(self.counts().precision())

    def recall(self) -> Tensor:
        """Share of the pixels of each class that were found, [K]; also called class accuracy."""
        return torch.from_numpy(self.counts().recall())

    def f1(self) -> Tensor:
        """Harmonic mean of precision and recall, [K]; also called the Dice score."""
        return torch.from_numpy(self.counts().f1())

    def frequency_weighted_iou(self) -> float:
        """Mean IoU with every class weighing as much as it has pixels in the truth."""
        return self.counts().frequency_weighted_iou()


def _chunks(values: Tensor) -> tuple[Tensor, ...]:
    return torch.split(values.flatten(), CHUNK)
