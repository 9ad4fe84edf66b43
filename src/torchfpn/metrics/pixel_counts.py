"""Pixels counted by true and predicted class, and the scores that follow from the counts. NumPy alone, no torch."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNIT = "fraction"  # of every score in JSON and CSV files, 0..1; people are shown percent
Reals = NDArray[np.float64]


def plain(value: float) -> float | None:
    """The number; None where there is nothing to score."""
    return None if math.isnan(value) else value


class PixelCounts:
    """matrix[t, p]: pixels of class t that were predicted as p, int64 [K, K].

    Every score is float64 and NaN where there is nothing to score: a class neither in the truth nor predicted has no
    IoU and is left out of the mean. `ConfusionMatrix` counts tensors and has the same scores.
    """

    def __init__(self, num_classes: int, matrix: NDArray[np.int64] | None = None) -> None:
        self.num_classes = num_classes
        self.matrix = np.zeros((num_classes, num_classes), np.int64) if matrix is None else matrix

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(self.num_classes, self.matrix + other.matrix)

    def iou(self) -> Reals:
        """Intersection over union of each class, [K]."""
        return _ratio(self._hits, self._truth + self._predicted - self._hits)

    def miou(self) -> float:
        """Mean IoU over the classes that occur in the truth or the prediction."""
        known = self.iou()
        known = known[~np.isnan(known)]
        return float(known.mean()) if len(known) else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right."""
        return float(_ratio(np.sum(self._hits), np.sum(self._truth)))

    def precision(self) -> Reals:
        """Share of the pixels predicted as each class that are right, [K]."""
        return _ratio(self._hits, self._predicted)

    def recall(self) -> Reals:
        """Share of the pixels of each class that were found, [K]; also called class accuracy."""
        return _ratio(self._hits, self._truth)

    def f1(self) -> Reals:
        """Harmonic mean of precision and recall, [K]; also called the Dice score."""
        return _ratio(2 * self._hits, self._truth + self._predicted)

    def frequency_weighted_iou(self) -> float:
        """Mean IoU with every class weighing as much as it has pixels in the truth."""
        share = _ratio(self._truth, np.sum(self._truth))
        return float(np.where(share == 0, share, share * self.iou()).sum())

    def to_dict(
        self,
        classes: Sequence[str],
        colors: Sequence[tuple[int, int, int]],
        *,
        images: int,
        split: str,
        boundary_iou: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """Plain values for JSON, as in a run's validation.json; None where there is nothing to score."""
        return {
            "split": split,
            "unit": UNIT,
            "images": images,
            "classes": list(classes),
            "colors": [list(color) for color in colors],
            "miou": plain(self.miou()),
            "pixel_accuracy": plain(self.pixel_accuracy()),
            "iou": [plain(value) for value in self.iou().tolist()],
            "boundary_iou": None if boundary_iou is None else [plain(value) for value in boundary_iou],
            "precision": [plain(value) for value in self.precision().tolist()],
            "recall": [plain(value) for value in self.recall().tolist()],
            "confusion": self.matrix.tolist(),
        }

    @property
    def _hits(self) -> Reals:
        return np.asarray(self.matrix.diagonal(), np.float64)

    @property
    def _truth(self) -> Reals:
        return np.asarray(self.matrix.sum(1), np.float64)

    @property
    def _predicted(self) -> Reals:
        return np.asarray(self.matrix.sum(0), np.float64)


def _ratio(part: "Reals | np.float64", whole: "Reals | np.float64") -> Reals:
    """NaN for 0 / 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(part / whole, np.float64)
