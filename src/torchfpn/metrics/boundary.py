"""Boundary IoU: IoU of bands along the outlines, which shows errors that the IoU of large areas hides."""

from collections.abc import Callable, Mapping
from math import hypot
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.metrics.confusion import Pixels, class_count, pair, whole_numbers
from torchfpn.recipe import IGNORE
from torchfpn.types import Size

Pick = Callable[[Tensor, Tensor], Tensor]


class BoundaryIoU:
    """IoU of the inner bands of truth and prediction, per class, counts summed over images.

    The band of a mask is the mask without its erosion by 3x3 ones, d times, where the outside of the image is
    background; d = max(1, round(ratio * diagonal)) pixels. Pixels of truth 255 belong to no class, neither in the truth
    nor in the prediction, and are not counted: what is predicted there changes nothing.
    Source: Cheng et al. 2021, section 4; their code takes the same band.
    """

    def __init__(self, num_classes: int, ratio: float = 0.02) -> None:
        if not 0 < ratio <= 1:
            raise ConfigError(f"ratio {ratio}", field="ratio", allowed="0 < ratio <= 1, of the diagonal")
        self.num_classes, self.ratio = class_count(num_classes), ratio
        self.intersections = torch.zeros(num_classes, dtype=torch.int64)
        self.unions = torch.zeros(num_classes, dtype=torch.int64)

    def update(self, labels: Pixels, targets: Pixels) -> None:
        """Counts the bands of one image, both [H, W] of any integer type.

        Raises:
            ShapeError: not one image each, of one size, of integers.
            DataError: a truth that is no class and not 255, or a label that is no class at a pixel with a truth.
        """
        predicted, truth = pair(labels, targets, self.num_classes)
        if truth.dim() != 2:
            raise ShapeError(f"targets {list(truth.shape)}", allowed="one image [H, W] at a time")
        width = self.width((truth.shape[0], truth.shape[1]))
        self._add(band(truth, width), band(predicted, width))

    def width(self, size: Size) -> int:
        """Of the bands in an image of (height, width) `size`, in pixels."""
        return band_width(size, self.ratio)

    def _add(self, a: Tensor, b: Tensor) -> None:
        """Counts pixels of bands."""
        both = self._count(a.where(a == b, IGNORE))
        self.intersections += both
        self.unions += self._count(a) + self._count(b) - both

    def merge(self, other: "BoundaryIoU") -> None:
        """Adds the counts of another one.

        Raises:
            ShapeError: it is of another number of classes or another ratio.
        """
        if (other.num_classes, other.ratio) != (self.num_classes, self.ratio):
            raise ShapeError(
                f"boundary IoU of {other.num_classes} classes at ratio {other.ratio}",
                allowed=f"{self.num_classes} classes at {self.ratio}",
            )
        self.intersections += other.intersections
        self.unions += other.unions

    def __add__(self, other: "BoundaryIoU") -> "BoundaryIoU":
        total = BoundaryIoU(self.num_classes, self.ratio)
        total.merge(self)
        total.merge(other)
        return total

    def to_dict(self) -> dict[str, Any]:
        """{"ratio": ..., "intersections": [...], "unions": [...]}, plain numbers."""
        return {
            "ratio": self.ratio,
            "intersections": self.intersections.tolist(),
            "unions": self.unions.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "BoundaryIoU":
        """The counts that `to_dict` wrote; other keys are passed over.

        Raises:
            DataError: not two lists of whole numbers, one for each class.
        """
        both, either = data.get("intersections"), data.get("unions")
        size, ratio = len(both) if isinstance(both, list) else 0, data.get("ratio")
        counts = size > 0 and whole_numbers(both, size) and whole_numbers(either, size)
        if not counts or not isinstance(ratio, int | float):
            raise DataError("no boundary counts", allowed="ratio, and for each class its intersections and unions")
        made = cls(size, ratio)
        made.intersections, made.unions = torch.tensor(both), torch.tensor(either)
        return made

    def iou(self) -> Tensor:
        """Boundary IoU of each class, [K] float64; NaN where neither truth nor prediction has it."""
        return self.intersections.double() / self.unions.double()

    def mean(self) -> float:
        """Mean over the classes that occur in the truth or the prediction."""
        return float(self.iou().nanmean())

    def _count(self, values: Tensor) -> Tensor:
        return values.flatten().bincount(minlength=IGNORE + 1)[: self.num_classes].cpu()


class BoundaryStrips:
    """Counts the bands of one image that is given by rows, from above, as `counts.update` would of the whole image.

    Held are the newest rows and as many above them as a band is wide. Rows that are too near to the last one given are
    counted when the rows below them come; of an image that is not given to its end, they are not.

    Args:
        counts: where they are added.
        size: (height, width) of the image.
    """

    def __init__(self, counts: BoundaryIoU, size: Size) -> None:
        self.counts, self.size, self.width = counts, size, counts.width(size)
        self.first = self.done = 0  # rows: the first that is held, how many are counted
        self.predicted = self.truth = torch.zeros(0, size[1], dtype=torch.uint8)

    def add(self, labels: Pixels, targets: Pixels) -> None:
        """The next rows, both [h, width].

        Raises:
            ShapeError, DataError: see `BoundaryIoU.update`.
        """
        predicted, truth = pair(labels, targets, self.counts.num_classes)
        if truth.dim() != 2 or truth.shape[1] != self.size[1]:
            raise ShapeError(f"rows {list(truth.shape)}", allowed=f"[h, {self.size[1]}]")
        self.predicted, self.truth = torch.cat([self.predicted, predicted]), torch.cat([self.truth, truth])
        given = self.first + len(self.truth)
        ready = given if given >= self.size[0] else max(self.done, given - self.width)
        rows = slice(self.done - self.first, ready - self.first)
        self.counts._add(band(self.truth, self.width)[rows], band(self.predicted, self.width)[rows])
        self.done = ready
        drop = max(0, ready - self.width - self.first)
        self.predicted, self.truth, self.first = self.predicted[drop:], self.truth[drop:], self.first + drop


def band(labels: Tensor, width: int, outside: int = IGNORE) -> Tensor:
    """The labels [H, W] where a pixel of another label, or the outside, is within `width`; `outside` elsewhere.

    Within: rows and columns both. All classes at once: a window holds one label alone where its least is its largest.
    outside: no label; `IGNORE` of uint8.
    """
    padded = F.pad(labels, (width,) * 4, value=outside)
    least, most = (sliding(sliding(padded, width, pick, 0), width, pick, 1) for pick in (torch.minimum, torch.maximum))
    return labels.where(least != most, outside)


def band_width(size: Size, ratio: float) -> int:
    """Of the bands in an image of (height, width) `size`, in pixels. ratio: of its diagonal."""
    return max(1, round(ratio * hypot(*size)))


def sliding(values: Tensor, width: int, pick: Pick, dim: int) -> Tensor:
    """`pick` (minimum or maximum) over windows of 2 * width + 1 along `dim`, which gets shorter by 2 * width.

    By doubling: about log2(window) passes over the image instead of one for each pixel of the window.
    """
    window, reach = 2 * width + 1, 1
    while 2 * reach <= window:
        values = _pair(values, reach, pick, dim)
        reach *= 2
    return _pair(values, window - reach, pick, dim)


def _pair(values: Tensor, step: int, pick: Pick, dim: int) -> Tensor:
    size = values.shape[dim] - step
    return pick(values.narrow(dim, 0, size), values.narrow(dim, step, size))
