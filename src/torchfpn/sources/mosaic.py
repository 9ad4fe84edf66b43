"""Mosaics: rasters on one grid, and folders of XYZ tiles, read as one raster.

Nothing is resampled: the files have one coordinate system and pixel size, and lie whole pixels apart. Where files
overlap, the first lies on top.
"""

import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import ConfigError, DataError, RasterError, amount
from torchfpn.geo.georef import Geo
from torchfpn.geo.tiles import tile_geo
from torchfpn.geo.window import Window
from torchfpn.io.bands import match_bands
from torchfpn.io.formats import SUFFIXES, WINDOWED, check_sides, format_of
from torchfpn.io.images import Picture, check_upright
from torchfpn.io.rasters import geo_of, no_place, open_raster
from torchfpn.sources.raster import ReadOptions, digest, read_files

KEPT = 32  # photographs that stay decoded: neighbours are read again for the margin
PATTERN = "{z}/{x}/{y}"


@dataclass(frozen=True)
class Part:
    """A file in the raster: its upper left pixel and its size. windowed: it can be read in parts."""

    file: Path
    row: int
    column: int
    height: int
    width: int
    windowed: bool = True


@dataclass(frozen=True)
class Mosaic:
    """A raster of files. See `torchfpn.sources.raster.Scene`."""

    name: Path
    parts: tuple[Part, ...]
    geo: Geo | None
    reading: ReadOptions = field(default_factory=ReadOptions)
    ties: None = None

    @property
    def height(self) -> int:
        """Pixels."""
        return max(part.row + part.height for part in self.parts)

    @property
    def width(self) -> int:
        """Pixels."""
        return max(part.column + part.width for part in self.parts)

    def read(self, window: Window) -> Picture:
        """A window of it, not valid where no file lies."""
        row, column, rows, columns = window
        boxes = self._boxes
        met = (boxes[:, 0] < row + rows) & (boxes[:, 2] > row) & (boxes[:, 1] < column + columns)
        numbers = np.flatnonzero(met & (boxes[:, 3] > column))
        array: NDArray[Any] | None = None
        first = self._first
        valid = np.zeros((rows, columns), bool)
        for number in numbers[::-1]:  # the first comes last, on top
            part = self.parts[number]
            picture, place = self._cut(part, window)
            if array is None:
                array = np.zeros((len(picture.array), rows, columns), picture.array.dtype)
            picture = self._like_first(part, picture)
            here = slice(None), *place
            if picture.valid is None:
                array[here], valid[place] = picture.array, True
            else:
                array[here] = np.where(picture.valid, picture.array, array[here])
                valid[place] |= picture.valid
        if array is None:
            array = np.zeros((len(first.band_names), rows, columns), first.dtype)
        return replace(first, array=array, valid=None if valid.all() else valid, nodata=None, geo=self.geo)

    def header(self) -> Picture:
        """See `Scene`; every TIFF or VRT is opened for it."""
        for part in self.parts:
            if part.windowed:
                self._like_first(part, self.reading.bands_of(part.file))
        return self._first

    def grounds(self, side: int) -> set[tuple[int, int]]:
        """The squares that a file reaches into."""
        found: set[tuple[int, int]] = set()
        for part in self.parts:
            rows = range(part.row // side, (part.row + part.height - 1) // side + 1)
            columns = range(part.column // side, (part.column + part.width - 1) // side + 1)
            found.update((row, column) for row in rows for column in columns)
        return found

    def facts(self) -> list[Any]:
        """Number of files, what they are and where each lies, size in pixels, place of the whole."""
        files = [file for part in self.parts for file in read_files(part.file)]
        place = self.geo and [self.geo.crs, *self.geo.transform]
        return [len(self.parts), digest(files, self._boxes.tolist()), self.height, self.width, place]

    @functools.cached_property
    def _boxes(self) -> NDArray[np.int64]:
        """[N, 4]: first row and column, and those after the last."""
        corners = [(p.row, p.column, p.row + p.height, p.column + p.width) for p in self.parts]
        return np.array(corners, np.int64)

    @functools.cached_property
    def _first(self) -> Picture:
        """The first file without its pixels, for its bands and type."""
        part = self.parts[0]
        picture = self.reading.bands_of(part.file) if part.windowed else self._whole(part.file)
        return replace(picture, array=picture.array[:, :0, :0], valid=None)

    @functools.cached_property
    def _whole(self) -> Any:
        """Reads photographs, and keeps the last ones; one thread at a time, so that none is decoded twice."""
        lock, read = threading.Lock(), functools.lru_cache(KEPT)(self.reading.whole)

        def locked(file: Path) -> Picture:
            with lock:
                return read(file)

        return locked

    def _cut(self, part: Part, window: Window) -> tuple[Picture, tuple[slice, slice]]:
        """What lies in the window of one file, and its rows and columns there."""
        row, column, rows, columns = window
        top, left = max(row, part.row), max(column, part.column)
        bottom, right = min(row + rows, part.row + part.height), min(column + columns, part.column + part.width)
        inner = Window(top - part.row, left - part.column, bottom - top, right - left)
        place = slice(top - row, bottom - row), slice(left - column, right - column)
        if part.windowed:
            return self.reading.part(part.file, inner), place
        picture = self._whole(part.file)
        if picture.size != (part.height, part.width):
            found = f"{picture.size[1]} x {picture.size[0]} pixels"
            raise DataError(found, file=part.file, allowed=f"{part.width} x {part.height}, as when it was listed")
        valid = None if picture.valid is None else picture.valid[inner.slices]
        return replace(picture, array=picture.array[:, *inner.slices], valid=valid), place

    def _like_first(self, part: Part, picture: Picture) -> Picture:
        """The picture, its bands in the order of the first file where both files tell their names."""
        first = self._first
        if len(picture.band_names) != len(first.band_names):
            raise DataError(
                f"has {amount(len(picture.band_names), 'band')} ({', '.join(picture.band_names[:12])})",
                file=part.file,
                allowed=f"{len(first.band_names)} as in {self.parts[0].file.name}",
            )
        if picture.dtype != first.dtype:
            allowed = f"{first.dtype} as in {self.parts[0].file.name}"
            raise DataError(f"pixels of type {picture.dtype}", file=part.file, allowed=allowed)
        if self.reading.bands or not (any(first.told) and any(picture.told)):
            return picture
        order = match_bands(picture.band_names, first.band_names)
        if order is None and all(first.told) and all(picture.told):
            raise DataError(
                f"names its bands {', '.join(picture.band_names[:12])}",
                file=part.file,
                allowed=f"{', '.join(first.band_names[:12])} as in {self.parts[0].file.name}",
                hint="name them with --bands",
            )
        return picture if order is None else replace(picture, array=picture.array[order])


def open_mosaic(name: Path, files: Sequence[Path], reading: ReadOptions) -> Mosaic:
    """Files that say where they lie, or whose paths do, as one raster.

    Args:
        name: for messages.
        files: the first lies on top.
        reading: how the files are read.

    Raises:
        DataError: a file that cannot be read, or a raster larger than `reading.max_side`. RasterError: one without a
            place, or not on the grid of the first.
    """
    seen = [_look(file, reading) for file in files]
    first = seen[0][1]
    placed = []
    for file, (size, geo, windowed) in zip(files, seen, strict=True):
        row, column = first.nearest_pixel(geo)
        if bool(geo.crs) != bool(first.crs) or not first.part(row, column).same_grid(geo, size):
            raise RasterError(
                "on another grid",
                file=file,
                allowed=f"the coordinate system and pixel size of {files[0].name}, whole pixels from it",
                hint="predict it by itself, or resample it (gdalwarp -tap)",
            )
        placed.append(Part(file, row, column, *size, windowed))
    top, left = min(part.row for part in placed), min(part.column for part in placed)
    parts = tuple(replace(part, row=part.row - top, column=part.column - left) for part in placed)
    mosaic = Mosaic(name, parts, first.part(top, left), reading)
    check_sides(name, (mosaic.height, mosaic.width), reading.max_side)
    return mosaic


def _look(file: Path, reading: ReadOptions) -> tuple[tuple[int, int], Geo, bool]:
    """Height and width, place, and whether it can be read in parts; no pixel is read."""
    windowed = format_of(file) in WINDOWED
    check_upright(file)
    with open_raster(file, allow_vrt=reading.allow_vrt) as source:
        size, geo = (source.height, source.width), geo_of(source)
    geo = reading.place(geo, file, size)
    if geo is None:
        hint = "give the pattern of their names with --tiles, or predict them one by one"
        raise no_place(file, "no georeference, so no location in the mosaic", hint)
    return size, geo, windowed


def is_tile_map(folder: Path) -> bool:
    """Whether a folder holds tiles as z/x/y and no images of its own."""
    if not folder.is_dir() or any(_is_image(child) for child in folder.iterdir()):
        return False
    return next(_tiles(folder), None) is not None


def open_tiles(folder: Path, reading: ReadOptions) -> Mosaic:
    """The tiles of a folder as one raster in web Mercator, in the order of columns and rows.

    Raises:
        ConfigError: several zooms. DataError: two tiles of one place, a tile that is no image, or a raster larger than
            `reading.max_side`.
    """
    files, found = list_tiles(folder), dict[tuple[int, int], Path]()
    zooms = sorted({int(file.parent.parent.name) for file in files})
    if len(zooms) > 1:
        what = f"tiles of the zooms {', '.join(map(str, zooms))}"
        raise ConfigError(what, file=folder, allowed="one", hint="move the others away")
    for file in files:
        place = int(file.parent.name), int(file.stem)
        if (other := found.setdefault(place, file)) != file:
            raise DataError(f"lies where {other.name} lies", file=file, hint="remove one of them")
    places = sorted(found)
    first = found[places[0]]
    with open_raster(first, allow_vrt=reading.allow_vrt) as source:
        height, width = source.height, source.width
    left, top = min(x for x, _ in places), min(y for _, y in places)
    parts = tuple(
        Part(found[x, y], (y - top) * height, (x - left) * width, height, width, format_of(found[x, y]) in WINDOWED)
        for x, y in places
    )
    corner = Path(str(zooms[0]), str(left), f"{top}.png")
    mosaic = Mosaic(folder, parts, tile_geo(corner, PATTERN, (height, width)), reading)
    check_sides(folder, (mosaic.height, mosaic.width), reading.max_side)
    return mosaic


def list_tiles(folder: Path) -> list[Path]:
    """The tiles of a folder, by zoom, column and row."""
    return list(_tiles(folder))


def tile_name(file: Path) -> Path:
    """Where the answer of a tile lies below its folder."""
    return Path(file.parent.parent.name, file.parent.name, f"{file.stem}.png")


def _tiles(folder: Path) -> Iterator[Path]:
    for zoom in _numbered(folder):
        for column in _numbered(zoom):
            yield from sorted(child for child in column.iterdir() if _is_image(child) and _is_number(child.stem))


def _numbered(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if _is_number(child.name) and child.is_dir())


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) <= 10


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
