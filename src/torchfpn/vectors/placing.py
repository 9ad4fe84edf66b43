"""Polygons of any coordinate system -> pixel coordinates (column, row) of an image, corner (0, 0) at the upper left.

Every grid is a plain one there: north up or south up, turned, pixels square or not.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.files.geo import Geo
from torchfpn.files.rasters import no_place
from torchfpn.vectors.edges import edges

BEND = 0.05  # pixels that a straight edge may be off once the coordinate system has bent it
FINENESS = 2.0**20  # coordinates are rounded to this part of a pixel: moved by whole rows they stay exactly the same
FAR = 2.0**20  # pixels beyond the image where polygons are cut
Points = NDArray[np.float64]


def check_grid(geo: Geo | None, file: str | Path, assumed: str | None = None) -> Geo:
    """The place of an image, its coordinate system `assumed` where it does not say.

    Raises:
        RasterError: no transform, one that cannot be inverted, or no coordinate system.
    """
    if geo is None or geo.transform == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0):
        raise no_place(file, "no georeference, so nothing can be drawn on it", "for tiles of a web map: --tiles")
    a, b, _, d, e, _ = geo.transform
    if a * e - b * d == 0:
        raise RasterError(f"its transform {geo.transform} cannot be inverted", file=file)
    if geo.crs is None and assumed is None:
        raise RasterError("no coordinate system", file=file, hint="give it with --assume-crs EPSG:...")
    return replace(geo, crs=geo.crs or assumed)


def placed(
    shapes: NDArray[Any],
    crs: str,
    geo: Geo,
    size: tuple[int, int],
    file: str | Path | None = None,
    *,
    tree: shapely.STRtree | None = None,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The polygons whose bounds meet the image, in its pixels, and their numbers among `shapes`.

    shapes: [N] valid polygons in the coordinate system `crs` (well-known text). size: height and width of the image.
    tree: of the shapes; it changes nothing, but with it an image costs only the shapes around it.
    Edges are straight in the coordinate system of the file, as its format says; long ones get more points.

    Raises:
        RasterError: there is no way from `crs` to that of the image, or not for these polygons.
    """
    same = rasterio.crs.CRS.from_wkt(crs) == rasterio.crs.CRS.from_wkt(geo.crs)
    try:
        box = _ground(geo, size) if same else _footprint(crs, geo, size)
        kept = _near(shapes, box, tree)
        shapes = shapes[kept] if same else _cut(shapes[kept], box)
        move = _mover(None if same else crs, geo)
        shapes = shapes if same else _straightened(shapes, move)
        shapes = _moved(shapes, move)
        height, width = size
        inside = _meets(shapes, np.array([0.0, 0.0, width, height]))
        shapes = _cut(shapes[inside], np.array([-FAR, -FAR, width + FAR, height + FAR]))
        return _moved(shapes, lambda points: np.round(points * FINENESS) / FINENESS), kept[inside]
    except (rasterio.errors.RasterioError, CPLE_BaseError, shapely.errors.GEOSException) as error:
        raise RasterError(f"the labels cannot be brought into its coordinate system ({error})", file=file) from error
    except _NoPlaceError as error:
        hint = "is the coordinate system of the labels the right one?"
        raise RasterError("polygons that have no place in its coordinate system", file=file, hint=hint) from error


def around(tree: shapely.STRtree, crs: str, geo: Geo, window: tuple[int, int, int, int]) -> NDArray[np.int64]:
    """Numbers, rising, of the shapes in the tree that may lie in a window of an image; all where nobody can tell.

    window: row, column, height, width in pixels; it may reach beyond the image.
    """
    row, column, height, width = window
    try:
        box = _footprint(crs, geo.part(row, column), (height, width))
    except (rasterio.errors.RasterioError, CPLE_BaseError):  # a window at the edge of what can be projected
        box = None
    return (
        np.arange(len(tree.geometries))
        if box is None
        else np.asarray(np.sort(tree.query(shapely.box(*box))), dtype=np.int64)
    )


def why_apart(shapes: NDArray[Any], crs: str, images: Sequence[tuple[Geo, tuple[int, int]]]) -> str:
    """The likely reason why none of the polygons meets one of the images, and what to do about it.

    shapes: [N] polygons in `crs` (well-known text). images: the place of each, and its (height, width).
    """
    swapped = shapely.transform(shapes, lambda points: points[:, ::-1])
    if _any_meets(swapped, [crs], images):
        order = "longitude, latitude" if rasterio.crs.CRS.from_wkt(crs).is_geographic else "east, north"
        return f"they would with their axes swapped: write each coordinate as {order}"
    theirs = list(dict.fromkeys(geo.crs for geo, _ in images if geo.crs is not None))
    for other in theirs:
        if _any_meets(shapes, [other], images):
            return f"they would in the coordinate system of the images ({_called(other)}): the file names another one"
    places = [_called_place(crs, shapely.total_bounds(shapes))]
    for geo, (height, width) in images[:1]:
        corners = np.array([geo.world(0, 0), geo.world(width, height)])
        places.append(_called_place(str(geo.crs), np.concatenate([corners.min(0), corners.max(0)])))
    where = f"the polygons lie around {places[0]}" + (f", the images around {places[1]}" if places[1:] else "")
    return f"{where}: is the coordinate system of both the right one?"


def _any_meets(shapes: NDArray[Any], systems: Sequence[str], images: Sequence[tuple[Geo, tuple[int, int]]]) -> bool:
    """Whether a shape, read in one of the coordinate systems, meets one of the images."""
    for crs in systems:
        for geo, size in images:
            try:
                if len(placed(shapes, crs, geo, size)[1]):
                    return True
            except RasterError:  # no such place in that system
                continue
    return False


