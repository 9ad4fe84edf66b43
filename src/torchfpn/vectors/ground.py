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
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.files.geo import Geo
from torchfpn.vectors.densification import NoPlaceError
from torchfpn.vectors.reprojection import repaired, reproject, within_turn
from torchfpn.vectors.systems import LON_LAT, PLAIN, Way

TOLERANCE = 0.005  # metres that edges may be off
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
