"""Reading an image, whole or a window of it: any format, pixel type and number of bands, valid pixels and place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import DataError, amount
from torchfpn.files.bands import Wanted, band_numbers, is_name, misplaced
from torchfpn.files.formats import MAX_PIXELS, check_size, format_of
from torchfpn.files.geo import Geo, Ties, Window
from torchfpn.files.photographs import is_photograph, photograph_geo, read_photograph
from torchfpn.files.rasters import Color, color_table, geo_of, never_written, open_raster, pixel_types, ties_of
from torchfpn.files.validity import raster_valid, valid_pixels


@dataclass(frozen=True)
class Picture:
    """An image as its file has it: nothing scaled, nothing clipped.

    array: [C, H, W] in the type of the file. valid: [H, W] False where there is no data; None: everywhere is.
    band_names: of the C bands. dtype: "uint8", "int16", "float32", ... nodata: what the file calls missing.
    geo: where it lies, if it says. alpha: the band that was taken for a mask and left out, counted from 1.
    told: whether the file itself describes each band by a name; colours that GDAL assumes, and numbers, are none.
    ties: where it lies by ground control points or a camera model, without a `geo`.
    """

    array: NDArray[Any]
    valid: NDArray[np.bool_] | None
    band_names: tuple[str, ...]
    dtype: str
    nodata: float | None = None
    geo: Geo | None = None
    alpha: int | None = None
    told: tuple[bool, ...] = ()
    ties: Ties | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.array.shape[1], self.array.shape[2]


def read_image(
    path: str | Path,
    *,
    bands: Wanted = None,
    names: Sequence[str] = (),
    nodata: float | None = None,
    max_pixels: int = MAX_PIXELS,
    allow_vrt: bool = False,
    root: str | Path | None = None,
    window: Window | None = None,
) -> Picture:
    """The image at `path`, or some of its bands.

    JPEG, WebP, BMP, GIF and 8-bit PNG need Pillow only; everything else goes through rasterio. Bands are called by
    `names`, or else by their descriptions in the file, or else red, green, blue as far as the file says so, or else
    band1, band2, ...

    A band the file marks as alpha is a mask, not a band, unless it is described, named or chosen by the caller: GDAL
    marks the fourth band of every 8-bit file as alpha if the writer says nothing, near infrared included.

    Args:
        path: of any format that `format_of` knows, recognised by content.
        bands: numbers from 1 or names, in the order wanted; None: all.
        names: what the caller calls the bands of the file, in their order.
        nodata: the value of missing pixels, where the file does not say.
        max_pixels: height times width that may be read.
        allow_vrt: also read VRTs, over sources below `root`.
        root: see `open_raster`.
        window: the part to read, of a raster; `geo` stays the whole one's, `max_pixels` is the part's.

    Raises:
        DataError: missing, damaged, too large, without the bands wanted, or a window of a photograph.
    """
    path = Path(path)
    kind = format_of(path)
    if is_photograph(path, kind):
        if window is not None:
            raise DataError(f"a {kind.upper()}, which is read whole", file=path, allowed="windows of a TIFF or VRT")
        array, valid, found = read_photograph(path, kind, max_pixels)
        called = _called(path, list(found), names)
        numbers = band_numbers(bands, called, file=path)
        if numbers != list(range(1, len(called) + 1)):
            array = array[[n - 1 for n in numbers]]
        valid = valid_pixels(array, [nodata] * len(numbers), valid) if nodata is not None else valid
        geo = photograph_geo(path, kind, max_pixels)
        return Picture(array, valid, _pick(called, numbers), str(array.dtype), nodata, geo)
    with open_raster(path, allow_vrt=allow_vrt, root=root) as source:
        colors = color_table(source)
        if colors:
            return _read_palette(path, source, colors, bands, names, max_pixels, window)
        return _read_raster(path, source, bands, names, nodata, max_pixels, window)


def read_bands(path: Path, *, bands: Wanted = None, allow_vrt: bool = False) -> Picture:
    """What a TIFF or VRT says of its bands, or of some of them: as a picture without pixels. None is decoded.

    Raises:
        DataError: damaged, or without the bands wanted.
    """
    with open_raster(path, allow_vrt=allow_vrt) as source:
        return raster_bands(path, source, bands)


def raster_bands(path: Path, source: Any, bands: Wanted = None) -> Picture:
    """The same of an open raster.

    Raises:
        DataError: without the bands wanted.
    """
    if color_table(source):
        numbers = band_numbers(bands, ("red", "green", "blue"), file=path)
        names = _pick(["red", "green", "blue"], numbers)
        return Picture(np.zeros((len(names), 0, 0), np.uint8), None, names, "uint8", None, geo_of(source))
    chosen = _choose(path, source, bands, ())
    dtype = _dtype(path, source, chosen.real)
    array = np.zeros((len(chosen.real), 0, 0), dtype)
    return Picture(array, None, chosen.names, str(dtype), None, geo_of(source), chosen.alpha, chosen.told)


@dataclass(frozen=True)
class _Chosen:
    """Bands of a raster. real: their numbers in the file, from 1. names, told, alpha: as of `Picture`."""

    real: list[int]
    names: tuple[str, ...]
    told: tuple[bool, ...]
    alpha: int | None


def _choose(path: Path, source: Any, bands: Wanted, names: Sequence[str]) -> _Chosen:
    alpha = _alpha(source, bands, names)
    places = [i for i in range(1, source.count + 1) if i != alpha]
    all_names = _raster_names(source)
    found = [all_names[i - 1] for i in places]
    described = [source.descriptions[i - 1] or "" for i in places]
    told = [bool(name.strip()) and is_name(name, i) for name, i in zip(described, places, strict=True)]
    called = _called(path, found, names)
    if names and misplaced(found, told, names):
        raise DataError(
            f"names its bands {', '.join(found[:20])}",
            file=path,
            allowed=f"the order of `bands`: {', '.join(names)}",
            hint="give the names in the order of the file, or leave `bands` out and list `use_bands` by name",
        )
    numbers = band_numbers(bands, called, file=path)
    kept = tuple(told[n - 1] for n in numbers)
    return _Chosen([places[n - 1] for n in numbers], _pick(called, numbers), kept, alpha)


def _read_raster(
    path: Path,
    source: Any,
    bands: Wanted,
    names: Sequence[str],
    nodata: float | None,
    max_pixels: int,
    window: Window | None,
) -> Picture:
    chosen = _choose(path, source, bands, names)
    real, alpha = chosen.real, chosen.alpha
    dtype = _dtype(path, source, real)
    check_size(path, (len(real), *_extent(source, window)), dtype.itemsize, max_pixels)
    place = None if window is None else Window(*window).ranges
    array = source.read(real, window=place)
    with np.errstate(invalid="ignore"):  # some NaN complain when they are looked at
        nothing = window is None and not array.any()
    if nothing and never_written(source):
        raise DataError("no pixel was ever written: its writer was stopped", file=path, hint="make it again")
    missing = [nodata if source.nodatavals[n - 1] is None else source.nodatavals[n - 1] for n in real]
    valid = raster_valid(source, real, array, nodata=nodata, alpha=alpha, place=place)
    return Picture(
        array,
        valid,
        chosen.names,
        str(array.dtype),
        missing[0],
        geo_of(source),
        alpha=alpha,
        told=chosen.told,
        ties=ties_of(source),
    )


def _extent(source: Any, window: Window | None) -> tuple[int, int]:
    """(height, width) of what is read."""
    return (source.height, source.width) if window is None else Window(*window).size


def _read_palette(
    path: Path,
    source: Any,
    colors: dict[int, Color],
    bands: Wanted,
    names: Sequence[str],
    max_pixels: int,
    window: Window | None,
) -> Picture:
    """A TIFF with a colour table, as red, green, blue; pixels of its nodata index are invalid."""
    check_size(path, (3, *_extent(source, window)), 1, max_pixels)
    place = None if window is None else Window(*window).ranges
    indices = source.read(1, window=place)
    table = np.zeros((np.iinfo(indices.dtype).max + 1, 3), np.uint8)
    for index, color in colors.items():
        table[index] = color
    called = _called(path, ["red", "green", "blue"], names)
    numbers = band_numbers(bands, called, file=path)
    array = np.ascontiguousarray(table[indices].transpose(2, 0, 1)[[n - 1 for n in numbers]])
    valid = raster_valid(source, [1], indices[None], place=place)
    return Picture(array, valid, _pick(called, numbers), "uint8", geo=geo_of(source), ties=ties_of(source))


def _dtype(path: Path, source: Any, numbers: list[int]) -> np.dtype[Any]:
    """The one type all the bands can be read as; TIFF has one for all, a VRT may have several."""
    types = pixel_types(source)
    dtype = np.result_type(*(types[n - 1] for n in numbers))
    if dtype.kind not in "uif":
        named = sorted({source.dtypes[n - 1] for n in numbers if types[n - 1].kind not in "uif"})
        raise DataError(
            f"pixels of type {', '.join(named)}",
            file=path,
            allowed="whole or floating-point numbers",
            hint="write the amplitude, abs(z), as float32 into a new TIFF",
        )
    return dtype


def _called(path: Path, found: list[str], names: Sequence[str]) -> list[str]:
    """The names of the bands: the caller's, if there are as many as the file has."""
    if names and len(names) != len(found):
        raise DataError(
            f"has {amount(len(found), 'band')} ({', '.join(found[:20])})",
            file=path,
            allowed=f"{amount(len(names), 'band')}: {', '.join(names)}",
        )
    return list(names) or found


def _pick(names: list[str], numbers: list[int]) -> tuple[str, ...]:
    return tuple(names[n - 1] for n in numbers)


def _raster_names(source: Any) -> list[str]:
    """Descriptions; else the colours, if there are all three (GDAL calls any first band grey); else band1, band2..."""
    colors = [c.name for c in source.colorinterp]
    if source.count == 1 and not source.descriptions[0]:
        return ["grey"]
    known = {"red", "green", "blue"} <= set(colors)
    return [
        description or (color if known and color in ("red", "green", "blue", "alpha") else f"band{i}")
        for i, (description, color) in enumerate(zip(source.descriptions, colors, strict=True), start=1)
    ]


def _alpha(source: Any, bands: Wanted, names: Sequence[str]) -> int | None:
    """The number of the band that is a mask, None if there is none or the caller takes it for data."""
    marked = [i for i, c in enumerate(source.colorinterp, start=1) if c.name == "alpha"]
    if len(marked) != 1 or source.count == 1:
        return None
    number = marked[0]
    described = (source.descriptions[number - 1] or "alpha").lower() != "alpha"
    named = len(names) == source.count and names[number - 1].lower() != "alpha"
    chosen = not names and bands is not None and number in bands
    return None if described or named or chosen else number
