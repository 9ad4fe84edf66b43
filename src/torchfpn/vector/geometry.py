"""Polygons repaired, buffered, clipped, and projected onto an equal-area plane."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import DataError, RasterError, amount
from torchfpn.geo.crs import LON_LAT, PLAIN, Planes, Way
from torchfpn.geo.georef import Geo
from torchfpn.geo.reprojection import NoPlaceError, repaired, reproject, within_turn
from torchfpn.io.vectors import Vectors

TOLERANCE = 0.005  # metres that edges may be off
STEEPEST = 80.0  # degrees; nearer to a pole the plane would be true to scale nowhere else
CROSSINGS = 20_000  # of the rings of one polygon: a few seconds; 2,000 random vertices cross 450,000 times, minutes
_PAIRS = 2**22  # segments that are compared at a time
_POINT, _LINE, _AREA = 0, 1, 2  # dimensions


def buffer_by_metres(shapes: NDArray[Any], crs: str, metres: float, file: str | Path | None = None) -> NDArray[Any]:
    """Each line or point with everything within `metres` of it, in its own coordinate system.

    The scale is the one at the middle of each shape: over 100 km from north to south it changes by about one hundredth.

    Raises:
        RasterError: places that have no longitude and latitude.
    """
    planes = Planes.around(shapes, crs, file)
    return planes.from_metres(shapely.buffer(planes.to_metres(shapes), metres))


def clip(shapes: NDArray[Any], area: Any, min_area: float = 0.0) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The parts of polygons inside an area; polygons that lie in it stay as they are.

    Args:
        shapes: [N] valid polygons on a plane.
        area: a valid polygon or several in one.
        min_area: smaller parts are left out, in square units of the plane.

    Returns:
        The parts [M], and the number of the polygon of each.
    """
    shapely.prepare(area)
    kept = np.flatnonzero(shapely.intersects(area, shapes))
    parts = shapes[kept]
    across = ~shapely.covers(area, parts)
    parts[across] = polygon_parts(shapely.intersection(parts[across], area))
    sizes = shapely.area(parts)
    full = (sizes > 0) & (sizes >= min_area)
    return parts[full], kept[full]


def polygon_parts(shapes: NDArray[Any]) -> NDArray[Any]:
    """The polygons [N] of what an intersection left, which may also be lines and points."""
    result = np.array([shapely.Polygon()] * len(shapes), dtype=object)
    parts, owner = shapely.get_parts(shapes, return_index=True)
    kept = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    parts, owner = parts[kept], owner[kept]
    if len(parts):
        shapely.multipolygons(parts, indices=owner, out=result)
    return result


