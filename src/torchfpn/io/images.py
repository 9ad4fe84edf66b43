"""Images, or windows of them, as arrays with a mask of valid pixels: Pillow for photographs, GDAL for rasters."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import DataError, amount
from torchfpn.geo.georef import Geo, Ties, metadata_file, read_world_file, world_file
from torchfpn.geo.window import Window
from torchfpn.io.bands import Wanted, band_numbers, is_name, misplaced, raster_valid, valid_pixels
from torchfpn.io.formats import MAX_PIXELS, WINDOWED, check_size, format_of
from torchfpn.io.rasters import (
    NO_TRANSFORM,
    color_table,
    geo_of,
    never_written,
    open_raster,
    pixel_types,
    read_projection,
    ties_of,
)
from torchfpn.io.side_files import mask_file
from torchfpn.printing import quiet
from torchfpn.types import Color

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # PNG colour type to values per pixel
_PLAIN = {"1": "L", "P": "RGB", "PA": "RGBA", "CMYK": "RGB"}  # what Pillow turns each colour model into
_ORIENTATION = 0x0112  # EXIF tag
_NAMES = {1: ("grey",), 3: ("red", "green", "blue")}
T = TypeVar("T")
SEVERAL = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")  # may hold several pictures
Decoded = tuple[NDArray[Any], NDArray[np.bool_] | None, tuple[str, ...]]


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


def _extent(source: Any, window: Window | None) -> tuple[int, int]:
    """(height, width) of what is read."""
    return (source.height, source.width) if window is None else Window(*window).size


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


def is_photograph(path: Path, kind: str) -> bool:
    """Whether a file of the format `kind` is read by Pillow, always whole; the others are read by GDAL."""
    return kind not in WINDOWED and not (kind == "png" and deep_png(path))


def deep_png(path: Path) -> bool:
    """Whether a PNG has 16 bits for each of several values, which Pillow would cut to 8."""
    with path.open("rb") as handle:
        head = handle.read(26)
    return len(head) == 26 and head[24] == 16 and _SAMPLES.get(head[25], 1) > 1


def read_photograph(path: Path, kind: str, max_pixels: int) -> Decoded:
    """Bands [C, H, W], the valid pixels [H, W] (None: all) and the names of the bands of a PNG, JPEG, WebP, BMP or GIF.

    | in the file              | bands             | valid                     |
    | ------------------------ | ----------------- | ------------------------- |
    | grey, 16-bit grey        | grey              | everywhere                |
    | 1 bit                    | grey, 0 or 255    | everywhere                |
    | grey + alpha             | grey              | where alpha > 0           |
    | palette                  | red, green, blue  | where not transparent     |
    | RGB, YCbCr, CMYK         | red, green, blue  | everywhere                |
    | RGB + alpha              | red, green, blue  | where alpha > 0           |

    A mask beside the file (a.png.msk) counts as well. The EXIF orientation of a file is applied, to labels as to
    images, so that the picture is upright.

    Raises:
        DataError: damaged, or larger than `max_pixels`.
    """
    array, valid, names = _open(path, kind, max_pixels, _bands)
    mask = photograph_mask(path, kind, array.shape[1:], max_pixels)
    if mask is not None:
        valid = mask if valid is None else mask & valid
    return array, valid, names


def _bands(image: Any) -> Decoded:
    image = _plain(image)
    array, valid = np.array(image), None
    if image.mode in ("LA", "RGBA"):
        alpha, array = array[..., -1] > 0, array[..., :-1]
        valid = None if alpha.all() else alpha
    if array.ndim == 2:
        array = array[..., None]
    return np.ascontiguousarray(array.transpose(2, 0, 1)), valid, _NAMES[array.shape[2]]


def _plain(image: Any) -> Any:
    """Grey or red, green, blue, each with or without alpha."""
    if "transparency" in image.info and image.mode in ("L", "RGB", "P"):  # one colour, or some of a palette
        return image.convert("LA" if image.mode == "L" else "RGBA")
    return image.convert(_PLAIN[image.mode]) if image.mode in _PLAIN else image


def read_indices(path: Path, max_pixels: int, kind: str = "png") -> tuple[NDArray[Any], int | None]:
    """[H, W] of a PNG, BMP or GIF as it stands: of a palette the index, one bit as 0 and 1. Colours: [H, W, C].

    And the value that alone is transparent, which GDAL takes for the nodata value of a PNG; None: there is none.
    """

    def stored(image: Any) -> tuple[NDArray[Any], int | None]:
        return np.array(image).astype(np.uint16 if "I" in image.mode else np.uint8), _transparent(image)

    return _open(path, kind, max_pixels, stored)


def _transparent(image: Any) -> int | None:
    """The one grey value, or the one index of a palette, that is fully transparent while no other is in part."""
    alpha = image.info.get("transparency")
    if isinstance(alpha, bytes):
        return alpha.index(0) if alpha.count(0) == 1 and set(alpha) <= {0, 255} else None
    return alpha if isinstance(alpha, int) else None


def palette_of(path: Path, max_pixels: int, kind: str = "png") -> list[Color]:
    """Red, green, blue of each index of a picture with a palette; empty for others."""

    def colors(image: Any) -> list[Color]:
        values = (image.getpalette("RGB") or []) if image.mode == "P" else []
        return list(zip(values[::3], values[1::3], values[2::3], strict=True))

    return _open(path, kind, max_pixels, colors)


def notes_of(path: Path, max_pixels: int) -> dict[str, str]:
    """The text chunks of a PNG by keyword: those before its pixels, which are not decoded."""
    return _open(
        path,
        "png",
        max_pixels,
        lambda image: {key: str(value) for key, value in image.info.items() if isinstance(value, str)},
        decoded=False,
    )


def frame_count(path: Path) -> int:
    """The number of pictures in a PNG (APNG) or JPEG (MPO), of which the first is read; 1 of damaged files."""

    def count(image: Any) -> int:
        if "mp" in image.info:  # a table of several JPEG pictures in one file
            from PIL.MpoImagePlugin import MpoImageFile

            with MpoImageFile(path) as held:
                return int(held.n_frames)
        return int(getattr(image, "n_frames", 1))

    try:
        kind = format_of(path)
        return max(1, _open(path, kind, MAX_PIXELS, count, decoded=False)) if kind in ("png", "jpeg") else 1
    except DataError:
        return 1


def photograph_geo(path: Path, kind: str, max_pixels: int) -> Geo | None:
    """Where a photograph lies, by its world file and the .prj beside it, or by GDAL's side file (a.jpg.aux.xml).

    Where rasterio is not installed, the world file alone is read.

    Raises:
        DataError: a damaged world file or .prj, or one beside a picture that its EXIF data turns: of which of the two
            pictures it speaks is unknown.
    """
    world, metadata = world_file(path), metadata_file(path)
    geo = None if world is None else read_world_file(world)
    if find_spec("rasterio") is not None:
        side = None if metadata is None else _gdal_geo(path)
        if side is not None and (geo is None or side.crs is not None):
            geo = side if side.transform != NO_TRANSFORM or geo is None else replace(geo, crs=side.crs)
        if geo is not None and geo.crs is None:
            geo = replace(geo, crs=read_projection(path))
    file = world or metadata
    if geo is not None and file is not None:
        _refuse_turned(path, kind, max_pixels, f"placed by {file.name}", "the world file" if world else file.name)
    return geo


def _gdal_geo(path: Path) -> Geo | None:
    """Where a photograph lies as GDAL's side file says; None without a transform."""
    with open_raster(path) as source:
        geo = geo_of(source)
    return None if geo is None or (geo.transform == NO_TRANSFORM and world_file(path) is None) else geo


