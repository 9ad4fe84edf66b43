"""Label map -> polygons: the outline of every area, holes kept, in longitude and latitude (GeoJSON, RFC 7946).

Outlines follow the pixel edges exactly, so the polygons of all classes tile the map. Simplified ones (`simplify`) do
not share their borders any more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
import rasterio.warp
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.files.geo import Geo
from torchfpn.raster.area import square_metres

LON_LAT = "OGC:CRS84"  # WGS 84, longitude first
FINENESS = 50  # coordinates are rounded to this part of a pixel, or to 1e-6 degrees where that is finer


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

    labels: [H, W] integers. geo: where they lie. least: areas of fewer pixels are left out, and holes of fewer pixels
    filled. simplify: how far, in pixels, an outline may leave the pixel edges (Douglas-Peucker). in_pixels: keep
    (column, row) coordinates instead of degrees. file: for messages.

    Raises:
        RasterError: no coordinate system, or a place that has no longitude and latitude.
    """
    if not in_pixels:
        check_place(geo, file)
    values, outlines = _outlines(labels, names, least, simplify)
    if in_pixels or geo is None:
        areas = shapely.area(outlines)
    else:
        outlines = _to_lon_lat(outlines, geo, file)
        areas = np.array([square_metres(polygon) for polygon in outlines])
        outlines = _rounded(outlines, _decimals(geo, file))
    outlines = shapely.orient_polygons(outlines, exterior_cw=False)
    features = []
    for value, polygon, area in zip(values, outlines, areas, strict=True):
        if not polygon.is_empty:
            features.append(Feature(polygon, int(value), names[int(value)], float(area)))
    return features


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
    labels: NDArray[Any], names: Mapping[int, str], least: float, simplify: float
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Values and polygons in pixel coordinates; valid ones, as GDAL makes them since 3.7 and `simplify` keeps them."""
    kept = np.isin(labels, list(names))
    pairs = rasterio.features.shapes(labels.astype(np.int32), mask=kept, connectivity=4)
    found = [(int(value), _with_holes(shapely.geometry.shape(shape), least)) for shape, value in pairs]
    found = [(value, polygon) for value, polygon in found if polygon.area >= max(least, 1e-9)]
    found.sort(key=lambda pair: (pair[0], pair[1].bounds[1], pair[1].bounds[0]))
    values = np.array([value for value, _ in found], dtype=np.int64)
    polygons = np.array([polygon for _, polygon in found], dtype=object)
    if simplify > 0:
        polygons = shapely.simplify(polygons, simplify, preserve_topology=True)
    return values, polygons


def _with_holes(polygon: Any, least: float) -> Any:
    """The polygon without its holes of fewer than `least` pixels."""
    if not polygon.interiors or least <= 0:
        return polygon
    holes = [hole for hole in polygon.interiors if shapely.geometry.Polygon(hole).area >= least]
    return shapely.geometry.Polygon(polygon.exterior, holes)


def _to_lon_lat(polygons: NDArray[Any], geo: Geo, file: str | Path | None) -> NDArray[Any]:
    pixels = shapely.get_coordinates(polygons)
    degrees = _degrees(pixels, geo, file)
    moved = np.asarray(shapely.set_coordinates(polygons, degrees), dtype=object)
    return np.array([_cut_at_180(polygon) for polygon in moved], dtype=object)


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
    if east - west <= 180 and west >= -180 and east <= 180:
        return polygon
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
