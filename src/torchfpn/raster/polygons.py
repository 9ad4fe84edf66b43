"""Label map -> polygons: the outline of every area, holes kept, in longitude and latitude (GeoJSON, RFC 7946).

Outlines follow the pixel edges exactly, so the polygons of all classes tile the map; simplified ones still share their
borders. Maps may be larger than memory (`trace_map`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.warp
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.files.geo import Geo
from torchfpn.raster.blocks import Rectangle, plan_blocks
from torchfpn.raster.tracing import trace_blocks
from torchfpn.vectors.area import square_metres

Outlines = tuple[NDArray[np.int64], NDArray[Any]]  # values and polygons in pixels

LON_LAT = "OGC:CRS84"  # WGS 84, longitude first
FINENESS = 50  # coordinates are rounded to this part of a pixel, or to 1e-6 degrees where that is finer
SIDE = 1024  # pixels, of the blocks that a map in memory is traced in: what they need stays in the processor's cache


@dataclass(frozen=True)
class Feature:
    """One connected area. polygon: in degrees or pixels. value: in the label map. area: square metres or pixels."""

    polygon: Any
    value: int
    name: str
    area: float
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A GeoJSON Feature with the properties class, class_id, area."""
        properties = {"class": self.name, "class_id": self.value, "area": round(self.area, 2), **self.extra}
        return {"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(self.polygon)}


def trace(
    labels: NDArray[Any],
    geo: Geo | None,
    names: Mapping[int, str],
    *,
    least: float = 0.0,
    simplify: float = 0.0,
    in_pixels: bool = False,
    file: str | Path | None = None,
) -> list[Feature]:
    """The areas of the values in `names`, by 4-neighbourhood, in the order of their values, then from top to bottom.

    labels: [H, W] integers. Everything else as in `trace_map`.

    Raises:
        RasterError: no coordinate system, or a place that has no longitude and latitude.
    """
    if not in_pixels:
        check_place(geo, file)
    plan = [block.block for block in plan_blocks(*labels.shape, side=SIDE, margin=0)]

    def read(number: int) -> NDArray[Any]:
        row, column, rows, columns = plan[number]
        return labels[row : row + rows, column : column + columns]

    found = _outlines(plan, read, names, least, simplify)
    ordered = found if simplify > 0 else [_in_order(found)]
    return list(_features(ordered, None if in_pixels else geo, names, file))


def trace_map(
    plan: Sequence[Rectangle],
    read: Callable[[int], NDArray[Any]],
    geo: Geo | None,
    names: Mapping[int, str],
    *,
    least: float = 0.0,
    simplify: float = 0.0,
    in_pixels: bool = False,
    file: str | Path | None = None,
) -> Iterator[Feature]:
    """The areas of a map that is read block by block, each as soon as no further block can add to it.

    plan: blocks that tile the map, in bands from top to bottom, from left to right. read: number in the plan -> labels
    [H, W] of that block, integers; asked once for each, in order. geo: where the map lies. least: areas of fewer pixels
    are left out, and holes of fewer pixels filled. simplify: how far, in pixels, an outline may leave the pixel edges:
    corners are cut off while their triangles are smaller than the square of it, and neighbours keep their common border
    (Visvalingam and Whyatt 1993, on a coverage). That takes all areas at once: they are held in memory, and come in the
    order of `trace`. in_pixels: keep (column, row) coordinates instead of degrees. file: for messages.

    Raises:
        RasterError: no coordinate system; while reading, a place that has no longitude and latitude, or blocks that do
            not tile a map.
    """
    if not in_pixels:
        check_place(geo, file)
    return _features(_outlines(plan, read, names, least, simplify), None if in_pixels else geo, names, file)


def check_place(geo: Geo | None, file: str | Path | None = None) -> None:
    """Passes what can be turned into longitude and latitude.

    Raises:
        RasterError: no transform, or no coordinate system.
    """
    if geo is None:
        raise RasterError("no georeference, so no longitude and latitude", file=file, hint="give --polygons pixels")
    if geo.crs is None:
        hint = "give --assume-crs EPSG:..., or --polygons pixels"
        raise RasterError("no coordinate system, so no longitude and latitude", file=file, hint=hint)


def _outlines(
    plan: Sequence[Rectangle],
    read: Callable[[int], NDArray[Any]],
    names: Mapping[int, str],
    least: float,
    simplify: float,
) -> Iterator[Outlines]:
    found = trace_blocks(plan, read, list(names), nodes=simplify > 0, least=least)
    if simplify <= 0:
        yield from found
        return
    values, polygons = _in_order(found)
    polygons = shapely.normalize(polygons)  # where rings begin must not depend on the plan
    yield values, shapely.coverage_simplify(polygons, simplify)


def _in_order(found: Iterable[Outlines]) -> Outlines:
    """All at once, by their values, then from top to bottom, from left to right."""
    batches = [(np.zeros(0, np.int64), np.zeros(0, object)), *found]
    values, polygons = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    left, top, right, bottom = shapely.bounds(polygons).T
    order = np.lexsort((right, bottom, left, top, values))  # the last key first
    return values[order], polygons[order]


def _features(
    found: Iterable[Outlines], geo: Geo | None, names: Mapping[int, str], file: str | Path | None
) -> Iterator[Feature]:
    """With their areas, in the coordinates that are asked for. geo: None keeps pixels."""
    for values, polygons in found:
        if geo is None:
            areas = shapely.area(polygons)
        else:
            polygons = _to_lon_lat(polygons, geo, file)
            areas = np.array([square_metres(polygon) for polygon in polygons])
            polygons = _rounded(polygons, _decimals(geo, file))
        polygons = shapely.orient_polygons(polygons, exterior_cw=False)
        for value, polygon, area in zip(values.tolist(), polygons, areas.tolist(), strict=True):
            if not polygon.is_empty:
                yield Feature(polygon, value, names[value], area)


def _to_lon_lat(polygons: NDArray[Any], geo: Geo, file: str | Path | None) -> NDArray[Any]:
    pixels = shapely.get_coordinates(polygons)
    degrees = _degrees(pixels, geo, file)
    moved = np.asarray(shapely.set_coordinates(polygons, degrees), dtype=object)
    west, _, east, _ = shapely.bounds(moved).T
    for i in np.flatnonzero((east - west > 180) | (west < -180) | (east > 180)):
        moved[i] = _cut_at_180(moved[i])
    return moved


def _degrees(pixels: NDArray[np.float64], geo: Geo, file: str | Path | None) -> NDArray[np.float64]:
    """(column, row) [N, 2] -> (longitude, latitude) [N, 2]."""
    a, b, c, d, e, f = geo.transform
    x, y = a * pixels[:, 0] + b * pixels[:, 1] + c, d * pixels[:, 0] + e * pixels[:, 1] + f
    if not len(pixels):
        return pixels
    try:
        lon, lat = rasterio.warp.transform(geo.crs, LON_LAT, x, y)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"its places cannot be turned into longitude and latitude ({error})", file=file) from error
    degrees = np.stack([lon, lat], axis=1)
    if not np.isfinite(degrees).all() or np.abs(degrees).max(initial=0) > 540 or np.abs(degrees[:, 1]).max() > 90:
        raise RasterError("lies where there is no longitude and latitude", file=file, hint="is its CRS the right one?")
    return degrees


