"""Raster sources: a file read window by window, what identifies it, and its thumbnail."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import ConfigError, DataError
from torchfpn.geo.georef import Geo, Ties, world_file
from torchfpn.geo.window import Window
from torchfpn.io.bands import Wanted, band_numbers, raster_valid
from torchfpn.io.formats import MAX_SIDE, check_sides, format_of, printable
from torchfpn.io.images import Picture, is_photograph, read_bands, read_image
from torchfpn.io.rasters import (
    block_bytes,
    check_blocks,
    check_vrt,
    color_table,
    geo_of,
    import_rasterio,
    open_raster,
    ties_of,
)

RGB = ("red", "green", "blue")
CACHE = 64  # MiB that GDAL may keep of what it reads


@dataclass(frozen=True)
class ReadOptions:
    """How files are read.

    Attributes:
        bands: names or numbers from 1, None: all.
        assume_crs: well-known text for files with a transform and no coordinate system.
        tiles: how paths of files without a georeference end (`geo.tiles`).
        model_tiles: how they may end.
        max_side: height and width of a raster that is read by windows, in pixels.
    """

    bands: tuple[int | str, ...] | None = None
    assume_crs: str | None = None
    tiles: str | None = None
    model_tiles: str | None = None
    allow_vrt: bool = False
    max_pixels: int = 2**24
    max_side: int = MAX_SIDE

    def whole(self, file: Path) -> Picture:
        """All of a file.

        Raises:
            DataError: damaged, too large, or without these bands.
        """
        return read_image(file, bands=self._wanted, max_pixels=self.max_pixels, allow_vrt=self.allow_vrt)

    def part(self, file: Path, window: Window) -> Picture:
        """A window of a TIFF or VRT; its place is that of the whole file.

        Raises:
            DataError: damaged, a photograph, or without these bands.
        """
        limit = max(self.max_pixels, window[2] * window[3])
        return read_image(file, bands=self._wanted, max_pixels=limit, allow_vrt=self.allow_vrt, window=window)

    def bands_of(self, file: Path) -> Picture:
        """What a TIFF or VRT says of its bands, as a picture without pixels; nothing is decoded.

        Raises:
            DataError: damaged, or without these bands.
        """
        return read_bands(file, bands=self._wanted, allow_vrt=self.allow_vrt)

    def place(self, geo: Geo | None, file: Path, size: tuple[int, int]) -> Geo | None:
        """Where a file lies, by what it says of itself or else by what is said here.

        Args:
            geo: the georeference of the image or map.
            file: the file, for messages.
            size: height and width.
        """
        if geo is None and (self.tiles is not None or self.model_tiles is not None):
            return self._tile(file, size)
        if geo is not None and geo.crs is None and self.assume_crs is not None:
            return replace(geo, crs=self.assume_crs)
        return geo

    def _tile(self, file: Path, size: tuple[int, int]) -> Geo | None:
        from torchfpn.geo.tiles import is_tile, tile_geo

        if self.tiles is not None:
            return tile_geo(file, self.tiles, size)
        return tile_geo(file, self.model_tiles, size) if self.model_tiles and is_tile(file, self.model_tiles) else None

    @property
    def _wanted(self) -> list[int | str] | None:
        return list(self.bands) if self.bands else None


class RasterSource(Protocol):
    """A raster."""

    @property
    def name(self) -> Path:
        """For messages."""
        ...

    @property
    def height(self) -> int:
        """Pixels."""
        ...

    @property
    def width(self) -> int:
        """Pixels."""
        ...

    @property
    def geo(self) -> Geo | None:
        """Where it lies, if it says."""
        ...

    @property
    def ties(self) -> Ties | None:
        """Where it lies without a transform, if it says."""
        ...

    def read(self, window: Window) -> Picture:
        """A window of it, not valid where nothing lies. Safe in threads.

        Raises:
            DataError: a file of it is damaged, or not like the others.
        """
        ...

    def header(self) -> Picture:
        """Its bands and the type of its pixels, as a picture without pixels.

        Raises:
            DataError: a file of it is damaged, or not like the others.
        """
        ...

    def grounds(self, side: int) -> set[tuple[int, int]] | None:
        """Which squares of `side` pixels hold anything, as (row, column) of squares; None: all of them."""
        ...

    def facts(self) -> list[Any]:
        """Plain values that change when the scene does."""
        ...


@dataclass(frozen=True)
class RasterFile:
    """A TIFF, VRT or JPEG 2000. ties: where it lies without a transform."""

    name: Path
    height: int
    width: int
    geo: Geo | None
    reading: ReadOptions = field(default_factory=ReadOptions)
    ties: Ties | None = None

    def read(self, window: Window) -> Picture:
        """See `RasterSource`."""
        return self.reading.part(self.name, window)

    def header(self) -> Picture:
        """See `RasterSource`."""
        return self.reading.bands_of(self.name)

    def grounds(self, side: int) -> None:
        """All."""

    def facts(self) -> list[Any]:
        """Stamp, size in pixels, place, digest of all files that are read."""
        place = self.geo and [self.geo.crs, *self.geo.transform]  # of a tile it follows from the folder
        return [*stamp(self.name), self.height, self.width, place, digest(read_files(self.name))]


def open_raster_file(file: Path, reading: ReadOptions) -> RasterFile:
    """A TIFF or VRT as a scene; no pixel is read.

    Raises:
        DataError: no raster, one whose blocks are too large to be decoded, or one that is larger than `max_side`.
    """
    with open_raster(file, allow_vrt=reading.allow_vrt) as source:
        if source.driver == "GTiff":  # the blocks of a VRT are no blocks of its files
            check_blocks(source.block_shapes[0], block_bytes(source), file)
        size = (source.height, source.width)
        check_sides(file, size, reading.max_side)
        return RasterFile(file, *size, reading.place(geo_of(source), file, size), reading, ties_of(source))


def stamp(file: Path) -> list[Any]:
    """Name, bytes, time of the last change and number (inode) of a file; of one that is gone, the name.

    A file stays the same whatever its folder is called, and however the path to it is written.
    """
    try:
        status = file.stat()
    except OSError:
        return [file.name]
    return [file.name, status.st_size, status.st_mtime_ns, status.st_ino]


def read_files(file: Path) -> list[Path]:
    """A source and the other files that may be read for it, whether they are there or not.

    These are the sources of a VRT, and beside each of them a world file, metadata, a mask and overviews.
    """
    parts = [file]
    with contextlib.suppress(DataError, OSError):  # what is wrong with it is said when it is opened
        parts += check_vrt(file, file.parent) if format_of(file) == "vrt" else []
    beside = (".aux.xml", ".msk", ".ovr")
    return [
        each
        for part in parts
        for each in (part, world_file(part) or part, *(part.with_name(f"{part.name}{ending}") for ending in beside))
    ]


def check_unchanged(before: Sequence[Any], after: Sequence[Any], name: Path) -> None:
    """Passes a source whose stamps, or facts, are those from before it was read.

    Raises:
        DataError: it was overwritten meanwhile, so an answer would be of two sources.
    """
    if list(before) != list(after):
        raise DataError(
            "changed while it was predicted",
            file=name,
            allowed="a source that stays as it is",
            hint="predict it again, with --overwrite",
        )


def digest(files: Sequence[Path], *more: Any) -> str:
    """Of the stamps of many files, and of more plain values."""
    return hashlib.sha256(json.dumps([[stamp(file) for file in files], *more]).encode()).hexdigest()


@dataclass(frozen=True)
class Sampling:
    """Which pixels are looked at: every `step`-th of a part of an image. part: row, column, height, width."""

    part: Window
    step: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is seen."""
        return -(-self.part[2] // self.step), -(-self.part[3] // self.step)

    def inside(self, window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int]:
        """Rows and columns, counted in the window, of the pixels that are looked at, and the place of the first."""
        rows, top = self._along(window[0] - self.part[0], window[2], self.part[2])
        columns, left = self._along(window[1] - self.part[1], window[3], self.part[3])
        return rows, columns, top, left

    def _along(self, start: int, length: int, whole: int) -> tuple[NDArray[np.int64], int]:
        """The middle of every step; of the last one what there is."""
        places = np.minimum(np.arange(0, whole, self.step) + self.step // 2, whole - 1)
        here = np.flatnonzero((places >= start) & (places < start + length))
        return places[here] - start, int(here[0]) if len(here) else 0


@dataclass(frozen=True)
class Grid:
    """Size (height, width) and place of an image file."""

    file: Path
    size: tuple[int, int]
    geo: Geo | None


@dataclass(frozen=True)
class Thumbnail:
    """An image, or a part of it, at a reduced size.

    Attributes:
        array: [C, h, w], NaN where a float image has no data.
        valid: [h, w].
        names: of the bands.
    """

    array: NDArray[Any]
    valid: NDArray[np.bool_]
    names: tuple[str, ...]


def grid_of(file: Path, *, allow_vrt: bool = False, max_side: int = MAX_SIDE) -> Grid:
    """Of an image; a photograph is read for that, since it may have to be turned.

    Raises:
        DataError: no image, damaged, or a raster with more than `max_side` pixels a side.
    """
    if is_photograph(file, format_of(file)):
        picture = read_image(file)
        return Grid(file, picture.size, picture.geo)
    with open_raster(file, allow_vrt=allow_vrt) as source:
        check_sides(file, (source.height, source.width), max_side)
        return Grid(file, (source.height, source.width), geo_of(source))


def sampling(grid: Grid, largest: int, part: Window | None = None) -> Sampling:
    """The whole image, or `part` of it, at no more than `largest` pixels a side.

    Raises:
        ConfigError: a part that is not inside the image.
    """
    height, width = grid.size
    part = Window(0, 0, height, width) if part is None else Window(*part)
    row, column, rows, columns = part
    if min(rows, columns) < 1 or not part.fits(height, width):
        found = f"{row},{column},{rows},{columns} of an image of {height} rows and {width} columns"
        raise ConfigError(
            found, file=printable(grid.file), field="--window", allowed="row,column,height,width inside it"
        )
    return Sampling(part, max(1, -(-max(rows, columns) // largest)))


def thumbnail(file: Path, look: Sampling, *, bands: Wanted = None, allow_vrt: bool = False) -> Thumbnail:
    """The pixels of an image; of rasters the mean of those in between, by their overviews where there are some.

    Args:
        file: the file, for messages.
        look: the part and the sampling.
        bands: one or three, by number from 1 or by name; None: red, green and blue, else the first three.
        allow_vrt: accept VRT files.

    Raises:
        DataError: damaged, or without these bands.
    """
    row, column, height, width = look.part
    if is_photograph(file, format_of(file)):
        picture = read_image(file, bands=bands)
        rows, columns, _, _ = look.inside(look.part)
        here = np.ix_(rows + row, columns + column)
        valid = np.ones(look.size, bool) if picture.valid is None else picture.valid[here]
        return Thumbnail(picture.array[:, here[0], here[1]], valid, picture.band_names)
    held = read_image(file, window=Window(row, column, 1, 1), allow_vrt=allow_vrt)  # what its bands are called
    with import_rasterio().Env(GDAL_CACHEMAX=CACHE), open_raster(file, allow_vrt=allow_vrt) as source:
        place = ((row, row + height), (column, column + width))
        if color_table(source):
            return _painted(source, place, look.size)
        numbers, names = _chosen(file, held.band_names, held.alpha, bands)
        how = (
            import_rasterio().enums.Resampling.average if look.step > 1 else import_rasterio().enums.Resampling.nearest
        )
        array = source.read(numbers, window=place, out_shape=(len(numbers), *look.size), resampling=how)
        held_valid = raster_valid(source, numbers, array, alpha=held.alpha, place=place)
    return Thumbnail(array, np.ones(look.size, bool) if held_valid is None else held_valid, names)


def _chosen(file: Path, names: tuple[str, ...], alpha: int | None, wanted: Wanted) -> tuple[list[int], tuple[str, ...]]:
    """Numbers in the file, from 1, and names of the bands to be shown."""
    if wanted is None:
        lower = [name.lower() for name in names]
        true = all(lower.count(color) == 1 for color in RGB)
        wanted = [lower.index(color) + 1 for color in RGB] if true else list(range(1, min(3, len(names)) + 1))
    numbers = band_numbers(wanted, names, file=file)
    real = [n + 1 if alpha is not None and n >= alpha else n for n in numbers]
    return real, tuple(names[n - 1] for n in numbers)


def _painted(source: Any, place: tuple[tuple[int, int], tuple[int, int]], size: tuple[int, int]) -> Thumbnail:
    """A raster of indices in the colours of its table."""
    indices = source.read(1, window=place, out_shape=size)
    table = np.zeros((3, np.iinfo(indices.dtype).max + 1), np.uint8)
    for index, color in color_table(source).items():
        table[:, index] = color
    valid = raster_valid(source, [1], indices[None], place=place)
    return Thumbnail(table[:, indices], np.ones(size, bool) if valid is None else valid, RGB)