def edges(shapes: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Starts [M, 2] and ends [M, 2] of all edges, holes included, and the number [M] of the polygon of each.

    shapes: [N] Polygon or MultiPolygon.
    """
    rings, owner = shapely.get_parts(shapely.boundary(shapes), return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    first = np.flatnonzero(ring[1:] == ring[:-1])
    return points[first], points[first + 1], owner[ring[first]]


def ground_plane(layers: Sequence[tuple[NDArray[Any], str]]) -> str:
    """Well-known text of the equal-area plane around the middle of the first of the layers that holds anything.

    It is Lambert's cylindrical equal-area projection (Snyder 1987, chapter 10), true to scale at the middle of the
    data: intersection over union needs areas only, which are right for a hut and for a country. Shapes far from the
    middle are distorted.

    layers: (shapes, coordinate system) pairs.

    Raises:
        RasterError: its middle has no longitude and latitude.
    """
    lon, lat = next((_middle(shapes, crs) for shapes, crs in layers if len(shapes)), (0.0, 0.0))
    lat = max(-STEEPEST, min(STEEPEST, lat))
    text = f"+proj=cea +lat_ts={lat:.6f} +lon_0={lon:.6f} +datum=WGS84 +units=m +no_defs"
    return str(rasterio.crs.CRS.from_proj4(text).to_wkt())


def to_plane(shapes: NDArray[Any], crs: str, plane: str, file: str | Path | None = None) -> NDArray[Any]:
    """The polygons [N], in `crs`, as valid ones on the plane; edges that it bends get more points.

    All of them lie within one turn around the earth, cut where the plane begins, so that equal polygons stay equal.

    Raises:
        RasterError: there is no way from `crs` to the plane, or not for these polygons.
    """
    if not len(shapes):
        return shapes
    try:
        way = Way(Geo(crs, PLAIN), Geo(plane, PLAIN))
        moved = reproject(shapes, way, TOLERANCE)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"cannot be brought onto a plane ({error})", file=file) from error
    except NoPlaceError as error:
        hint = "is its CRS the right one?"
        raise RasterError("lies where there is no longitude and latitude", file=file, hint=hint) from error
    assert way.end.turn is not None
    return within_turn(repaired(moved.shapes), way.end.west, way.end.turn)


def _middle(shapes: NDArray[Any], crs: str) -> tuple[float, float]:
    """Longitude and latitude of the middle of the bounds."""
    west, south, east, north = shapely.total_bounds(shapes)
    middle = np.array([((west + east) / 2, (south + north) / 2)])
    try:
        ((lon, lat),) = Way(Geo(crs, PLAIN), Geo(LON_LAT, PLAIN)).forward(middle)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"its places have no longitude and latitude ({error})") from error
    if not (math.isfinite(lon) and math.isfinite(lat)):
        raise RasterError("lies where there is no longitude and latitude", hint="is its CRS the right one?")
    return (float(lon) + 180) % 360 - 180, float(lat)


def check_crossings(shapes: NDArray[Any], features: NDArray[np.int64], file: Path, limit: int | None) -> None:
    """Passes invalid polygons whose rings do not cross too often.

    Args:
        shapes: [N] polygons.
        features: [N] the number of each one's feature, from 0.
        file: for messages.
        limit: crossings of one polygon; None: `CROSSINGS`, in a place where the user cannot change it.

    Raises:
        DataError: the first polygon whose rings cross more than `limit` times.
    """
    most = CROSSINGS if limit is None else limit
    sizes = shapely.get_num_coordinates(shapes).astype(np.int64)
    for number in np.flatnonzero(sizes * (sizes - 1) // 2 > most):  # fewer vertices cannot cross so often
        if _crosses_more_than(most, shapes[number]):
            hint = 'repair it first ("Fix geometries" of QGIS)'
            raise DataError(
                f"its rings cross more than {most:,} times",
                file=file,
                field=f"feature {features[number] + 1}",
                allowed=f"up to {most:,} crossings in a polygon",
                hint=hint if limit is None else f"{hint}, or allow more with --max-crossings N",
            )


def _crosses_more_than(most: int, shape: Any) -> bool:
    points, ring = shapely.get_coordinates(shapely.get_rings(shape), return_index=True)
    inside = ring[1:] == ring[:-1]
    starts, ends = points[:-1][inside], points[1:][inside]
    tree = shapely.STRtree(shapely.linestrings(np.stack([starts, ends], axis=1)))
    step, found = max(16, _PAIRS // len(starts)), 0
    for first in range(0, len(starts), step):
        one, other = tree.query(tree.geometries[first : first + step])
        one = one + first
        later = one < other
        one, other = one[later], other[later]
        found += int(_cross(starts[one], ends[one], starts[other], ends[other]).sum())
        if found > most:
            return True
    return False


def _cross(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], d: NDArray[Any]) -> NDArray[np.bool_]:
    """[N]: whether the segments a-b and c-d cross, each within the other; shared ends do not count."""
    ac, ad = np.sign(_turn(a, b, c)), np.sign(_turn(a, b, d))
    ca, cb = np.sign(_turn(c, d, a)), np.sign(_turn(c, d, b))
    return (ac * ad < 0) & (ca * cb < 0)


def _turn(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> NDArray[np.float64]:
    """[N]: more than 0 where c lies to the left of a-b."""
    along, aside = b - a, c - a
    return np.asarray(along[:, 0] * aside[:, 1] - along[:, 1] * aside[:, 0], np.float64)


@dataclass(frozen=True)
class RepairedPolygons:
    """Valid polygons, in the order of their features.

    Attributes:
        shapes: [M] Polygon or MultiPolygon.
        features: [M] the number of each one's feature, from 0; a feature may have several.
        invalid: features whose rings were mended.
        lost: features without a geometry, or with none that has an area.
        widened: features that were lines or points.
    """

    shapes: NDArray[np.object_]
    features: NDArray[np.int64]
    invalid: int
    lost: int
    widened: int


def repair(vectors: Vectors, *, buffer: float | None = None, crossings: int | None = None) -> RepairedPolygons:
    """Polygons of all features.

    A ring that crosses itself keeps the points that it winds around, more often one way than the other (the nonzero
    rule): both halves of a bow tie, and what it encloses twice in one direction. Overlapping parts of a feature are
    joined. Equals `shapely.make_valid(method="structure")`; GDAL's even-odd rule would cut holes where a ring overlaps
    itself.

    Args:
        vectors: the features.
        buffer: metres on the ground to each side of a line, and around a point.
        crossings: how often the rings of one polygon may cross; None: `CROSSINGS`.

    Raises:
        DataError: lines or points, and no buffer; a polygon whose rings cross more often.
    """
    shapes, features = _parts(vectors.shapes)
    dimensions = shapely.get_dimensions(shapes)
    thin = dimensions < _AREA
    if thin.any():
        if buffer is None:
            raise _thin_error(vectors, features, dimensions)
        shapes[thin] = buffer_by_metres(shapes[thin], vectors.crs, buffer, vectors.file)
    broken = ~shapely.is_valid(shapes)
    check_crossings(shapes[broken], features[broken], vectors.file, crossings)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    kept = shapely.area(shapes) > 0
    invalid = np.unique(features[kept & (broken | vectors.unclosed[features])])
    lost = len(vectors.shapes) - len(np.unique(features[kept]))
    return RepairedPolygons(shapes[kept], features[kept], len(invalid), lost, len(np.unique(features[thin & kept])))


def _parts(shapes: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Single geometries and the number of the feature of each; collections may hold collections."""
    features = np.flatnonzero(~shapely.is_missing(shapes))
    parts = shapes[features]
    while (shapely.get_type_id(parts) >= shapely.GeometryType.MULTIPOINT).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        features = features[index]
    full = ~shapely.is_empty(parts)
    return parts[full], features[full]


def _thin_error(vectors: Vectors, features: NDArray[np.int64], dimensions: NDArray[np.int32]) -> DataError:
    lines = len(np.unique(features[dimensions == _LINE]))
    points = len(np.unique(features[dimensions == _POINT]))
    counts = [f"{n:,} {name}" for n, name in ((lines, "lines"), (points, "points")) if n]
    return DataError(
        f"{' and '.join(counts)} among {amount(len(vectors.shapes), 'feature')}",
        file=vectors.file,
        allowed="polygons",
        hint="remove them, or make areas of them with --buffer METRES",
    )
