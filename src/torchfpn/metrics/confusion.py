"""Confusion matrices of pixels as tensors, and the checks of predictions and truth before they are counted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfpn.errors import ConfigError, DataError, ShapeError, amount
from torchfpn.metrics.pixel_counts import PixelCounts
from torchfpn.recipe import IGNORE

Pixels = Tensor | np.ndarray  # any integer type
WIDTH = IGNORE + 1  # a pair of bytes is one bin of WIDTH * WIDTH
CHUNK = 2**22  # pixels counted at a time: the bins of a whole raster's pixels would be four times the raster


def pair(labels: Pixels, targets: Pixels, num_classes: int) -> tuple[Tensor, Tensor]:
    """Both as uint8, 0..num_classes-1; both `IGNORE` where the target is, whatever was predicted there.

    Raises:
        ShapeError: shapes differ, or one of them does not hold integers.
        DataError: a target that is no class and not `IGNORE`, or a label that is no class at a pixel with a target.
    """
    predicted, truth = _integers(labels, "labels"), _integers(targets, "targets")
    if predicted.shape != truth.shape:
        raise ShapeError(f"labels {list(predicted.shape)} and targets {list(truth.shape)}", allowed="one shape")
    if not truth.numel():
        return predicted.to(torch.uint8), truth.to(torch.uint8)
    known = truth != IGNORE
    return (
        _classes(predicted.to(truth.device), known, num_classes, "label"),
        _classes(truth, known, num_classes, "target"),
    )


def class_count(num_classes: int) -> int:
    """`num_classes` itself, if labels of that many classes can be told from `IGNORE`.

    Raises:
        ConfigError: otherwise.
    """
    if not 1 <= num_classes <= IGNORE:
        raise ConfigError(f"{num_classes} classes", field="num_classes", allowed=f"1 to {IGNORE}")
    return num_classes


def whole_numbers(values: object, size: int) -> bool:
    """Whether it is a list of that many counts, as JSON gives them."""
    return isinstance(values, list) and len(values) == size and all(type(n) is int and 0 <= n < 2**63 for n in values)


def _integers(values: Pixels, what: str) -> Tensor:
    tensor = torch.as_tensor(values)
    if tensor.is_floating_point() or tensor.is_complex():
        raise ShapeError(f"{what} of {tensor.dtype}", allowed="integers")
    return tensor if tensor.dtype == torch.uint8 else tensor.long()  # torch can do little with the other unsigned ones


def _classes(values: Tensor, known: Tensor, num_classes: int, what: str) -> Tensor:
    """The values where known, as uint8; `IGNORE` elsewhere. Passes over bytes: no indexing by the mask."""
    low, high = (int(v) for v in values.aminmax())
    if low < 0 or high > IGNORE:
        wrong = known & ((values < 0) | (values > IGNORE))
        if wrong.any():
            raise _no_class(values, wrong, num_classes, what)
    small = values.to(torch.uint8).masked_fill(~known, IGNORE)  # wraps only where it is filled
    wrong = known & (small >= num_classes)
    if wrong.any():
        raise _no_class(values, wrong, num_classes, what)
    return small


def _no_class(values: Tensor, wrong: Tensor, num_classes: int, what: str) -> DataError:
    first = values[wrong][0]
    return DataError(
        f"{what} {int(first)} in {int((wrong & (values == first)).sum())} pixels",
        allowed=f"classes 0..{num_classes - 1}; pixels with target {IGNORE} are left out",
    )


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
