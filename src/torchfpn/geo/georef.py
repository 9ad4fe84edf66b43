"""Georeferences: pixel coordinates to map coordinates and back.

Where an image lies on the earth (CRS, affine transform) and windows of its pixels, as plain values.
"""

import math
import os.path
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torchfpn.errors import DataError

Affine6 = tuple[float, float, float, float, float, float]

SAME_GRID = 0.01  # pixels; how far apart two grids may lie and still be one


class Window(NamedTuple):
    """A rectangle of pixels, which may reach beyond the image. row, column: its upper left pixel; sizes in pixels."""

    row: int
    column: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns, from and to, as rasterio has a window."""
        return (self.row, self.row + self.height), (self.column, self.column + self.width)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of an array of the whole image; the window must not begin above it or left of it."""
        (top, bottom), (left, right) = self.ranges
        return slice(top, bottom), slice(left, right)

    def fits(self, height: int, width: int) -> bool:
        """Whether it lies within an image of this size."""
        (top, bottom), (left, right) = self.ranges
        return min(top, left) >= 0 and bottom <= height and right <= width

    def padded(self, pixels: int) -> "Window":
        """With so many more pixels on every side."""
        return Window(self.row - pixels, self.column - pixels, self.height + 2 * pixels, self.width + 2 * pixels)

    def clipped(self, height: int, width: int) -> "Window":
        """The part of it within an image of this size."""
        (top, bottom), (left, right) = self.ranges
        top, left = max(0, top), max(0, left)
        return Window(top, left, min(height, bottom) - top, min(width, right) - left)

    def within(self, other: "Window") -> "Window":
        """The same pixels, counted from the upper left pixel of another window."""
        return self._replace(row=self.row - other.row, column=self.column - other.column)


def tile(size: tuple[int, int], side: tuple[int, int], row: int, column: int) -> Window:
    """The tile in that row and column of a tiling.

    Args:
        size: height and width of the image in pixels.
        side: height and width of a tile; those at the right and at the bottom are smaller.
        row: number of the row of tiles, from 0 at the top.
        column: number of the column of tiles, from 0 at the left.
    """
    return Window(row * side[0], column * side[1], *side).clipped(*size)


def tiles(size: tuple[int, int], side: tuple[int, int]) -> list[Window]:
    """All tiles of an image, row by row: see `tile`."""
    rows, columns = (-(-whole // part) for whole, part in zip(size, side, strict=True))
    return [tile(size, side, row, column) for row in range(rows) for column in range(columns)]


@dataclass(frozen=True)
class Geo:
    """crs: well-known text, None where unknown. transform: (a, b, c, d, e, f) of the upper left pixel corners.

    x = a * column + b * row + c and y = d * column + e * row + f; a south-up image has e > 0, a rotated one b, d != 0.
    rpcs: the camera model that the whole image has besides, GDAL's names and texts; outputs on the same grid keep it.
    """

    crs: str | None
    transform: Affine6
    rpcs: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def world(self, column: float, row: float) -> tuple[float, float]:
        """The place of a pixel corner, in units of the coordinate system."""
        a, b, c, d, e, f = self.transform
        return a * column + b * row + c, d * column + e * row + f

    def part(self, row: int, column: int) -> "Geo":
        """The place of a part of the image whose upper left pixel is that one."""
        a, b, _, d, e, _ = self.transform
        x, y = self.world(column, row)
        return Geo(self.crs, (a, b, x, d, e, y))

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """(column, row) of a place; infinite where the transform cannot be inverted."""
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        if det == 0:
            return float("inf"), float("inf")
        return (e * (x - c) - b * (y - f)) / det, (a * (y - f) - d * (x - c)) / det

    def distance(self, other: "Geo", height: int, width: int) -> float:
        """How far apart the same pixel lies on the two grids, in pixels of this one: the worst of the four corners."""
        worst = 0.0
        for column, row in ((0, 0), (width, 0), (0, height), (width, height)):
            c, r = self.pixel(*other.world(column, row))
            worst = max(worst, abs(c - column), abs(r - row))
        return worst


@dataclass(frozen=True)
class Ties:
    """Where an image lies that has no transform: by points whose place is known, or by the model of its camera.

    points: (row, column, x, y, z) of each ground control point, in pixels and in units of `crs` (well-known text; None
    where unknown). rpcs: the rational polynomials of a sensor, GDAL's names and texts.
    """

    points: tuple[tuple[float, float, float, float, float], ...] = ()
    crs: str | None = None
    rpcs: tuple[tuple[str, str], ...] = ()


def world_file(path: str | Path) -> Path | None:
    """The world file of an image: a.jgw, a.jpgw or a.wld beside a.jpg, as GDAL looks for it; None without one."""
    path = Path(path)
    ending = path.suffix[1:].lower()
    if not ending:
        return None
    for suffix in (f"{ending[0]}{ending[-1]}w", f"{ending}w", "wld"):
        for spelt in (suffix, suffix.upper()):
            file = path.with_suffix(f".{spelt}")
            if file.is_file():
                return file
    return None


def projection_file(path: str | Path) -> Path | None:
    """The file a.prj beside a.jpg and its world file, which says their coordinate system; None without one.

    One beside a shapefile of that name speaks of the shapefile.
    """
    path = Path(path)
    for spelt in (".prj", ".PRJ"):
        if os.path.isfile(file := path.with_suffix(spelt)) and world_file(path) is not None:  # noqa: PTH113  # as below
            shapes = (path.with_suffix(suffix) for suffix in (".shp", ".SHP"))
            return None if any(shape.exists() for shape in shapes) else file
    return None


def metadata_file(path: str | Path) -> Path | None:
    """The file a.jpg.aux.xml beside a.jpg, in which GDAL keeps what the format cannot hold; None without one."""
    path = Path(path)
    file = path.with_name(f"{path.name}.aux.xml")
    return file if os.path.isfile(file) else None  # noqa: PTH113  # Path.is_file raises on names that are too long


def read_world_file(file: Path) -> Geo:
    """The transform of a world file, which knows no coordinate system: six numbers, one a line.

    Its last two are the place of the middle of the upper left pixel.

    Raises:
        DataError: not six finite numbers, or a transform that cannot be inverted.
    """
    try:
        with file.open("rb") as handle:
            words = handle.read(4096).decode("ascii").replace(",", ".").split()
        a, d, b, e, x, y = (float(word) for word in words[:6])
    except (OSError, ValueError) as error:
        raise DataError("a damaged world file", file=file, allowed="six numbers", hint="repair or remove it") from error
    if not all(map(math.isfinite, (a, d, b, e, x, y))) or a * e - b * d == 0:
        found = f"a world file of the numbers {a:g}, {d:g}, {b:g}, {e:g}, {x:g}, {y:g}"
        raise DataError(found, file=file, allowed="a transform that can be inverted", hint="repair or remove it")
    return Geo(None, (a, b, x - (a + b) / 2, d, e, y - (d + e) / 2))
