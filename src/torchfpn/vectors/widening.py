"""Lines and points -> areas of a width in metres on the ground, whatever the units of their coordinate system."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.vectors.area import AXIS, FLATTENING
from torchfpn.vectors.reading import LON_LAT


def widened(shapes: NDArray[Any], crs: str, metres: float, file: str | Path | None = None) -> NDArray[Any]:
    """Each line or point with everything within `metres` of it, in its own coordinate system.

    The scale is the one at the middle of each shape: over 100 km from north to south it changes by about one hundredth.

    Raises:
        RasterError: places that have no longitude and latitude.
    """
    bounds = shapely.bounds(shapes)
    middles = (bounds[:, :2] + bounds[:, 2:]) / 2
    scales = _metres(middles, crs, file)
    result = np.empty(len(shapes), dtype=object)
    for i, (shape, middle, scale) in enumerate(zip(shapes, middles, scales, strict=True)):
        ground = shapely.transform(shape, lambda points, m=middle, s=scale: (points - m) @ s.T)
        back = np.linalg.inv(scale).T
        area = shapely.buffer(ground, metres)
        result[i] = shapely.transform(area, lambda points, m=middle, s=back: points @ s + m)
    return result


def _metres(places: NDArray[np.float64], crs: str, file: str | Path | None) -> NDArray[np.float64]:
    """[N, 2, 2]: units of the coordinate system around each place -> metres to the east and north."""
    step = 1e-5 if rasterio.crs.CRS.from_wkt(crs).is_geographic else 1.0  # about a metre
    middle = _degrees(places, crs, file)
    columns = []
    for along in ((step, 0.0), (0.0, step)):
        apart = _degrees(places + along, crs, file) - middle
        apart[:, 0] = (apart[:, 0] + 180) % 360 - 180
        columns.append(np.radians(apart) / step * _radii(middle[:, 1]))
    return np.stack(columns, axis=2)


def _radii(latitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N, 2]: metres for a radian of longitude and of latitude on the ellipsoid (Snyder 1987, equations 4-20, 4-18)."""
    e2 = FLATTENING * (2 - FLATTENING)
    sine, cosine = np.sin(np.radians(latitude)), np.cos(np.radians(latitude))
    root = np.sqrt(1 - e2 * sine**2)
    return np.stack([AXIS * cosine / root, AXIS * (1 - e2) / root**3], axis=1)


def _degrees(places: NDArray[np.float64], crs: str, file: str | Path | None) -> NDArray[np.float64]:
    try:
        moved = np.stack(rasterio.warp.transform(crs, LON_LAT, places[:, 0], places[:, 1]), axis=1)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"its places have no longitude and latitude ({error})", file=file) from error
    if not np.isfinite(moved).all() or np.abs(moved[:, 1]).max() >= 90:
        raise RasterError("lies where there is no longitude and latitude", file=file, hint="is its CRS the right one?")
    return moved
