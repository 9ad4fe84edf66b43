"""Minimum, maximum, mean and standard deviation of bands, exact over any number of images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.recipe import LARGEST_VALUE

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Moments of C bands, float64 [C] each.

    Two of them add up to the moments of both without loss of digits (Chan, Golub and LeVeque 1983, formula 2.1).

    Attributes:
        count: pixels counted.
        mean: of each band.
        squares: sums of squared deviations from the mean.
        low: minima.
        high: maxima.
        rounding: sums of squared rounding errors of the values as float32, which models compute in.
        extreme: pixels left out since the magnitude of a value exceeds `LARGEST_VALUE`: models take them for no data,
            and one value of 3e38 among millions would dominate the mean.
    """

    count: int
    mean: Vector
    squares: Vector
    low: Vector
    high: Vector
    rounding: Vector
    extreme: int = 0

    @classmethod
    def of(cls, image: NDArray[Any], valid: NDArray[np.bool_] | None) -> "Moments":
        """Moments of the valid pixels of an image [C, H, W]. valid: [H, W]; None: all."""
        if image.dtype == np.uint8:
            return cls._of_bytes(image, valid)
        values = (image.reshape(len(image), -1) if valid is None else image[:, valid]).astype(np.float64)
        given = values.shape[1]
        values = drop_extreme(values)
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
        """The same for uint8 by histograms, ten times faster."""
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
        """Moments of both."""
        count, extreme = self.count + other.count, self.extreme + other.extreme
        if count == 0:
            return replace(self, extreme=extreme)
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + np.square(step) * (self.count * other.count / count)
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Moments(count, mean, squares, low, high, self.rounding + other.rounding, extreme)

    def float32_warning(self, names: Sequence[str]) -> str | None:
        """A warning that names the bands which lose over a hundredth of their deviation as float32; None if none do."""
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
        """The standard deviation of each band."""
        return np.asarray(np.sqrt(self.squares / max(self.count, 1)))


def drop_extreme(values: NDArray[Any]) -> NDArray[Any]:
    """The pixels among finite values [C, N] without a value whose magnitude exceeds `LARGEST_VALUE`."""
    if not values.size or (values.max() <= LARGEST_VALUE and values.min() >= -LARGEST_VALUE):
        return values
    return values[:, (np.abs(values) <= LARGEST_VALUE).all(0)]
