"""Georeferences: from pixel coordinates to map coordinates and back, whether two grids are one, and world files."""

import math
import os.path
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from torchfpn.errors import DataError

Affine6 = tuple[float, float, float, float, float, float]

SAME_GRID = 0.01  # pixels; how far apart two grids may lie and still be one


@dataclass(frozen=True)
class Geo:
    """Where the pixels of an image lie on the earth.

    Attributes:
        crs: well-known text of the coordinate reference system, None where unknown.
        transform: (a, b, c, d, e, f) of the upper left corners of pixels: x = a * column + b * row + c and
            y = d * column + e * row + f. A south-up image has e > 0, a rotated one b, d != 0.
        rpcs: the camera model that the whole image has besides, GDAL's names and texts; outputs on the same grid
            repeat it.
    """

    crs: str | None
    transform: Affine6
    rpcs: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def world(self, column: float, row: float) -> tuple[float, float]:
        """The place (x, y) of a pixel corner, in units of the coordinate system."""
        a, b, c, d, e, f = self.transform
        return a * column + b * row + c, d * column + e * row + f

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """(column, row) of a place; infinite where the transform cannot be inverted."""
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        if det == 0:
            return float("inf"), float("inf")
        return (e * (x - c) - b * (y - f)) / det, (a * (y - f) - d * (x - c)) / det

    def part(self, row: int, column: int) -> "Geo":
        """The place of a part of the image whose upper left pixel is that one."""
        a, b, _, d, e, _ = self.transform
        x, y = self.world(column, row)
        return Geo(self.crs, (a, b, x, d, e, y))

    def nearest_pixel(self, other: "Geo") -> tuple[int, int]:
        """(row, column) of this grid nearest to the upper left corner of another; (0, 0) without a pixel size."""
        column, row = self.pixel(*other.world(0, 0))
        return (round(row), round(column)) if math.isfinite(row) and math.isfinite(column) else (0, 0)

    def distance(self, other: "Geo", height: int, width: int) -> float:
        """How far apart the same pixel lies on the two grids, in pixels of this one: the worst of the four corners."""
        worst = 0.0
        for column, row in ((0, 0), (width, 0), (0, height), (width, height)):
            c, r = self.pixel(*other.world(column, row))
            worst = max(worst, abs(c - column), abs(r - row))
        return worst

    def same_crs(self, other: "Geo") -> bool:
        """Whether both lie in one coordinate system; True where one of them names none."""
        if not self.crs or not other.crs or self.crs == other.crs:
            return True
        from rasterio.crs import CRS  # without rasterio no file tells its coordinate system

        return bool(CRS.from_wkt(self.crs) == CRS.from_wkt(other.crs))

    def same_grid(self, other: "Geo", size: tuple[int, int]) -> bool:
        """Whether the pixels of an image of `size` (height, width) lie on each other, to `SAME_GRID` pixels."""
        return self.same_crs(other) and self.distance(other, *size) <= SAME_GRID


def check_same_grid(
    geo: Geo | None, other: Geo | None, size: tuple[int, int], *, file: Path | None, name: str, subject: str = ""
) -> None:
    """Passes two rasters of one size that, where both say where they lie, have one grid.

    Args:
        geo: of the raster that an error is about.
        other: of the raster that it is compared with.
        size: (height, width) of both in pixels.
        file: of the first, for the message.
        name: of the second, for the message: "the image".
        subject: what the first holds, where its file name does not tell: "labels".

    Raises:
        DataError: different coordinate systems or different grids.
    """
    if geo is None or other is None:
        return
    subject = f"{subject} " if subject else ""
    if not geo.same_crs(other):
        hint = "reproject one of them to the other"
        raise DataError(f"{subject}in another coordinate system than {name}", file=file, hint=hint)
    if not other.same_grid(geo, size):
        apart = f"{other.distance(geo, *size):.3g} pixels apart"
        transforms = f"{list(geo.transform)} and {list(other.transform)}"
        found = f"{subject}on another grid than {name}, {apart}: {transforms}"
        raise DataError(found, file=file, allowed=f"at most {SAME_GRID} pixels")


@dataclass(frozen=True)
class Ties:
    """Where an image lies that has no transform: by ground control points, or by the model of its camera.

    Attributes:
        points: (row, column, x, y, z) of each ground control point, in pixels and in units of `crs`.
        crs: well-known text, None where unknown.
        rpcs: rational polynomial coefficients of a sensor, GDAL's names and texts.
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


def aux_xml(geo: Geo) -> str:
    """The text of such a file: the transform and, where it is known, the coordinate system."""
    a, b, c, d, e, f = (repr(float(number)) for number in geo.transform)
    system = [] if geo.crs is None else [f"  <SRS>{escape(geo.crs)}</SRS>"]
    place = f"  <GeoTransform>{c}, {a}, {b}, {f}, {d}, {e}</GeoTransform>"
    return "\n".join(["<PAMDataset>", *system, place, "</PAMDataset>", ""])


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
