"""Polygons in pixels -> longitude and latitude: moved, cut at the 180th meridian, rounded, still valid."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.warp
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.files.geo import Geo
from torchfpn.files.rasters import no_place
from torchfpn.raster.unrolling import unrolled

LON_LAT = "OGC:CRS84"  # WGS 84, longitude first
FINENESS = 50  # coordinates are rounded to this part of a pixel, or to 1e-6 degrees where that is finer
SLACK = 0.2  # pixels that points of an outline may leave their place by; at 0.25 edges could begin to meet
PROBE = 256  # pixels, the length of the edges that show how much the coordinate system bends
NEAR = 60.0  # degrees; nearer to the pole outlines may go around it
POLAR = 85.0  # degrees; nearer to the pole every polygon is looked at
Points = NDArray[np.float64]


def check_place(geo: Geo | None, file: str | Path | None = None) -> None:
    """Passes what can be turned into longitude and latitude.

    Raises:
        RasterError: no transform, one that cannot be inverted, or no coordinate system.
    """
    if geo is None:
        hint = "give --polygons pixels, --tiles for tiles of a web map, or a world file and --assume-crs EPSG:..."
        lacks = "no georeference, so no longitude and latitude"
        raise RasterError(lacks, hint=hint) if file is None else no_place(file, lacks, hint)
    a, b, _, d, e, _ = geo.transform
    if a * e - b * d == 0:  # pixels without an area: every polygon would be empty
        raise RasterError(f"its transform {geo.transform} cannot be inverted", file=file, hint="give it a pixel size")
    if geo.crs is None:
        hint = "give --assume-crs EPSG:..., or --polygons pixels"
        raise RasterError("no coordinate system, so no longitude and latitude", file=file, hint=hint)


def to_degrees(polygons: NDArray[Any], geo: Geo, file: str | Path | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Polygons in pixels -> the same in degrees, not rounded; and [N] bool, which were cut at the 180th meridian.

    Raises:
        RasterError: a place that has no longitude and latitude.
    """
    moved, cut = move(polygons, lambda points: degrees_of(points, geo, file)), np.zeros(len(polygons), bool)
    if len(polygons):
        west, _, east, _ = shapely.bounds(moved).T
        wide = np.flatnonzero(east - west > 180)
        cut = (west < -180) | (east > 180)
        cut[wide] |= ~_as_wide(polygons[wide], geo)
        for i in np.flatnonzero(cut):
            moved[i] = _cut_at_180(moved[i])
    return moved, cut


def rounded(moved: NDArray[Any], decimals: int, doubtful: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """Polygons with so many decimals, still valid. doubtful: which have to be looked at; None: all."""
    result = move(moved, lambda points: points.round(decimals))
    asked = np.arange(len(result)) if doubtful is None else np.flatnonzero(doubtful)
    result[asked] = valid(result[asked])
    return result


def valid(polygons: NDArray[Any]) -> NDArray[Any]:
    """Polygons [N] with those mended whose rings cross themselves; the very same objects where nothing was wrong."""
    result = polygons.copy()
    broken = ~shapely.is_valid(result)
    result[broken] = [_only_areas(shape) for shape in shapely.make_valid(result[broken])]
    return result


def move(polygons: NDArray[Any], by: Any) -> NDArray[Any]:
    """New polygons with other coordinates. by: [M, 2] -> [M, 2]."""
    if not len(polygons):
        return polygons
    return np.asarray(shapely.set_coordinates(polygons.copy(), by(shapely.get_coordinates(polygons))), dtype=object)


def places(pixels: Points, geo: Geo) -> Points:
    """(column, row) [N, 2] -> coordinates [N, 2] in the system of the map."""
    a, b, c, d, e, f = geo.transform
    return np.stack([a * pixels[:, 0] + b * pixels[:, 1] + c, d * pixels[:, 0] + e * pixels[:, 1] + f], axis=1)


def degrees_of(pixels: Points, geo: Geo, file: str | Path | None = None) -> Points:
    """(column, row) [N, 2] -> (longitude, latitude) [N, 2].

    Raises:
        RasterError: a place that has none.
    """
    if not len(pixels):
        return pixels
    x, y = places(pixels, geo).T
    try:
        lon, lat = rasterio.warp.transform(geo.crs, LON_LAT, x, y)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"its places cannot be turned into longitude and latitude ({error})", file=file) from error
    degrees = np.stack([lon, lat], axis=1)
    if not np.isfinite(degrees).all() or np.abs(degrees).max(initial=0) > 540 or np.abs(degrees[:, 1]).max() > 90:
        raise RasterError("lies where there is no longitude and latitude", file=file, hint="is its CRS the right one?")
    return degrees


