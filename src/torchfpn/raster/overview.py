"""An image for looking at: a part of it or all, three bands, no more pixels than asked for, in bounded memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import ConfigError
from torchfpn.files.bands import Wanted, band_numbers
from torchfpn.files.formats import MAX_SIDE, check_sides, format_of, printable
from torchfpn.files.geo import Geo, Window
from torchfpn.files.images import read_image
from torchfpn.files.photographs import is_photograph
from torchfpn.files.rasters import color_table, geo_of, import_rasterio, open_raster
from torchfpn.files.validity import raster_valid

RGB = ("red", "green", "blue")
CACHE = 64  # MiB that GDAL may keep of what it reads


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
class View:
    """array: [C, h, w], NaN where a float image has no data. valid: [h, w]. names: of the bands."""

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


def view(file: Path, look: Sampling, *, bands: Wanted = None, allow_vrt: bool = False) -> View:
    """The pixels of an image; of rasters the mean of those in between, by their overviews where there are some.

    bands: one or three, by number from 1 or by name; None: red, green and blue, else the first three.

    Raises:
        DataError: damaged, or without these bands.
    """
    row, column, height, width = look.part
    if is_photograph(file, format_of(file)):
        picture = read_image(file, bands=bands)
        rows, columns, _, _ = look.inside(look.part)
        here = np.ix_(rows + row, columns + column)
        valid = np.ones(look.size, bool) if picture.valid is None else picture.valid[here]
        return View(picture.array[:, here[0], here[1]], valid, picture.band_names)
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
    return View(array, np.ones(look.size, bool) if held_valid is None else held_valid, names)


def _chosen(file: Path, names: tuple[str, ...], alpha: int | None, wanted: Wanted) -> tuple[list[int], tuple[str, ...]]:
    """Numbers in the file, from 1, and names of the bands to be shown."""
    if wanted is None:
        lower = [name.lower() for name in names]
        true = all(lower.count(color) == 1 for color in RGB)
        wanted = [lower.index(color) + 1 for color in RGB] if true else list(range(1, min(3, len(names)) + 1))
    numbers = band_numbers(wanted, names, file=file)
    real = [n + 1 if alpha is not None and n >= alpha else n for n in numbers]
    return real, tuple(names[n - 1] for n in numbers)


def _painted(source: Any, place: tuple[tuple[int, int], tuple[int, int]], size: tuple[int, int]) -> View:
    """A raster of indices in the colours of its table."""
    indices = source.read(1, window=place, out_shape=size)
    table = np.zeros((3, np.iinfo(indices.dtype).max + 1), np.uint8)
    for index, color in color_table(source).items():
        table[:, index] = color
    valid = raster_valid(source, [1], indices[None], place=place)
    return View(table[:, indices], np.ones(size, bool) if valid is None else valid, RGB)
