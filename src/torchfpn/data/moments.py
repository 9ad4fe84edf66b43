"""Minimum, maximum, mean and deviation of bands, exact however many images they are gathered from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.recipe import LARGEST_VALUE

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Of C bands, float64 [C] each; squares: the sum of squared distances from the mean.

    rounding: the sum of the squares of what the values lose as float32, which is what models see. beyond: pixels that
    are not counted, because a value is beyond `LARGEST_VALUE` either way: no model can see it, and one of 3e38 among
    millions would be all of the mean.

    Two of them add up to the moments of both without loss of digits (Chan, Golub and LeVeque 1983, formula 2.1).
    """

    count: int
    mean: Vector
    squares: Vector
    low: Vector
    high: Vector
    rounding: Vector
    beyond: int = 0

    @classmethod
    def of(cls, image: NDArray[Any], valid: NDArray[np.bool_] | None) -> "Moments":
        """Of the valid pixels of an image [C, H, W]."""
        if image.dtype == np.uint8:
            return cls._of_bytes(image, valid)
        values = (image.reshape(len(image), -1) if valid is None else image[:, valid]).astype(np.float64)
        given = values.shape[1]
        values = within(values)
        bands, count = values.shape
        if count == 0:
            none = np.zeros(bands)
            return cls(0, none, none, np.full(bands, np.inf), np.full(bands, -np.inf), none, given)
        mean = values.mean(1)
        squares = np.square(values - mean[:, None]).sum(1)
        rounding = np.zeros(bands)
        if image.dtype.itemsize > 2 and image.dtype != np.float32:
            rounding = np.square(values - values.astype(np.float32)).sum(1)
        return cls(count, mean, squares, values.min(1), values.max(1), rounding, given - count)

    @classmethod
    def _of_bytes(cls, image: NDArray[np.uint8], valid: NDArray[np.bool_] | None) -> "Moments":
        """The same from histograms, ten times faster."""
        bands = image.reshape(len(image), -1) if valid is None else image[:, valid]
        if bands.shape[1] == 0:
            return cls.of(bands[:, :, None].astype(np.float64), None)
        values = np.arange(256.0)
        counts = np.stack([np.bincount(band, minlength=256) for band in bands])
        mean = counts @ values / bands.shape[1]
        squares = (counts * np.square(values - mean[:, None])).sum(1)
        low, high = (counts > 0).argmax(1), 255 - (counts[:, ::-1] > 0).argmax(1)
        none = np.zeros(len(bands))
        return cls(bands.shape[1], mean, squares, low.astype(np.float64), high.astype(np.float64), none)

    def __add__(self, other: "Moments") -> "Moments":
        """Of both."""
        count, beyond = self.count + other.count, self.beyond + other.beyond
        if count == 0:
            return replace(self, beyond=beyond)
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + np.square(step) * (self.count * other.count / count)
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Moments(count, mean, squares, low, high, self.rounding + other.rounding, beyond)

    def coarse(self, names: Sequence[str]) -> str | None:
        """Which bands lose more than a hundredth of their deviation as float32, in words; None: none does.

        names: of the bands.
        """
        found = np.flatnonzero((self.rounding > 1e-4 * self.squares) & (self.high > self.low))
        if not self.count or not len(found):
            return None
        shown = ", ".join(
            f"{names[i]} ({self.low[i]:.10g} to {self.high[i]:.10g}, deviation {self.std[i]:.3g})" for i in found[:3]
        )
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        which = "band" if len(found) == 1 else "bands"
        return f"float32, which models compute in, is too coarse for the {which} {shown}{more}; subtract an offset"

    @property
    def std(self) -> Vector:
        """The standard deviation of the pixels counted."""
        return np.asarray(np.sqrt(self.squares / max(self.count, 1)))


def within(values: NDArray[Any]) -> NDArray[Any]:
    """The pixels of finite values [C, N] that hold nothing beyond `LARGEST_VALUE`, as models take them."""
    if not values.size or (values.max() <= LARGEST_VALUE and values.min() >= -LARGEST_VALUE):
        return values
    return values[:, (np.abs(values) <= LARGEST_VALUE).all(0)]
