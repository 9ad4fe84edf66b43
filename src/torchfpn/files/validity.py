"""Which pixels of an image hold data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def valid_pixels(
    array: NDArray[Any], nodata: Sequence[float | None], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_] | None:
    """[H, W] True where `array` [C, H, W] holds data; None when that is everywhere.

    nodata: the value of each band that means "missing". mask: False where a mask band or alpha says so.
    NaN or infinity in any band makes the pixel invalid. So does the nodata value in any band of signed or float data,
    where it lies outside what is measured (-9999). In unsigned data it is mostly 0, which a dark pixel can have in
    one band as well: there the pixel is missing only when every band says so.
    """
    valid = np.ones(array.shape[1:], bool) if mask is None else mask.copy()
    if array.dtype.kind == "f":
        for band in array:
            valid &= np.isfinite(band)
    missing = [_equals(band, value) for band, value in zip(array, nodata, strict=True) if value is not None]
    if array.dtype.kind == "u":
        if missing and len(missing) == len(array):
            valid &= ~np.logical_and.reduce(missing)
    else:
        for gone in missing:
            valid &= ~gone
    return None if valid.all() else valid


def _equals(band: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """Where the band holds `value` as its own type would store it: float32 has no -3.4e38 in double precision."""
    if band.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(band == band.dtype.type(value))
    info = np.iinfo(band.dtype)
    if value != int(value) or not info.min <= value <= info.max:  # -9999 declared on unsigned data: never there
        return np.zeros(band.shape, bool)
    return np.asarray(band == int(value))