def _cut_at_180(polygon: Any) -> Any:
    """A polygon across the 180th meridian as two, one on each side (RFC 7946, section 3.1.9)."""
    west, _, east, _ = polygon.bounds
    points = shapely.get_coordinates(polygon)
    if east - west > 180:  # the western half is taken to lie beyond 180 degrees
        points = points + np.where(points[:, :1] < 0, (360.0, 0.0), (0.0, 0.0))
    whole = shapely.make_valid(shapely.set_coordinates(polygon, points))
    sides = []
    for start in (-540, -180, 180):
        side = shapely.intersection(whole, shapely.box(start, -90, start + 360, 90))
        sides += [shapely.affinity.translate(part, -180 - start) for part in shapely.get_parts(side)]
    return shapely.geometry.MultiPolygon([side for side in sides if side.geom_type == "Polygon" and side.area > 0])


def _rounded(polygons: NDArray[Any], decimals: int) -> NDArray[Any]:
    """Coordinates with so many decimals, still valid."""
    if not len(polygons):
        return polygons
    rounded = shapely.set_coordinates(polygons.copy(), shapely.get_coordinates(polygons).round(decimals))
    broken = ~shapely.is_valid(rounded)
    if broken.any():
        rounded[broken] = [_only_areas(shape) for shape in shapely.make_valid(rounded[broken])]
    return np.asarray(rounded)


def _only_areas(shape: Any) -> Any:
    parts = [part for part in shapely.get_parts(shape) if shapely.get_dimensions(part) == 2]
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _decimals(geo: Geo, file: str | Path | None) -> int:
    """Decimals of a degree that keep a fiftieth of a pixel; six (a hand's breadth) at least."""
    corners = _degrees(np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]), geo, file)
    pixel = max(float(np.abs(corners[1:] - corners[0]).max()), 1e-15)
    return min(15, max(6, math.ceil(-math.log10(pixel / FINENESS))))