def _called(crs: str) -> str:
    """A coordinate system by its code, or else its name."""
    known = rasterio.crs.CRS.from_wkt(crs)
    code = known.to_epsg()
    return f"EPSG:{code}" if code is not None else crs.split('"')[1]


def _called_place(crs: str, bounds: NDArray[np.float64]) -> str:
    """The middle of bounds, in degrees where it has some."""
    x, y = float(bounds[[0, 2]].mean()), float(bounds[[1, 3]].mean())
    try:
        (longitude,), (latitude,) = rasterio.warp.transform(crs, "OGC:CRS84", [x], [y])
    except (rasterio.errors.RasterioError, CPLE_BaseError):
        return f"({x:.10g}, {y:.10g}) of {_called(crs)}"
    return f"longitude {longitude:.4f}, latitude {latitude:.4f}"


class _NoPlaceError(Exception):
    """A point for which the target has no coordinates."""


def _near(shapes: NDArray[Any], box: NDArray[np.float64] | None, tree: shapely.STRtree | None) -> NDArray[np.int64]:
    """Numbers, rising, of the shapes whose bounds meet the box; all without a box."""
    if box is None:
        return np.arange(len(shapes))
    if tree is None:
        return np.flatnonzero(_meets(shapes, box))
    return np.asarray(np.sort(tree.query(shapely.box(*box))), dtype=np.int64)


def _ground(geo: Geo, size: tuple[int, int]) -> NDArray[np.float64] | None:
    """West, south, east, north of the image in its own coordinates, twice its size wider; None where it is turned.

    There, bounds in pixels may meet the image where those on the ground do not.
    """
    if geo.transform[1] or geo.transform[3]:
        return None
    corners = np.array([geo.world(0, 0), geo.world(size[1], size[0])])
    wide = np.ptp(corners, axis=0)
    return np.concatenate([corners.min(0) - wide, corners.max(0) + wide])


def _footprint(crs: str, geo: Geo, size: tuple[int, int]) -> NDArray[np.float64] | None:
    """West, south, east, north of the image in `crs`, twice its own size wider; None where they do not say (180 E)."""
    height, width = size
    corners = np.array([geo.world(x, y) for x in (0, width) for y in (0, height)])
    bounds = rasterio.warp.transform_bounds(geo.crs, crs, *corners.min(0), *corners.max(0), densify_pts=21)
    west, south, east, north = bounds
    if not np.isfinite(bounds).all() or west >= east or south >= north:
        return None
    wide, high = east - west, north - south
    return np.array([west - wide, south - high, east + wide, north + high])


def _meets(shapes: NDArray[Any], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    return np.asarray((bounds[:, :2] <= box[2:]).all(1) & (bounds[:, 2:] >= box[:2]).all(1))


def _cut(shapes: NDArray[Any], box: NDArray[np.float64] | None) -> NDArray[Any]:
    """The shapes without what reaches out of the box; those inside stay as they are, to the bit."""
    if box is None or not len(shapes):
        return shapes
    bounds = shapely.bounds(shapes)
    out = (bounds[:, :2] < box[:2]).any(1) | (bounds[:, 2:] > box[2:]).any(1)
    shapes = shapes.copy()
    shapes[out] = [_areal(part) for part in shapely.intersection(shapes[out], shapely.box(*box))]
    return shapes


def _areal(shape: Any) -> Any:
    """The polygons of what an intersection left, which may also be lines and points."""
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    return shapely.multipolygons(parts) if parts else shapely.Polygon()


def _mover(crs: str | None, geo: Geo) -> Callable[[Points], Points]:
    """[N, 2] places in `crs` (None: that of the image) -> [N, 2] columns and rows."""
    a, b, c, d, e, f = geo.transform
    det = a * e - b * d

    def move(points: Points) -> Points:
        x, y = points[:, 0], points[:, 1]
        if crs is not None and len(points):
            x, y = (np.asarray(values) for values in rasterio.warp.transform(crs, geo.crs, x, y))
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise _NoPlaceError
        return np.stack([(e * (x - c) - b * (y - f)) / det, (a * (y - f) - d * (x - c)) / det], axis=1)

    return move


def _moved(shapes: NDArray[Any], move: Callable[[Points], Points]) -> NDArray[Any]:
    if not len(shapes):
        return shapes
    return np.asarray(shapely.set_coordinates(shapes.copy(), move(shapely.get_coordinates(shapes))), dtype=object)


def _straightened(shapes: NDArray[Any], move: Callable[[Points], Points]) -> NDArray[Any]:
    """The shapes with more points on the edges that `move` bends by more than `BEND` pixels.

    Of an edge cut into n equal parts each is bent by 1 / n^2 of the whole.
    """
    if not len(shapes):
        return shapes
    start, end, owner = edges(shapes)
    bend = np.abs(move((start + end) / 2) - (move(start) + move(end)) / 2).max(axis=1)
    length = np.hypot(*(end - start).T)
    parts = np.clip(np.ceil(np.sqrt(bend / BEND)), 1, 1000)
    longest = np.full(len(shapes), np.inf)
    bent = parts > 1
    np.minimum.at(longest, owner[bent], length[bent] / parts[bent])
    shapes, bent = shapes.copy(), np.isfinite(longest)
    shapes[bent] = shapely.segmentize(shapes[bent], longest[bent])
    return shapes
