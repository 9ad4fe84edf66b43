"""PNG, JPEG, WebP, BMP and GIF through Pillow, with every colour model turned into plain bands of 8 bits.

| in the file              | bands             | valid                     |
| ------------------------ | ----------------- | ------------------------- |
| grey, 16-bit grey        | grey              | everywhere                |
| 1 bit                    | grey, 0 or 255    | everywhere                |
| grey + alpha             | grey              | where alpha > 0           |
| palette                  | red, green, blue  | where not transparent     |
| RGB, YCbCr, CMYK         | red, green, blue  | everywhere                |
| RGB + alpha              | red, green, blue  | where alpha > 0           |

A mask beside the file (a.png.msk) counts as well.
The EXIF orientation of a file is applied, so that the picture is upright; this holds for images and labels alike.
"""

import struct
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import DataError
from torchfpn.files.formats import MAX_PIXELS, WINDOWED, check_size, format_of
from torchfpn.files.geo import Geo, metadata_file, read_world_file, world_file
from torchfpn.files.quiet import quiet
from torchfpn.files.rasters import NO_TRANSFORM, geo_of, open_raster, read_projection
from torchfpn.files.side_files import mask_file
from torchfpn.files.validity import raster_valid

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # PNG colour type to values per pixel
_PLAIN = {"1": "L", "P": "RGB", "PA": "RGBA", "CMYK": "RGB"}  # what Pillow turns each colour model into
_ORIENTATION = 0x0112  # EXIF tag
_NAMES = {1: ("grey",), 3: ("red", "green", "blue")}

T = TypeVar("T")
SEVERAL = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")  # may hold several pictures
Decoded = tuple[NDArray[Any], NDArray[np.bool_] | None, tuple[str, ...]]


def is_photograph(path: Path, kind: str) -> bool:
    """Whether a file of the format `kind` is read by Pillow, always whole; the others are read by GDAL."""
    return kind not in WINDOWED and not (kind == "png" and deep_png(path))


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
        told = None if metadata is None else _told_by_gdal(path)
        if told is not None and (geo is None or told.crs is not None):
            geo = told if told.transform != NO_TRANSFORM or geo is None else replace(geo, crs=told.crs)
        if geo is not None and geo.crs is None:
            geo = replace(geo, crs=read_projection(path))
    file = world or metadata
    if geo is not None and file is not None:
        _refuse_turned(path, kind, max_pixels, f"placed by {file.name}", "the world file" if world else file.name)
    return geo


def _told_by_gdal(path: Path) -> Geo | None:
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


def _refuse_turned(path: Path, kind: str, max_pixels: int, what: str, other: str) -> None:
    if _open(path, kind, max_pixels, lambda image: image.getexif().get(_ORIENTATION, 1), decoded=False) > 1:
        hint = f"save the picture without its EXIF orientation, or remove {other}"
        raise DataError(f"turned by its EXIF orientation, and {what}", file=path, hint=hint)


def check_upright(path: Path) -> None:
    """Passes files whose stored grid is that of the picture, for those who ask GDAL, which does not turn pictures.

    Raises:
        DataError: a photograph that its EXIF data turns and that a world file places; see `photograph_geo`.
    """
    kind = format_of(path)
    if is_photograph(path, kind):
        photograph_geo(path, kind, MAX_PIXELS)


def deep_png(path: Path) -> bool:
    """Whether a PNG has 16 bits for each of several values, which Pillow would cut to 8."""
    with path.open("rb") as handle:
        head = handle.read(26)
    return len(head) == 26 and head[24] == 16 and _SAMPLES.get(head[25], 1) > 1


def read_photograph(path: Path, kind: str, max_pixels: int) -> Decoded:
    """Bands [C, H, W], the valid pixels [H, W] (None: all) and the names of the bands of a photograph.

    Raises:
        DataError: damaged, or larger than `max_pixels`.
    """
    array, valid, names = _open(path, kind, max_pixels, _bands)
    mask = photograph_mask(path, kind, array.shape[1:], max_pixels)
    if mask is not None:
        valid = mask if valid is None else mask & valid
    return array, valid, names


def read_indices(path: Path, max_pixels: int, kind: str = "png") -> tuple[NDArray[Any], int | None]:
    """[H, W] of a PNG, BMP or GIF as it stands: of a palette the index, one bit as 0 and 1. Colours: [H, W, C].

    And the value that alone is transparent, which GDAL takes for the nodata value of a PNG; None: there is none.
    """

    def stored(image: Any) -> tuple[NDArray[Any], int | None]:
        return np.array(image).astype(np.uint16 if "I" in image.mode else np.uint8), _transparent(image)

    return _open(path, kind, max_pixels, stored)


def _transparent(image: Any) -> int | None:
    """The one grey value, or the one index of a palette, that is fully transparent while no other is in part."""
    told = image.info.get("transparency")
    if isinstance(told, bytes):
        return told.index(0) if told.count(0) == 1 and set(told) <= {0, 255} else None
    return told if isinstance(told, int) else None


def palette_of(path: Path, max_pixels: int, kind: str = "png") -> list[tuple[int, int, int]]:
    """Red, green, blue of each index of a picture with a palette; empty for others."""

    def colors(image: Any) -> list[tuple[int, int, int]]:
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


def swaps_sides(path: Path, kind: str) -> bool:
    """Whether the EXIF orientation of a PNG or JPEG lays it on its side, so that height and width change places."""
    try:
        with quiet(UserWarning), _plugin(kind)(path) as image:
            return image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, LookupError, TypeError, ArithmeticError):
        return False


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
