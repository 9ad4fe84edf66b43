"""Label files: class values or colors read, names and colors of the values, palette PNGs written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import DataError, amount
from torchfpn.geo.georef import Geo
from torchfpn.geo.window import Window
from torchfpn.io.atomic import atomic_path
from torchfpn.io.formats import LOSSY, MAX_PIXELS, check_size, format_of
from torchfpn.io.images import (
    deep_png,
    is_photograph,
    notes_of,
    palette_of,
    photograph_geo,
    photograph_mask,
    read_image,
    read_indices,
)
from torchfpn.io.rasters import color_table, geo_of, open_raster, pixel_types
from torchfpn.types import Color

_RGB_HINT = (
    "if its colours mean classes, try --palette: give every class its color and write `labels_are: colors` in"
    " dataset.yaml"
)

_EXACT = 2**53  # whole numbers up to here are the same as floats


@dataclass(frozen=True)
class LabelFile:
    """values: [H, W] whole numbers as in the file; colours as 65536 r + 256 g + b. nodata, geo: as the file says.

    valid: [H, W] False where nothing is labelled by the mask of the file, or by a nodata value that is no label (NaN,
    -3.4e38); None: nowhere. A nodata value that may be a label is left to who knows the classes. Of colours: where the
    file is transparent.
    """

    values: NDArray[Any]
    nodata: int | None = None
    geo: Geo | None = None
    valid: NDArray[np.bool_] | None = None


def read_labels(
    path: str | Path,
    *,
    colors: bool = False,
    max_pixels: int = MAX_PIXELS,
    allow_vrt: bool = False,
    root: str | Path | None = None,
    window: Window | None = None,
) -> LabelFile:
    """The labels at `path`: PNG, BMP, GIF (grey, or a palette whose indices count) or TIFF of one band.

    With `colors`, the labels are colours: an RGB image, or the colours of a palette. window: the part to read of a
    TIFF; `geo` stays the whole one's, `max_pixels` is the part's.

    Raises:
        DataError: damaged, too large, several bands where one is expected, values that are no whole numbers, or a
            window of a PNG.
    """
    path = Path(path)
    kind = format_of(path)
    if kind in LOSSY:
        raise DataError(
            f"a {kind.upper()}, which may change the values it stores", file=path, allowed="PNG, BMP, GIF, TIFF"
        )
    if colors:
        picture = read_image(path, max_pixels=max_pixels, allow_vrt=allow_vrt, root=root, window=window)
        return LabelFile(_packed(path, picture.array), None, picture.geo, picture.valid)
    if is_photograph(path, kind):
        if window is not None:
            raise DataError(f"a {kind.upper()}, which is read whole", file=path, allowed="windows of a TIFF or VRT")
        values, transparent = read_indices(path, max_pixels, kind)
        if values.ndim != 2:
            raise _several_bands(path, values.shape[2])
        valid = photograph_mask(path, kind, values.shape, max_pixels)
        return LabelFile(values, transparent, photograph_geo(path, kind, max_pixels), valid)
    with open_raster(path, allow_vrt=allow_vrt, root=root) as source:
        if source.count != 1:
            raise _several_bands(path, source.count)
        height, width = (source.height, source.width) if window is None else Window(*window).size
        check_size(path, (1, height, width), pixel_types(source)[0].itemsize, max_pixels)
        values, valid = label_values(path, source, window)
        return LabelFile(values, label_nodata(source), geo_of(source), valid)


def _several_bands(path: Path, count: int) -> DataError:
    kind = "an RGB mask" if count in (3, 4) else f"a mask of {amount(count, 'band')}"
    return DataError(kind, file=path, allowed="one band of class values", hint=_RGB_HINT)


def _packed(path: Path, array: NDArray[Any]) -> NDArray[np.int32]:
    if array.dtype != np.uint8 or array.shape[0] not in (1, 3):
        raise DataError(
            f"a mask of {array.shape[0]} bands of {array.dtype}", file=path, allowed="8-bit red, green, blue"
        )
    red, green, blue = array.astype(np.int32) if array.shape[0] == 3 else np.repeat(array, 3, 0).astype(np.int32)
    return np.asarray((red << 16) | (green << 8) | blue, dtype=np.int32)


def label_values(
    path: Path, source: Any, window: Window | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """[H, W] whole numbers of an open raster of one band, and where they are labels, see `LabelFile.valid`.

    Raises:
        DataError: a label that is no whole number.
    """
    place = None if window is None else Window(*window).ranges
    values = source.read(1, window=place)
    flags = {flag.name for flag in source.mask_flag_enums[0]}
    if "all_valid" in flags or label_nodata(source) is not None:
        return _whole(path, values), None
    valid = source.read_masks(1, window=place) > 0
    if valid.all():
        return _whole(path, values), None
    return _whole(path, np.where(valid, values, values.dtype.type(0))), valid


def _whole(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Integers; floats are let in if they are whole numbers, as some GIS programs write their masks."""
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.rint(values)).all():
        return values.astype(np.int64)
    raise DataError(
        f"label values of type {values.dtype} that are no whole numbers", file=path, allowed="whole numbers"
    )


