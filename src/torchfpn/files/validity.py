"""Which pixels of an image hold data: GDAL's own masks of a raster, and a value that the caller calls missing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Place = tuple[tuple[int, int], tuple[int, int]] | None  # rows and columns, from and to; None: all


def valid_pixels(
    array: NDArray[Any], nodata: Sequence[float | None], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_] | None:
    """[H, W] True where `array` [C, H, W] holds data; None when that is everywhere.

    nodata: the value of each band that means "missing". mask: False where a mask band or alpha says so.
    NaN or infinity in any band makes the pixel invalid. So does the nodata value in any band of signed or float data,
    where it lies outside what is measured (-9999). In unsigned data it is mostly 0, which a dark pixel can have in
    one band as well: there the pixel is missing only when every band says so.
    """
    missing = [None if value is None else _equals(band, value) for band, value in zip(array, nodata, strict=True)]
    return _valid(array, missing, mask)


def raster_valid(
    source: Any,
    numbers: Sequence[int],
    array: NDArray[Any],
    *,
    nodata: float | None = None,
    alpha: int | None = None,
    place: Place = None,
) -> NDArray[np.bool_] | None:
    """[H, W] True where the bands `numbers` of an open raster hold data, by GDAL's masks; None when that is everywhere.

    GDAL knows what the file says: nodata values (compared as the type of the file stores them), a mask band, inside
    or beside the file. The masks of several bands are combined as in `valid_pixels`.

    Args:
        source: the open rasterio dataset.
        numbers: of the bands, from 1.
        array: [C, H, W], their values at `place`; its size is that of the answer, whatever the size of `place`.
        nodata: the value of missing pixels for bands whose file declares none.
        alpha: the number of a band that is a mask.
        place: the part of the raster.
    """
    size = array.shape[1:]
    mask = None if alpha is None else source.read(alpha, window=place, out_shape=size) > 0
    flags = {flag.name for flag in source.mask_flag_enums[numbers[0] - 1]}
    if "per_dataset" in flags and "alpha" not in flags:
        whole = source.read_masks(numbers[0], window=place, out_shape=size) > 0
        mask = whole if mask is None else mask & whole
    missing = list[NDArray[np.bool_] | None]()
    for number, band in zip(numbers, array, strict=True):
        if {flag.name for flag in source.mask_flag_enums[number - 1]} == {"nodata"}:
            missing.append(source.read_masks(number, window=place, out_shape=size) == 0)
        elif nodata is not None and source.nodatavals[number - 1] is None:
            missing.append(_equals(band, nodata))
        else:
            missing.append(None)
    return _valid(array, missing, mask)


def _valid(
    array: NDArray[Any], missing: Sequence[NDArray[np.bool_] | None], mask: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    valid = np.ones(array.shape[1:], bool) if mask is None else mask.copy()
    if array.dtype.kind == "f":
        for band in array:
            valid &= np.isfinite(band)
    said = [gone for gone in missing if gone is not None]
    if array.dtype.kind == "u":
        if said and len(said) == len(array):
            valid &= ~np.logical_and.reduce(said)
    else:
        for gone in said:
            valid &= ~gone
    return None if valid.all() else valid


def _equals(band: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """Where the band holds `value` as GDAL compares it: as the type of the band stores it, floats to a few last bits.

    The sum of two of the largest floats overflows, so GDAL takes -3.4e38 and -3.4028235e38 for one value. So must we.
    """
    if band.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            held = band.dtype.type(value)
            near = np.abs(band - held) < 2 * np.finfo(band.dtype).eps * np.abs(band + held)
        return np.asarray((band == held) | (near & np.isfinite(band)))
    info = np.iinfo(band.dtype)
    if value != int(value) or not info.min <= value <= info.max:  # -9999 declared on unsigned data: never there
        return np.zeros(band.shape, bool)
    return np.asarray(band == int(value))
