"""How large polygons in longitude and latitude are on the ground."""

import math
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

AXIS, FLATTENING = 6378137.0, 1 / 298.257223563  # of the WGS 84 ellipsoid, metres


def square_metres(polygons: Any) -> Any:
    """Areas on the WGS 84 ellipsoid of polygons in degrees, their holes left out: float64 [N], or one for one.

    By Lambert's cylindrical equal-area projection (Snyder 1987, equations 3-12 and 10-15): an area there is one here.
    polygons: [N] Polygon or MultiPolygon, or one of them.
    """
    given = np.asarray(polygons, dtype=object)
    parts, owner = shapely.get_parts(given.reshape(-1), return_index=True)
    full = ~shapely.is_empty(parts)
    rings, part = shapely.get_rings(parts[full], return_index=True)
    owner, inner = owner[full][part], part[1:] == part[:-1]  # the first ring of a polygon is the outer one
    areas = _ring_areas(rings)
    areas[1:][inner] *= -1
    result = np.bincount(owner, areas, minlength=given.size)
    return result if given.ndim else float(result[0])


def _ring_areas(rings: NDArray[Any]) -> NDArray[np.float64]:
    points, ring = shapely.get_coordinates(rings, return_index=True)
    if not len(rings):
        return np.zeros(0)
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    eccentricity = math.sqrt(FLATTENING * (2 - FLATTENING))
    sine = np.sin(np.radians(points[:, 1]))
    q = (1 - eccentricity**2) * (
        sine / (1 - (eccentricity * sine) ** 2) + np.arctanh(eccentricity * sine) / eccentricity
    )
    x, y = AXIS * np.radians(points[:, 0]), AXIS * q / 2
    counts = np.diff(first, append=len(points))
    x, y = (values - np.repeat(values[first], counts) for values in (x, y))  # small numbers: the differences of large
    doubled = np.zeros(len(points))  # ones would eat the digits; the first and last points are now (0, 0), so that
    doubled[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]  # from ring to ring nothing is added
    return np.abs(np.add.reduceat(doubled, first)) / 2
