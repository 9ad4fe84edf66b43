"""Label sources: class indices of any window of an image, from label files, rasters around it, or polygons."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchfpn.classes import UNKNOWN, ClassMap
from torchfpn.errors import ConfigError, DataError
from torchfpn.geo import georef
from torchfpn.geo.georef import Geo
from torchfpn.geo.window import Window, plan_blocks
from torchfpn.io.formats import LOSSY, MAX_SIDE, check_sides, format_of, name_key, printable
from torchfpn.io.images import is_photograph
from torchfpn.io.labels import label_nodata, label_values, read_ignored, read_labels, read_legend
from torchfpn.io.rasters import geo_of, import_rasterio, open_raster
from torchfpn.recipe import IGNORE
from torchfpn.sources.label_classes import indices_of_objects
from torchfpn.sources.raster import Grid
from torchfpn.types import Color

if TYPE_CHECKING:
    from torchfpn.vector.objects import Objects


WINDOW = 512  # pixels, of a window: that of the blocks of our own label files
KINDS, BESIDE = (".png", ".tif", ".tiff", ".bmp", ".gif"), (".overlay.png", ".probs.tif")
STRIP = 16 * WINDOW  # pixels, width of the strips that polygons are drawn in
CACHE = 64  # MiB that GDAL may keep of what it reads
NOTHING = -(2**31)  # stands for pixels that the mask of a file takes out, or a nodata value that is no whole number
Read = Callable[[Window], NDArray[np.uint8]]


@dataclass(frozen=True)
class LabelMap:
    """An open label file.

    Attributes:
        size: height and width.
        nodata: the value of pixels without a label, `NOTHING` where the file says that by other means; None: all have
            one.
        names, colors: of the values, as far as the file tells.
        read: labels of a window.
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
        return [block.block for block in plan_blocks(*self.size, side=WINDOW, margin=0)]