def _as_wide(polygons: NDArray[Any], geo: Geo) -> NDArray[np.bool_]:
    """Which polygons are more than half a turn wide in the map itself, as those of a map of the whole earth are."""
    if not rasterio.crs.CRS.from_wkt(geo.crs).is_geographic:
        return np.zeros(len(polygons), bool)
    west, _, east, _ = shapely.bounds(move(polygons, lambda points: places(points, geo))).T
    return np.asarray(east - west > 180)


def _cut_at_180(polygon: Any) -> Any:
    """A polygon across the 180th meridian as two, one on each side (RFC 7946, section 3.1.9)."""
    west, _, east, _ = polygon.bounds
    points = shapely.get_coordinates(polygon)
    if east - west > 180 and np.abs(points[:, 1]).max() > NEAR:
        whole = unrolled(polygon)
    else:
        if east - west > 180:  # the western half is taken to lie beyond 180 degrees
            points = points + np.where(points[:, :1] < 0, (360.0, 0.0), (0.0, 0.0))
        whole = shapely.make_valid(shapely.set_coordinates(polygon, points))
    sides = []
    for start in (-540, -180, 180):
        side = shapely.intersection(whole, shapely.box(start, -90, start + 360, 90))
        sides += [shapely.affinity.translate(part, -180 - start) for part in shapely.get_parts(side)]
    return shapely.geometry.MultiPolygon([side for side in sides if side.geom_type == "Polygon" and side.area > 0])


def doubtful(polygons: NDArray[Any], geo: Geo, decimals: int, file: str | Path | None = None) -> NDArray[np.bool_]:
    """Which outlines along pixel edges, in pixels, may become invalid when they are moved and rounded: [N] bool.

    What does not touch is a pixel apart, and what touches does so at a corner that both have. As long as no point
    leaves its place by a quarter of a pixel, nothing can meet anew, and edges at one corner keep their order around it.
    Points leave it by the rounding, and those of an edge by what the coordinate system bends a line of its length,
    which grows with the square of it.
    """
    points, owner = shapely.get_coordinates(polygons, return_index=True)
    if not len(points):
        return np.zeros(len(polygons), bool)
    bend, blur = _bend_and_blur(points, geo, decimals, file)
    steps = np.abs(np.diff(points, axis=0, append=points[-1:]))
    lengths = np.where(
        (steps == 0).any(axis=1), steps.max(axis=1), 0.0
    )  # some jumps from ring to ring, which only adds
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    lengths[starts[1:] - 1] = 0
    longest = np.zeros(len(polygons))
    longest[owner[starts]] = np.maximum.reduceat(lengths, starts)
    return np.asarray(~(bend * longest**2 + blur < SLACK))


def _bend_and_blur(points: Points, geo: Geo, decimals: int, file: str | Path | None) -> tuple[float, float]:
    """Pixels that an edge of one pixel is bent by at most, and that rounding moves a point by; infinite near a pole.

    Seen at nine places all over the points, and taken four times.
    """
    low, high = points.min(0), points.max(0)
    middles = np.stack(np.meshgrid(*np.linspace(low, high, 3).T), axis=-1).reshape(-1, 1, 1, 2)
    steps = np.array([(1.0, 0.0), (0.0, 1.0)])[:, None] * np.array([0.0, -PROBE / 2, PROBE / 2])[:, None]
    try:
        seen = degrees_of((middles + steps).reshape(-1, 2), geo, file).reshape(9, 2, 3, 2)
    except RasterError:  # beyond the border of the map there may be none
        return math.inf, math.inf
    if np.abs(seen[..., 1]).max() > POLAR:
        return math.inf, math.inf
    pixel = np.swapaxes((seen[:, :, 2] - seen[:, :, 1]) / PROBE, 1, 2)  # [9, 2, 2]: columns, degrees for a pixel
    if (np.abs(np.linalg.det(pixel)) < 1e-30).any():
        return math.inf, math.inf
    back = np.linalg.inv(pixel)
    sag = np.einsum("nij,nkj->nki", back, (seen[:, :, 1] + seen[:, :, 2]) / 2 - seen[:, :, 0])
    blur = np.linalg.norm(back, axis=(1, 2)).max() * (0.5 * 10.0**-decimals + 1e-13) * math.sqrt(2)
    return 4 * float(np.linalg.norm(sag, axis=2).max()) / PROBE**2, float(blur)


def _only_areas(shape: Any) -> Any:
    parts = [part for part in shapely.get_parts(shape) if shapely.get_dimensions(part) == 2]
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def decimals_for(geo: Geo, file: str | Path | None = None) -> int:
    """Decimals of a degree that keep a fiftieth of a pixel; six (a hand's breadth) at least."""
    corners = degrees_of(np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]), geo, file)
    pixel = max(float(np.abs(corners[1:] - corners[0]).max()), 1e-15)
    return min(15, max(6, math.ceil(-math.log10(pixel / FINENESS))))
