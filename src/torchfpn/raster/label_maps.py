"""Label files read by windows, values as they stand in the file: a GeoTIFF in bounded memory, a PNG whole."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import ConfigError, DataError
from torchfpn.files.formats import LOSSY, MAX_SIDE, check_sides, format_of, name_key
from torchfpn.files.geo import SAME_GRID, Geo, Window
from torchfpn.files.labels import label_nodata, label_values, read_ignored, read_labels, read_legend
from torchfpn.files.photographs import is_photograph
from torchfpn.files.rasters import Color, geo_of, import_rasterio, open_raster, same_crs
from torchfpn.raster.blocks import plan_blocks

SIDE = 512  # pixels, of a window: that of the blocks of our own label files
KINDS, BESIDE = (".png", ".tif", ".tiff", ".bmp", ".gif"), (".overlay.png", ".probs.tif")
CACHE = 64  # MiB that GDAL may keep of what it reads
NOTHING = -(2**31)  # stands for pixels that the mask of a file takes out, or a nodata value that is no whole number


@dataclass(frozen=True)
class LabelMap:
    """An open label file. size: height and width. read: labels of a window.

    nodata: the value of pixels without a label, `NOTHING` where the file says that by other means; None: all have one.
    names, colors: of the values, as far as the file tells.
    """

    file: Path
    size: tuple[int, int]
    geo: Geo | None
    nodata: int | None
    names: dict[int, str]
    colors: dict[int, Color]
    read: Callable[[Window], NDArray[Any]]

    @property
    def ignored(self) -> set[int]:
        """Not labelled in other files of the same classes either: the nodata of a file that names its classes."""
        return {self.nodata} - self.names.keys() if self.names and self.nodata is not None else set()

    def values(self) -> set[int]:
        """Label values that occur in it, that of pixels without a label left out; all of it is read for that."""
        found = {int(value) for window in self.plan() for value in np.unique(self.read(window))}
        return found - {NOTHING, self.nodata}

    def plan(self) -> list[Window]:
        """Windows that tile the map, in bands from top to bottom."""
        return [block.block for block in plan_blocks(*self.size, side=SIDE, margin=0)]


@contextlib.contextmanager
def open_label_map(path: str | Path, *, allow_vrt: bool = False, max_side: int = MAX_SIDE) -> Iterator[LabelMap]:
    """A label file: PNG, BMP, GIF, or TIFF of one band with whole numbers.

    max_side: height and width of a TIFF, in pixels.

    Raises:
        DataError: not a label file, too large, or damaged; while reading, values that are no whole numbers.
    """
    path = Path(path)
    kind = format_of(path)
    if is_photograph(path, kind):
        labels = read_labels(path)
        names, colors = read_legend(path)
        nodata, values = labels.nodata if kind != "png" else read_ignored(path), labels.values
        if labels.valid is not None:  # a mask beside the file
            nodata = NOTHING if nodata is None else nodata
            values = np.where(labels.valid, values, np.int64(nodata))

        def part(window: Window) -> NDArray[Any]:
            row, column, height, width = window
            return values[row : row + height, column : column + width]

        yield LabelMap(path, _size(values), labels.geo, None if nodata is None else int(nodata), names, colors, part)
        return
    if kind in LOSSY:
        raise DataError(
            f"a {kind.upper()}, which may change the values it stores", file=path, allowed="PNG, BMP, GIF, TIFF"
        )
    names, colors = read_legend(path) if kind != "vrt" else ({}, {})
    ignored = read_ignored(path) if kind == "png" else None
    with import_rasterio().Env(GDAL_CACHEMAX=CACHE), open_raster(path, allow_vrt=allow_vrt) as source:
        if source.count != 1:
            raise DataError(f"{source.count} bands", file=path, allowed="one band of class values")
        check_sides(path, (source.height, source.width), max_side)

        def window(place: Window) -> NDArray[Any]:
            values, valid = label_values(path, source, place)
            return values if valid is None else np.where(valid, values, np.int64(NOTHING))

        size, nodata = (source.height, source.width), label_nodata(source) if ignored is None else ignored
        yield LabelMap(path, size, geo_of(source), NOTHING if nodata is None else nodata, names, colors, window)


def label_folder(folder: Path) -> dict[str, Path]:
    """The label files of a folder by stem, without the other pictures that `fpn predict` writes beside them.

    Raises:
        ConfigError: none, or two with one stem.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if not name.endswith(KINDS) or name.startswith(".") or name.endswith(BESIDE) or not path.is_file():
            continue
        stem = name_key(path.stem)
        if stem in found:
            raise ConfigError(f"two files of one name, {found[stem].name} and {path.name}", file=folder)
        found[stem] = path
    if not found:
        raise ConfigError("no label file found", file=folder, allowed=f"files of {', '.join(KINDS)}")
    return found


class Gridded(Protocol):
    """What has pixels and perhaps a place."""

    @property
    def file(self) -> Path:
        """Where it is."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""

    @property
    def geo(self) -> Geo | None:
        """Where it lies, if it says."""


def check_same_grid(one: Gridded, other: Gridded) -> None:
    """Passes two maps, or a map and an image, of one size and, where both have a place, on one grid (to 0.01 pixels).

    Raises:
        DataError: with both sizes, or both grids.
    """
    if one.size != other.size:
        (h, w), (oh, ow) = one.size, other.size
        raise DataError(f"{w} x {h} pixels, and {ow} x {oh} in {other.file.name}", file=one.file, allowed="one grid")
    if one.geo is None or other.geo is None:
        return
    if one.geo.crs and other.geo.crs and not same_crs(one.geo.crs, other.geo.crs):
        raise DataError(
            f"in another coordinate system than {other.file.name}", file=one.file, hint="reproject one of them"
        )
    apart = other.geo.distance(one.geo, *other.size)
    if not apart <= SAME_GRID:
        raise DataError(
            f"on another grid than {other.file.name}, {apart:.3g} pixels apart: {list(one.geo.transform)} and"
            f" {list(other.geo.transform)}",
            file=one.file,
            allowed=f"at most {SAME_GRID} pixels",
        )


def _size(values: NDArray[Any]) -> tuple[int, int]:
    height, width = values.shape
    return height, width
