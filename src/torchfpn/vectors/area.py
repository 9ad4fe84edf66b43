"""How large polygons in longitude and latitude are on the ground.

Of a line between two places only the ends are known. Beyond 80 degrees, where longitudes change fast, it is taken for
straight on a map around the pole; for a part of a parallel if both ends have the very same latitude.
"""

import math
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

AXIS, FLATTENING = 6378137.0, 1 / 298.257223563  # of the WGS 84 ellipsoid, metres
POLAR = 80.0  # degrees
STEEP = 1e-3  # degrees of latitude between the ends of an edge


def square_metres(polygons: Any, *, short: bool = False) -> Any:
    """Areas on the WGS 84 ellipsoid of polygons in degrees, their holes left out: float64 [N], or one for one.

    By Lambert's cylindrical equal-area projection (Snyder 1987, equations 3-12 and 10-15): an area there is one here.
    Rings that reach beyond 80 degrees: by his azimuthal one around the pole (equation 24-23). polygons: [N] Polygon or
    MultiPolygon, or one of them. short: all rings around the pole, and parallels too go the short way, not as the
    longitudes do; so rings may cross the 180th meridian and hold the pole.
    """
    given = np.asarray(polygons, dtype=object)
    parts, owner = shapely.get_parts(given.reshape(-1), return_index=True)
    full = ~shapely.is_empty(parts)
    rings, part = shapely.get_rings(parts[full], return_index=True)
    owner, inner = owner[full][part], part[1:] == part[:-1]  # the first ring of a polygon is the outer one
    areas = _ring_areas(rings, short)
    areas[1:][inner] *= -1
    result = np.bincount(owner, areas, minlength=given.size)
    return result if given.ndim else float(result[0])


def ring_areas(points: NDArray[np.float64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Square metres inside closed rings whose edges are straight in longitude and latitude: float64 [R], from 0.

    Args:
        points: [M, 2] longitude and latitude in degrees, ring after ring. Longitudes do not jump at the 180th meridian;
            a ring around a pole goes up to it, along its latitude and back.
        ends: [R + 1] where rings begin, and the end of the last.
    """
    lon, lat = np.radians(points[:, 0]), points[:, 1]
    first = ends[:-1]
    north = np.maximum.reduceat(lat, first) if len(first) else lat[:0]
    south = np.minimum.reduceat(lat, first) if len(first) else lat[:0]
    side = np.where((north > POLAR) | (south < -POLAR), np.where(north > -south, 1.0, -1.0), 0.0)
    counts = np.diff(ends)
    side, start = np.repeat(side, counts), np.repeat(first, counts)
    y = _height(lat, side)
    height = y - y[start]  # small numbers: the differences of large ones would lose digits
    turn = np.diff(lon)
    doubled = np.zeros(len(points))
    doubled[:-1] = turn * (height[:-1] + height[1:])
    steep = np.flatnonzero(np.abs(np.diff(lat)) > STEEP)  # where the area is not linear in the latitude
    middle = _height((lat[:-1] + lat[1:])[steep] / 2, side[steep]) - y[start[steep]]
    doubled[steep] = turn[steep] * (height[steep] + height[steep + 1] + 4 * middle) / 3  # Simpson's rule
    doubled[ends[1:-1] - 1] = 0.0  # from ring to ring
    return np.abs(np.add.reduceat(doubled, first)) / 2 if len(first) else np.zeros(0)


def _height(lat: NDArray[np.float64], side: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square metres on the ground for a radian of longitude, from the equator, or from the pole of `side` (1, -1)."""
    polar = side != 0
    result = np.empty(len(lat))
    result[~polar] = AXIS**2 * _authalic(np.sin(np.radians(lat[~polar]))) / 2
    result[polar] = -side[polar] * _from_pole(lat[polar] * side[polar]) ** 2 / 2
    return result


def _authalic(sine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Q of Snyder 1987, equation 3-12, of the sine of the latitude."""
    eccentricity = math.sqrt(FLATTENING * (2 - FLATTENING))
    q = sine / (1 - (eccentricity * sine) ** 2) + np.arctanh(eccentricity * sine) / eccentricity
    return np.asarray((1 - eccentricity**2) * q)


def _ring_areas(rings: NDArray[Any], short: bool) -> NDArray[np.float64]:
    if not len(rings):
        return np.zeros(0)
    areas = _on_cylinder(rings)
    _, south, _, north = shapely.bounds(rings).T
    polar = np.flatnonzero((north > POLAR) | (south < -POLAR) | short)
    if len(polar):
        areas[polar] = _around_pole(rings[polar], np.where(north > -south, 1.0, -1.0)[polar], short)
    return areas


def _around_pole(rings: NDArray[Any], side: NDArray[np.float64], short: bool) -> NDArray[np.float64]:
    """side: 1 around the north pole, -1 around the south pole."""
    points, ring = shapely.get_coordinates(rings, return_index=True)
    lon, lat = points[:, 0], points[:, 1] * side[ring]
    radius = _from_pole(lat)
    x, y = radius * np.cos(np.radians(lon)), radius * np.sin(np.radians(lon))
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    counts = np.diff(first, append=len(points))
    x, y = (values - np.repeat(values[first], counts) for values in (x, y))
    doubled = np.zeros(len(points))
    doubled[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    turn, along = np.diff(lon), lat[:-1] == lat[1:]
    turn = np.radians(np.where((np.abs(turn) > 180) & (short | ~along), (turn + 180) % 360 - 180, turn))
    low = np.maximum(lat[:-1], lat[1:]) <= (0.0 if short else POLAR)
    bent = (along | low) & (ring[:-1] == ring[1:])  # not straight on this map
    one, other = radius[:-1], radius[1:]
    arc = (one - other) ** 2 / 2 * turn + one * other * (turn - np.sin(turn))
    doubled[:-1] += np.where(bent, arc, 0.0)  # what lies between the arc and the straight line
    return np.abs(np.add.reduceat(doubled, first)) / 2


def _from_pole(lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres from the north pole on the map (Snyder 1987, equation 24-23), without differences of large numbers."""
    eccentricity = math.sqrt(FLATTENING * (2 - FLATTENING))
    sine, rest = np.sin(np.radians(lat)), 2 * np.sin(np.radians(90 - lat) / 2) ** 2  # rest = 1 - sine
    below = 1 - (eccentricity * sine) ** 2
    part = rest * (1 + eccentricity**2 * sine) / below
    part += (1 - eccentricity**2) * np.arctanh(eccentricity * rest / (1 - eccentricity**2 * sine)) / eccentricity
    return np.asarray(AXIS * np.sqrt(part))


def _on_cylinder(rings: NDArray[Any]) -> NDArray[np.float64]:
    points, ring = shapely.get_coordinates(rings, return_index=True)
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    q = _authalic(np.sin(np.radians(points[:, 1])))
    x, y = AXIS * np.radians(points[:, 0]), AXIS * q / 2
    counts = np.diff(first, append=len(points))
    x, y = (values - np.repeat(values[first], counts) for values in (x, y))  # small numbers: the differences of large
    doubled = np.zeros(len(points))  # ones would eat the digits; the first and last points are now (0, 0), so that
    doubled[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]  # from ring to ring nothing is added
    return np.abs(np.add.reduceat(doubled, first)) / 2
