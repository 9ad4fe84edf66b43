"""Polygons of any coordinate system in pixel coordinates (column, row) of an image, corner (0, 0) at the upper left.

The grid may be north up or south up, rotated, with square pixels or not.
"""

from collections.abc import Sequence
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
from torchfpn.geo.crs import LON_LAT, PLAIN, Way, applied, inverted, poles, system
from torchfpn.geo.georef import Geo
from torchfpn.geo.reprojection import SHARE, NoPlaceError, areal, repaired, reproject, within_turn
from torchfpn.geo.window import Window
from torchfpn.io.rasters import no_place

ASKED = 21  # places to each side of an image whose coordinates tell what lies around it
EVERY = 3  # turns around the earth that polygons may be away
TORN = 20.0  # times the usual step between two such places: the CRS is cut between them
CUT = 1e-7  # degrees that edges may be off where polygons are cut in longitude and latitude
INSET = 1e-9  # degrees from the cut, where PROJ may take either side
FINENESS = 2.0**20  # coordinates are rounded to this part of a pixel: moved by whole rows they stay exactly the same
FAR = 2.0**20  # pixels beyond the image where polygons are cut


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


def to_pixels(
    shapes: NDArray[Any],
    crs: str,
    geo: Geo,
    size: tuple[int, int],
    file: str | Path | None = None,
    *,
    tree: shapely.STRtree | None = None,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The polygons whose bounds meet the image, in its pixels, and their numbers among `shapes`.

    Args:
        shapes: [N] valid polygons in the coordinate system `crs` (well-known text).
        crs: their coordinate system, well-known text.
        geo: the georeference of the image or map.
        size: height and width of the image.
        file: the file, for messages.
        tree: of the shapes; it changes nothing, but with it an image costs only the shapes around it. Edges are
            straight in the coordinate system of the file, as its format says; long ones get more points. Longitudes may
            differ by whole turns: polygons from -180 to 180 lie on an image from 0 to 360 too.

    Raises:
        RasterError: there is no way from `crs` to that of the image, or not for these polygons.
    """
    try:
        way = Way(Geo(crs, PLAIN), geo)
        parts, numbers = _around(shapes, way, geo, size, tree)
        moved = _in_pixels(parts, crs, way, geo)
        moved, numbers = _joined(*_on_image(moved, numbers, way, size))
        height, width = size
        moved = _cut(moved, np.array([-FAR, -FAR, width + FAR, height + FAR]))
        return shapely.transform(moved, lambda points: np.round(points * FINENESS) / FINENESS), numbers
    except (rasterio.errors.RasterioError, CPLE_BaseError, shapely.errors.GEOSException) as error:
        raise RasterError(f"the labels cannot be brought into its coordinate system ({error})", file=file) from error
    except NoPlaceError as error:
        hint = "is the coordinate system of the labels the right one?"
        raise RasterError("polygons that have no place in its coordinate system", file=file, hint=hint) from error


def near_window(tree: shapely.STRtree, crs: str, geo: Geo, window: Window) -> NDArray[np.int64]:
    """Numbers, rising, of the shapes in the tree that may lie in a window of an image; all where nobody can tell.

    Args:
        tree: the shapes.
        crs: their coordinate system, well-known text.
        geo: the georeference of the image or map.
        window: row, column, height, width in pixels; it may reach beyond the image.
    """
    row, column, height, width = window
    try:
        boxes = _boxes(Way(Geo(crs, PLAIN), geo), geo.part(row, column), (height, width))
    except (rasterio.errors.RasterioError, CPLE_BaseError):  # a window at the edge of what can be projected
        boxes = None
    if boxes is None:
        return np.arange(len(tree.geometries))
    return np.unique(np.concatenate([tree.query(shapely.box(*box)) for box in boxes]))


def why_apart(shapes: NDArray[Any], crs: str, images: Sequence[tuple[Geo, tuple[int, int]]]) -> str:
    """The likely reason why none of the polygons meets one of the images, and what to do about it.

    Args:
        shapes: [N] polygons in `crs` (well-known text).
        crs: of the polygons, well-known text.
        images: the place of each, and its (height, width).
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
                if len(to_pixels(shapes, crs, geo, size)[1]):
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


def _around(
    shapes: NDArray[Any], way: Way, geo: Geo, size: tuple[int, int], tree: shapely.STRtree | None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The shapes around the image and their numbers; cut to what lies around it if they have to be reprojected."""
    boxes = _boxes(way, geo, size)
    if boxes is None:
        return shapes, np.arange(len(shapes))
    numbers = [_near(shapes, box, tree) for box in boxes]
    if way.same:
        every = np.unique(np.concatenate(numbers))
        return shapes[every], every
    parts = [_cut(shapes[kept], box) for kept, box in zip(numbers, boxes, strict=True)]
    return np.concatenate(parts), np.concatenate(numbers)


def _near(shapes: NDArray[Any], box: NDArray[np.float64], tree: shapely.STRtree | None) -> NDArray[np.int64]:
    """Numbers, rising, of the shapes whose bounds meet the box."""
    if tree is None:
        return np.flatnonzero(_meets(shapes, box))
    return np.asarray(np.sort(tree.query(shapely.box(*box))), dtype=np.int64)


def _boxes(way: Way, geo: Geo, size: tuple[int, int]) -> list[NDArray[np.float64]] | None:
    """West, south, east, north of what lies around the image, in the CRS of the shapes; None where nobody can tell.

    Around the image: once its own size to each side. Where the CRS goes around the earth, once for each turn.
    """
    across, down = (np.linspace(0, side, ASKED) for side in size[::-1])
    pixels = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    seen = way.backward(applied(geo.transform, pixels))
    if not np.isfinite(seen).all():
        return None
    turn = way.start.turn
    if turn is None:
        if _is_torn(seen.reshape(ASKED, ASKED, 2)):
            return None
        low, high = seen.min(0), seen.max(0)
        return [np.concatenate([low - (high - low), high + (high - low)])]
    middle = seen[len(seen) // 2, 0]
    if not way.same and way.end.turn is None:
        seen[:, 0] -= np.round((seen[:, 0] - middle) / turn) * turn
    low, high = seen.min(0), seen.max(0)
    wide = high - low
    low, high = low - wide, high + wide
    for pole, y in zip(_poles_on(geo), way.start.poles, strict=True):
        if pole is not None and (np.abs(pole / np.array(size[::-1]) - 0.5) < 1.5).all():  # all longitudes meet there
            low, high = np.minimum(low, (-np.inf, y)), np.maximum(high, (np.inf, y))
    if high[0] - low[0] >= turn:
        low[0], high[0] = -EVERY * turn, EVERY * turn
        return [np.concatenate([low, high])]
    shifts = np.arange(-2, 3) * turn
    return [np.array([low[0] + shift, low[1], high[0] + shift, high[1]]) for shift in shifts]


def _is_torn(seen: NDArray[np.float64]) -> bool:
    """Whether neighbours among places [n, n, 2] of the image lie much farther apart than others do."""
    steps = np.concatenate([np.diff(seen, axis=axis).reshape(-1, 2) for axis in (0, 1)])
    lengths = np.hypot(*steps.T)
    return bool(lengths.max() > TORN * np.median(lengths))


def _poles_on(geo: Geo) -> list[NDArray[np.float64] | None]:
    """(column, row) of the south and the north pole on the plane of the image, None for what has no single place."""
    assert geo.crs is not None
    if system(geo.crs).turn is not None:
        return [None, None]
    places = inverted(geo.transform, poles(system(geo.crs)))
    return [place if np.isfinite(place).all() else None for place in places]


def _in_pixels(shapes: NDArray[Any], crs: str, way: Way, geo: Geo) -> NDArray[Any]:
    """The shapes in pixels. Those that the CRS of the image tears apart are cut there first."""
    found = reproject(shapes, way, SHARE)
    if not found.torn.any():
        return found.shapes
    torn, middle = np.flatnonzero(found.torn), way.end.middle
    if middle is None:
        raise NoPlaceError
    degrees = Geo(LON_LAT, PLAIN)
    moved = reproject(shapes[torn], Way(Geo(crs, PLAIN), degrees), CUT).shapes
    moved = within_turn(repaired(moved), middle - 180, 360)
    moved = shapely.transform(moved, lambda points: np.clip(points, *_inside(middle)))
    again = reproject(moved, Way(degrees, geo), SHARE)
    if again.torn.any():  # cut elsewhere too, as an interrupted projection is
        raise NoPlaceError
    found.shapes[torn] = again.shapes
    return found.shapes


def _inside(middle: float) -> NDArray[np.float64]:
    """The smallest and largest longitude and latitude that are surely on the right side of the cut."""
    half = np.array([180 - INSET, 90.0])
    return np.stack([np.array([middle, 0.0]) - half, np.array([middle, 0.0]) + half])


def _on_image(
    shapes: NDArray[Any], numbers: NDArray[np.int64], way: Way, size: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Those that meet the image, where they lie or whole turns around the earth away."""
    box = np.array([0.0, 0.0, size[1], size[0]])
    if way.end.turn is None:
        inside = _meets(shapes, box)
        return shapes[inside], numbers[inside]
    (step,) = inverted(way.target, np.array([[way.end.turn, 0.0]]), steps=True)
    found, which = [], []
    for turns in range(-EVERY, EVERY + 1):
        met = np.flatnonzero(_meets(shapes, box - np.tile(turns * step, 2)))
        here = shapes[met]
        found.append(here if not turns else shapely.transform(here, lambda points, by=turns: points + by * step))
        which.append(numbers[met])
    return np.concatenate(found), np.concatenate(which)


def _joined(shapes: NDArray[Any], numbers: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The shapes by their numbers, rising; several of one number as one."""
    order = np.argsort(numbers, kind="stable")
    shapes, numbers = shapes[order], numbers[order]
    kept, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    result = shapes[first]
    for i in np.flatnonzero(counts > 1).tolist():
        parts = repaired(shapes[first[i] : first[i] + counts[i]])
        result[i] = areal(shapely.union_all(parts, grid_size=1 / FINENESS))
    return result, kept


def _meets(shapes: NDArray[Any], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    return np.asarray((bounds[:, :2] <= box[2:]).all(1) & (bounds[:, 2:] >= box[:2]).all(1))


def _cut(shapes: NDArray[Any], box: NDArray[np.float64]) -> NDArray[Any]:
    """The shapes without what reaches out of the box; those inside stay as they are, to the bit."""
    if not len(shapes):
        return shapes
    bounds = shapely.bounds(shapes)
    out = (bounds[:, :2] < box[:2]).any(1) | (bounds[:, 2:] > box[2:]).any(1)
    shapes = shapes.copy()
    shapes[out] = [areal(part) for part in shapely.intersection(shapes[out], shapely.box(*box))]
    return shapes