def label_nodata(source: Any) -> int | None:
    """The nodata value of an open raster of labels, where that is what GDAL goes by and it may be a label."""
    if {flag.name for flag in source.mask_flag_enums[0]} != {"nodata"} or not abs(source.nodata) <= _EXACT:
        return None
    return int(source.nodata) if float(source.nodata).is_integer() else None


def read_legend(path: str | Path) -> tuple[dict[int, str], dict[int, Color]]:
    """Names and colours of the values, as far as the file tells: our tags or text chunks, colour table, palette.

    Raises:
        DataError: damaged.
    """
    path = Path(path)
    kind = format_of(path)
    if kind == "png":
        notes = notes_of(path, MAX_PIXELS)
        palette = {} if deep_png(path) else dict(enumerate(palette_of(path, MAX_PIXELS)))
        colors = {
            value: color
            for value, text in _values_of_tag(notes, "COLORS").items()
            if (color := _color(text)) is not None
        }
        return _values_of_tag(notes, "CLASSES"), palette or colors
    if is_photograph(path, kind):
        return {}, dict(enumerate(palette_of(path, MAX_PIXELS, kind)))
    with open_raster(path) as source:
        return _values_of_tag(source.tags(), "CLASSES"), color_table(source)


def _values_of_tag(tags: Mapping[str, str], key: str) -> dict[int, str]:
    """Label value -> text of a tag that holds JSON; empty where another program wrote a tag of that name."""
    try:
        return {int(value): str(text) for value, text in json.loads(tags.get(key, "{}")).items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


def _color(text: str) -> Color | None:
    try:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
    except ValueError:
        return None
    return red, green, blue


def read_ignored(path: str | Path) -> int | None:
    """The value that means "not labelled" in a PNG of labels that `label_notes` describe; None where it does not say.

    Raises:
        DataError: damaged, or no PNG.
    """
    text = notes_of(Path(path), MAX_PIXELS).get("IGNORE", "")
    return int(text) if text.isdecimal() and len(text) <= 5 else None


def label_notes(names: Mapping[int, str], colors: Mapping[int, Color], ignored: int | None) -> Any:
    """The text chunks of a label PNG, for Pillow's `pnginfo`: what the tags of a label GeoTIFF say.

    `CLASSES`: JSON, value -> name. `COLORS`: JSON, value -> "#rrggbb". `IGNORE`: the value of what is not labelled.
    """
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    shown = {value: "#{:02x}{:02x}{:02x}".format(*color) for value, color in colors.items()}
    for key, values in (("CLASSES", names), ("COLORS", shown)):
        notes.add_itxt(key, json.dumps(dict(values), ensure_ascii=False))
    if ignored is not None:
        notes.add_text("IGNORE", str(ignored))
    return notes


def write_label_png(path: str | Path, labels: NDArray[Any], colors: Mapping[int, Color] | Sequence[Color] = ()) -> None:
    """A palette PNG of 8 bits whose indices are `labels` [H, W], 0..255; whole or not at all.

    colors: of each value, a sequence counting from 0; values without one are black.

    Raises:
        DataError: labels that need more than 8 bits.
    """
    from PIL import Image

    if labels.ndim != 2 or labels.size == 0 or labels.min() < 0 or labels.max() > 255:
        raise DataError(
            f"labels {labels.dtype} {labels.shape}", file=path, allowed="[H, W] in 0..255", hint="write a GeoTIFF"
        )
    table = dict(colors.items() if isinstance(colors, Mapping) else enumerate(colors))
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
    image.putpalette([part for value in range(256) for part in table.get(value, (0, 0, 0))])
    with atomic_path(path) as part:
        image.save(part, format="PNG", bits=8, optimize=False)