def photograph_mask(path: Path, kind: str, size: tuple[int, int], max_pixels: int) -> NDArray[np.bool_] | None:
    """[H, W] False where the mask beside a photograph (a.jpg.msk) hides it, as GDAL has it; None: nowhere.

    size: height and width of the picture.

    Raises:
        RasterError: a damaged mask, or rasterio is not installed. DataError: one beside a picture that its EXIF data
            turns.
    """
    file = mask_file(path)
    if file is None:
        return None
    _refuse_turned(path, kind, max_pixels, f"masked by {file.name}", file.name)
    with open_raster(path) as source:
        return raster_valid(source, [1], np.zeros((1, *size), np.uint8))


def check_upright(path: Path) -> None:
    """Passes files whose stored grid is that of the picture, for those who ask GDAL, which does not turn pictures.

    Raises:
        DataError: a photograph that its EXIF data turns and that a world file places; see `photograph_geo`.
    """
    kind = format_of(path)
    if is_photograph(path, kind):
        photograph_geo(path, kind, MAX_PIXELS)


def _refuse_turned(path: Path, kind: str, max_pixels: int, what: str, other: str) -> None:
    if _open(path, kind, max_pixels, lambda image: image.getexif().get(_ORIENTATION, 1), decoded=False) > 1:
        hint = f"save the picture without its EXIF orientation, or remove {other}"
        raise DataError(f"turned by its EXIF orientation, and {what}", file=path, hint=hint)


def swaps_sides(path: Path, kind: str) -> bool:
    """Whether the EXIF orientation of a PNG or JPEG lays it on its side, so that height and width change places."""
    try:
        with quiet(UserWarning), _plugin(kind)(path) as image:
            return image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, LookupError, TypeError, ArithmeticError):
        return False


def _open(path: Path, kind: str, max_pixels: int, read: Callable[[Any], T], *, decoded: bool = True) -> T:
    """`read` of the upright picture, every failure of the decoder told as a damaged file.

    decoded: False: its head alone.
    """
    try:
        with quiet(UserWarning):  # damaged EXIF data takes nothing from the picture
            opened = _plugin(kind)(path)
        with opened as image:
            check_size(path, (len(image.getbands()), image.height, image.width), 1, max_pixels)
            if kind in ("gif", "webp") and (frames := getattr(image, "n_frames", 1)) > 1:
                hint = "save the frame that is wanted as a PNG"
                raise DataError(f"an animation of {frames} frames", file=path, allowed="one picture", hint=hint)
            return read(_upright(image) if decoded else image)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError("does not fit into memory", file=path) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, LookupError, TypeError, ArithmeticError) as error:
        # Pillow's decoders fail in all these ways on a damaged file, each of them meaning the same to the user
        raise DataError(f"damaged or cut off ({error})", file=path, hint="copy it again") from error


def _upright(image: Any) -> Any:
    """Turned as its EXIF orientation says."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    image.load()
    with quiet(UserWarning):
        turn = turns.get(image.getexif().get(_ORIENTATION))
    return image if turn is None else image.transpose(turn)


def _plugin(kind: str) -> Any:
    """The plugin itself, not Image.open: that one guesses the format and has a size limit of its own, fixed in code."""
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    return {
        "png": PngImagePlugin.PngImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "gif": GifImagePlugin.GifImageFile,
    }[kind]
