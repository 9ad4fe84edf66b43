"""Polygons of any coordinate system on one plane, in metres, where every area is the one on the ground.

The plane is Lambert's cylindrical equal-area projection (Snyder 1987, chapter 10), true to scale at the middle of the
data: intersection over union asks for areas and nothing else, and there they are right for a hut and for a country.
Shapes are drawn out of true far from the middle, areas never.
"""

import math
from collections.abc import Sequence
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
from torchfpn.vectors.placing import placed
from torchfpn.vectors.reading import LON_LAT

UNIT = 0.1  # metres: the "pixel" of `placing`, which lets an edge be off by a twentieth of it
STEEPEST = 80.0  # degrees; nearer to a pole the plane would be true to scale nowhere else


def ground_plane(layers: Sequence[tuple[NDArray[Any], str]]) -> str:
    """Well-known text of the plane around the middle of the first of the layers that holds anything.

    layers: (shapes, coordinate system) pairs.

    Raises:
        RasterError: its middle has no longitude and latitude.
    """
    lon, lat = next((_middle(shapes, crs) for shapes, crs in layers if len(shapes)), (0.0, 0.0))
    lat = max(-STEEPEST, min(STEEPEST, lat))
    text = f"+proj=cea +lat_ts={lat:.6f} +lon_0={lon:.6f} +datum=WGS84 +units=m +no_defs"
    return str(rasterio.crs.CRS.from_proj4(text).to_wkt())


def on_ground(shapes: NDArray[Any], crs: str, plane: str, file: str | Path | None = None) -> NDArray[Any]:
    """The polygons [N], in `crs`, as valid ones on the plane; edges that it bends get more points.

    Raises:
        RasterError: there is no way from `crs` to the plane, or not for these polygons.
    """
    if not len(shapes):
        return shapes
    west, north, size = _box(shapes, crs, plane, file)
    geo = Geo(plane, (UNIT, 0.0, west, 0.0, -UNIT, north))
    moved, kept = placed(shapes, crs, geo, size, file)
    if len(kept) < len(shapes):
        raise RasterError("polygons that lie around the whole earth", file=file, hint="compare a part of them")
    moved = shapely.transform(moved, lambda points: points * (UNIT, -UNIT) + (west, north))
    broken = ~shapely.is_valid(moved)  # by the rounding of coordinates
    moved[broken] = shapely.make_valid(moved[broken], method="structure", keep_collapsed=False)
    return np.asarray(moved)


def _middle(shapes: NDArray[Any], crs: str) -> tuple[float, float]:
    """Longitude and latitude of the middle of the bounds."""
    west, south, east, north = shapely.total_bounds(shapes)
    try:
        lon, lat = rasterio.warp.transform(crs, LON_LAT, [(west + east) / 2], [(south + north) / 2])
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"its places have no longitude and latitude ({error})") from error
    if not (math.isfinite(lon[0]) and math.isfinite(lat[0])):
        raise RasterError("lies where there is no longitude and latitude", hint="is its CRS the right one?")
    return (float(lon[0]) + 180) % 360 - 180, float(lat[0])


def _box(shapes: NDArray[Any], crs: str, plane: str, file: str | Path | None) -> tuple[float, float, tuple[int, int]]:
    """West and north of a box on the plane that holds the shapes, in whole units, and its height and width in units."""
    try:
        bounds = rasterio.warp.transform_bounds(crs, plane, *shapely.total_bounds(shapes), densify_pts=21)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"cannot be brought onto a plane ({error})", file=file) from error
    if not np.isfinite(bounds).all():
        raise RasterError("lies where there is no longitude and latitude", file=file, hint="is its CRS the right one?")
    west, south, east, north = bounds
    around = 1 + 0.05 * max(east - west, north - south)  # the bounds are those of points on the edge only
    left, top = (math.floor((west - around) / UNIT), math.ceil((north + around) / UNIT))
    width, height = math.ceil((east + around) / UNIT) - left, top - math.floor((south - around) / UNIT)
    return left * UNIT, top * UNIT, (height, width)
