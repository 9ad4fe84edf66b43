"""How large a polygon in longitude and latitude is on the ground."""

import math
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

AXIS, FLATTENING = 6378137.0, 1 / 298.257223563  # of the WGS 84 ellipsoid, metres


def square_metres(polygon: Any) -> float:
    """Area on the WGS 84 ellipsoid of a polygon in degrees, its holes left out.

    By Lambert's cylindrical equal-area projection (Snyder 1987, equations 3-12 and 10-15): an area there is one here.
    """
    rings = [polygon.exterior, *polygon.interiors] if polygon.geom_type == "Polygon" else []
    parts = [_ring_area(shapely.get_coordinates(ring)) for ring in rings]
    return parts[0] - sum(parts[1:]) if parts else sum(square_metres(part) for part in polygon.geoms)


def _ring_area(degrees: NDArray[np.float64]) -> float:
    eccentricity = math.sqrt(FLATTENING * (2 - FLATTENING))
    sine = np.sin(np.radians(degrees[:, 1]))
    q = (1 - eccentricity**2) * (
        sine / (1 - (eccentricity * sine) ** 2) + np.arctanh(eccentricity * sine) / eccentricity
    )
    x, y = AXIS * np.radians(degrees[:, 0]), AXIS * q / 2
    x, y = x - x[0], y - y[0]  # small numbers: the differences of large ones would eat the digits
    return abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))) / 2