@contextlib.contextmanager
def open_label_map(path: str | Path, *, allow_vrt: bool = False, max_side: int = MAX_SIDE) -> Iterator[LabelMap]:
    """A label file: PNG, BMP, GIF, or TIFF of one band with whole numbers.

    Args:
        path: the file.
        allow_vrt: accept VRT files.
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


def label_values_of(files: Iterable[Path], max_side: int = MAX_SIDE) -> set[int]:
    """Label values that occur in the files, which are read for that."""
    found: set[int] = set()
    for path in files:
        with open_label_map(path, max_side=max_side) as labels:
            found |= labels.values()
    return found


class HasGrid(Protocol):
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


def check_same_grid(one: HasGrid, other: HasGrid) -> None:
    """Passes two maps, or a map and an image, of one size and, where both have a place, on one grid (to 0.01 pixels).

    Raises:
        DataError: with both sizes, or both grids.
    """
    if one.size != other.size:
        (h, w), (oh, ow) = one.size, other.size
        raise DataError(f"{w} x {h} pixels, and {ow} x {oh} in {other.file.name}", file=one.file, allowed="one grid")
    georef.check_same_grid(one.geo, other.geo, one.size, file=one.file, name=other.file.name)


def _size(values: NDArray[Any]) -> tuple[int, int]:
    height, width = values.shape
    return height, width


@dataclass
class LabelSource:
    """The truth or the prediction of all images.

    Attributes:
        maps, layers: by the stem of the image, or one for all under "".
        assume_crs, tiles: where images lie that do not say, for polygons.
        max_side: of a label file, in pixels.
        met: polygons of each file that lie on an image.
    """

    maps: dict[str, Path] = field(default_factory=dict)
    layers: "dict[str, Objects]" = field(default_factory=dict)
    assume_crs: str | None = None
    tiles: str | None = None
    max_side: int = MAX_SIDE
    met: Counter[Path] = field(default_factory=Counter)
    _trees: dict[str, Any] = field(default_factory=dict)

    def legend(self) -> tuple[dict[int, str], dict[int, Color]]:
        """Names and colours of the values, as far as the first label file tells."""
        return next((read_legend(path) for path in self.maps.values()), ({}, {}))

    def ignored(self) -> set[int]:
        """Values that mean "not labelled" in all files, as far as the first label file tells."""
        for path in self.maps.values():
            with open_label_map(path, max_side=self.max_side) as held:
                return held.ignored
        return set()

    def values(self) -> set[int]:
        """Label values that occur in the label files; they are read for that."""
        return label_values_of(self.maps.values(), self.max_side)

    @contextlib.contextmanager
    def open(self, image: Grid, classes: ClassMap) -> Iterator[Read]:
        """A function from windows of the image to its labels.

        Raises:
            DataError: there are none for this image, or they do not fit it; RasterError: it has no place on the earth.
        """
        held = self.maps or self.layers
        stem = "" if "" in held else name_key(image.file.stem)
        if stem not in held:
            raise DataError("no labels for it", file=printable(image.file), hint="they need its name, up to the suffix")
        if self.layers:
            yield self._drawn(stem, image, classes)
            return
        with open_label_map(self.maps[stem], max_side=self.max_side) as labels:
            yield _part(labels, image, classes) if _elsewhere(labels, image) else _whole(labels, image, classes)

    def _drawn(self, stem: str, image: Grid, classes: ClassMap) -> Read:
        import shapely  # here, with all that draws polygons: label files are read without rasterio and shapely

        from torchfpn.geo.tiles import tile_geo
        from torchfpn.vector.to_pixels import check_grid, to_pixels

        layer = self.layers[stem]
        if stem not in self._trees:
            self._trees[stem] = shapely.STRtree(layer.shapes)
        geo = image.geo
        if geo is None and self.tiles is not None:
            geo = tile_geo(image.file, self.tiles, image.size)
        geo = check_grid(geo, image.file, self.assume_crs)
        shapes, numbers = to_pixels(layer.shapes, layer.crs, geo, image.size, image.file, tree=self._trees[stem])
        self.met[layer.file] += len(numbers)
        read = drawn_reader(shapes, indices_of_objects(classes, layer)[numbers] + 1, image.size)  # 0 is where none lies
        empty = classes.index.get(0, IGNORE)
        table = np.array([empty, *range(len(classes.values))], np.uint8)
        return lambda window: np.asarray(table[read(window)])


def drawn_reader(
    shapes: NDArray[Any], labels: NDArray[np.int64], size: tuple[int, int]
) -> Callable[[Window], NDArray[Any]]:
    """A function from windows of an image to the labels of the polygons there, 0 where none lies.

    Windows beside each other are cut from a strip that is drawn once.

    Args:
        shapes: [N] valid polygons in pixels of the image.
        labels: [N] their labels from 1.
        size: height and width of the image.
    """
    from torchfpn.vector.rasterize import PixelPolygons, draw

    polygons = PixelPolygons(shapes, np.arange(len(shapes)), labels, shapes[:0], IGNORE, size)
    dtype = np.uint8 if labels.max(initial=0) <= IGNORE else np.uint16
    last: tuple[Window, NDArray[Any]] | None = None

    def read(window: Window) -> NDArray[Any]:
        nonlocal last
        left = window.column - window.column % STRIP
        strip = Window(window.row, left, window.height, min(STRIP, size[1] - left))
        if window.column + window.width > left + strip.width:
            return draw(polygons, window).astype(dtype)
        if last is None or last[0] != strip:
            last = strip, draw(polygons, strip).astype(dtype)
        return last[1][:, window.column - left : window.column - left + window.width]

    return read


def _elsewhere(labels: LabelMap, image: Grid) -> bool:
    """Whether the image is a part of the raster of labels."""
    if labels.geo is None or image.geo is None:
        return False
    return labels.size != image.size or not labels.geo.same_grid(image.geo, image.size)


def _class_indices(labels: LabelMap, window: Window, classes: ClassMap) -> NDArray[np.uint8]:
    """Class indices in a window; `IGNORE` where nothing is labelled.

    Raises:
        DataError: a value that is neither a class nor ignored.
    """
    values = labels.read(window)
    indices = classes.indices(values, labels.nodata)
    if (bad := indices == UNKNOWN).any():
        value = int(values[bad].min())
        raise classes.unknown_value(value, int((values == value).sum()), labels.file)
    return indices.astype(np.uint8)


def _whole(labels: LabelMap, image: Grid, classes: ClassMap) -> Read:
    check_same_grid(labels, image)
    return lambda window: _class_indices(labels, window, classes)


def _part(labels: LabelMap, image: Grid, classes: ClassMap) -> Read:
    """Of a raster with the pixels of the image; beyond its border nothing is labelled."""
    there, here = labels.geo, image.geo
    assert there is not None
    assert here is not None
    if not there.same_crs(here):
        raise DataError("labels in another coordinate system than the image", file=labels.file, hint="reproject them")
    top, left = there.nearest_pixel(here)
    if not there.part(top, left).same_grid(here, image.size):
        found = f"labels on another grid than {printable(image.file)}"
        raise DataError(found, file=labels.file, allowed="pixels that lie on each other, to 0.01 pixels")
    height, width = labels.size

    def read(window: Window) -> NDArray[np.uint8]:
        place = window._replace(row=window.row + top, column=window.column + left)
        result, held = np.full(window.size, IGNORE, np.uint8), place.clipped(height, width)
        if min(held.size) > 0:
            result[held.within(place).slices] = _class_indices(labels, held, classes)
        return result

    return read
