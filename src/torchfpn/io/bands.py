"""Bands of an image by number or name, and which pixels hold data."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import DataError, amount, nearest

Wanted = Sequence[int | str] | None  # None: every band

# B2, B02, B02_10m, SR_B2, S2_B8A, Band 4
_NUMBERED = re.compile(
    r"(?P<sensor>s2|sentinel[ _-]?2|sr)?[ _-]?b(?:and)?[ _-]?"
    r"(?P<zero>0?)(?P<number>[1-9]\d?a?)(?P<side>[ _-][126]0 ?m)?"
)

_UNNAMED = re.compile(r"(band|layer|channel)?[ _-]?0*(\d+)")

_WORDS = {
    "r": "red",
    "g": "green",
    "b": "blue",
    "gray": "grey",
    "nearinfrared": "nir",
    "coastalaerosol": "coastal",
    "panchromatic": "pan",
    "watervapour": "watervapor",
    "nir09": "watervapor",
    "narrownir": "nir08",
    "nirnarrow": "nir08",
    "swir16": "swir1",
    "swir22": "swir2",
    "rededge071": "rededge1",
    "rededge075": "rededge2",
    "rededge078": "rededge3",
}

# What the bands of a number show, from the handbooks of the missions; panchromatic bands have pixels of another size.
_SENTINEL = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "rededge1",
    "6": "rededge2",
    "7": "rededge3",
    "8": "nir",
    "8a": "nir08",
    "9": "watervapor",
    "10": "cirrus",
    "11": "swir1",
    "12": "swir2",
}

_LANDSAT_8 = {"1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir1", "7": "swir2"}
_LANDSAT_7 = {"1": "blue", "2": "green", "3": "red", "4": "nir", "5": "swir1", "7": "swir2"}
_OTHERS = (_LANDSAT_8 | {"9": "cirrus", "10": "tirs1", "11": "tirs2"}, _LANDSAT_7)
Place = tuple[tuple[int, int], tuple[int, int]] | None  # rows and columns, from and to; None: all


def band_numbers(wanted: Wanted, names: Sequence[str], *, file: str | Path | None = None) -> list[int]:
    """Numbers from 1 of the `wanted` bands of a file whose bands are called `names`.

    Raises:
        DataError: a number outside the file, a name it does not have, or has twice.
    """
    if wanted is None:
        return list(range(1, len(names) + 1))
    return [_band_number(band, list(names), file) for band in wanted]


def _band_number(band: int | str, names: list[str], file: str | Path | None) -> int:
    if isinstance(band, int):
        if not 1 <= band <= len(names):
            raise DataError(
                f"has {amount(len(names), 'band')}, band {band} is wanted", file=file, allowed=_listed(names)
            )
        return band
    if names.count(band) == 1:
        return names.index(band) + 1
    if names.count(band) > 1:
        raise DataError(f'several bands are called "{band}"', file=file, hint="choose by number, from 1")
    place = match_bands(names, [band])
    if place is None:
        raise DataError(f'has no band "{band}"', file=file, allowed=_listed(names), hint=nearest(band, names))
    return place[0] + 1


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{i} {name}" for i, name in enumerate(names[:20], start=1))
    return f"it has {shown}" + (" ..." if len(names) > 20 else "")


def match_bands(found: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """The places among `found` of all bands `wanted`, by name; None where a name is missing, twice there, or unclear.

    Numbers and colour words are one band where the numbers tell the sensor, or all sensors that have these numbers
    agree: B02 is blue (Sentinel-2), B2 alone may be blue or green (Landsat 8, Landsat 7).
    """
    keys_of: list[Callable[[str], str]] = [str.casefold, _key, *_translations([*found, *wanted])]
    for key in keys_of:
        keys = [key(name) for name in found]
        if all(keys.count(key(name)) == 1 for name in wanted) and len({key(name) for name in wanted}) == len(wanted):
            return [keys.index(key(name)) for name in wanted]
    return None


def _key(name: str) -> str:
    """The same for all spellings of a name; numbers stay numbers."""
    numbered = _NUMBERED.fullmatch(name.strip().casefold())
    if numbered:
        return f"b{numbered['number']}"
    word = re.sub(r"[\s_-]+", "", name.casefold())
    return _WORDS.get(word, word)


def _translations(names: Sequence[str]) -> "list[_Translation]":
    """The way from numbers to words, if these names leave no doubt of it."""
    numbered = [found for found in (_NUMBERED.fullmatch(name.strip().casefold()) for name in names) if found]
    numbers = {found["number"] for found in numbered}
    tables: tuple[dict[str, str], ...] = (_SENTINEL, *_OTHERS)
    if any(found["zero"] or found["side"] or (found["sensor"] or "").startswith("s2") for found in numbered):
        tables = (_SENTINEL,)
    elif any(found["sensor"] == "sr" for found in numbered):
        tables = _OTHERS
    readings = [{n: table[n] for n in numbers} for table in tables if numbers <= table.keys()]
    if not numbers or not readings or any(reading != readings[0] for reading in readings):
        return []
    return [_Translation(readings[0])]


class _Translation:
    """A name as a colour word, where the number of a band stands for one."""

    def __init__(self, words: dict[str, str]) -> None:
        self.words = words

    def __call__(self, name: str) -> str:
        key = _key(name)
        return self.words.get(key[1:], key) if key.startswith("b") else key


def same_band(one: str, other: str) -> bool:
    """Whether two names are spellings of one band: "B2" and "B02_10m", "Near Infrared" and "nir"."""
    return match_bands([one], [other]) is not None


def is_name(name: str, place: int | None = None) -> bool:
    """Whether a band is called by more than its place or "grey". place: from 1; None: any number is one."""
    counted = _UNNAMED.fullmatch(name.strip().casefold())
    return name.casefold() != "grey" and not (counted and place in (None, int(counted[2])))


def misplaced(found: Sequence[str], told: Sequence[bool], names: Sequence[str]) -> bool:
    """Whether a name that a file tells is that of another place among `names`."""
    return any(
        tells and not same_band(one, own) and any(same_band(one, other) for other in names)
        for one, tells, own in zip(found, told, names, strict=True)
    )


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
    known = [gone for gone in missing if gone is not None]
    if array.dtype.kind == "u":
        if known and len(known) == len(array):
            valid &= ~np.logical_and.reduce(known)
    else:
        for gone in known:
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
    whole = float(value).is_integer()  # not infinity, which a model file may name
    if not whole or not info.min <= value <= info.max:  # -9999 declared on unsigned data: never there
        return np.zeros(band.shape, bool)
    return np.asarray(band == int(value))
