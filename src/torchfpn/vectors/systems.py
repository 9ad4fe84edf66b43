"""Coordinate reference systems (CRS) as reprojection needs them: where they go around the earth, where they are cut.

In a cylindrical CRS (longitude and latitude, Mercator, equal-area cylinders) x grows with the longitude alone, so that
it can go on beyond the meridian where maps are usually cut. Every other CRS has a place of its own for each point.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.files.geo import Affine6, Geo
from torchfpn.vectors.area import AXIS

LON_LAT = "OGC:CRS84"  # WGS 84 in degrees, longitude first: what RFC 7946 says of every GeoJSON
PLAIN: Affine6 = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # the transform of coordinates that are not pixels
SLACK = 1e-6  # degrees that a latitude may lie beyond the pole by rounding
FARTHEST = 1e9  # units, of a pole that has no place (Mercator)
AT_ONCE = 2**18  # points that are transformed at a time
Points = NDArray[np.float64]


@dataclass(frozen=True)
class System:
    """A CRS. turn: how far x grows once around the earth; None where the CRS is not cylindrical.

    origin: an x and its longitude (WGS 84). poles: y of the south and the north pole, of cylindrical CRSs. middle: the
    central meridian, opposite to the cut; None where the CRS has none. degrees: longitude and latitude of WGS 84.
    """

    crs: rasterio.crs.CRS
    turn: float | None = None
    origin: tuple[float, float] = (0.0, 0.0)
    poles: tuple[float, float] = (-FARTHEST, FARTHEST)
    middle: float | None = None
    degrees: bool = False

    def turns(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """X of a cylindrical CRS as turns around the earth, 0 at Greenwich."""
        assert self.turn is not None
        return (x - self.origin[0]) / self.turn + self.origin[1] / 360

    @property
    def west(self) -> float:
        """X of a cylindrical CRS where its range of one turn begins: the cut, or longitude -180."""
        assert self.turn is not None
        middle = 0.0 if self.middle is None else self.middle
        return self.origin[0] + ((middle - self.origin[1]) / 360 - 0.5) * self.turn


@functools.lru_cache(64)
def system(text: str) -> System:
    """The CRS of a well-known text or a name such as "EPSG:3857"."""
    crs = rasterio.crs.CRS.from_user_input(text)
    if crs.is_geographic:
        turn = 2 * math.pi / crs.units_factor[1]
        degrees = any(crs == rasterio.crs.CRS.from_user_input(known) for known in (LON_LAT, "EPSG:4326"))
        origin = (0.0, 0.0 if degrees else float(_transformed(crs, _lon_lat(), np.zeros((1, 2)))[0, 0]))
        return System(crs, turn, origin, (-turn / 4, turn / 4), None, degrees)
    middle = _central_meridian(crs)
    return _cylinder(crs, 0.0 if middle is None else middle) or System(crs, middle=middle)


def metre(text: str) -> float:
    """About how many units of a CRS are a metre."""
    held = system(text).crs
    return float(1 / (held.units_factor[1] * (AXIS if held.is_geographic else 1.0)))


@functools.lru_cache(1)
def _lon_lat() -> rasterio.crs.CRS:
    return rasterio.crs.CRS.from_user_input(LON_LAT)


def _central_meridian(crs: rasterio.crs.CRS) -> float | None:
    try:
        described = crs.to_dict(projjson=True)
    except rasterio.errors.CRSError:
        return None
    while "conversion" not in described:
        described = described.get("source_crs") or (described.get("components") or [None])[0]
        if described is None:
            return None
    found = (p for p in described["conversion"].get("parameters", ()) if p["name"].startswith("Longitude of"))
    value = next((p["value"] * _degrees(p.get("unit", "degree")) for p in found), None)
    meridian = described.get("base_crs", {}).get("datum", {}).get("prime_meridian", {}).get("longitude", 0.0)
    meridian = meridian if isinstance(meridian, (int, float)) else meridian["value"]
    return None if value is None else (value + meridian + 180) % 360 - 180


def _degrees(unit: Any) -> float:
    """How many degrees one of a unit of angles is, by PROJ: "degree", or a description of any other."""
    return 1.0 if unit == "degree" else math.degrees(unit["conversion_factor"])


def _cylinder(crs: rasterio.crs.CRS, middle: float) -> System | None:
    """The CRS if x depends on the longitude alone, y on the latitude alone, and x evenly; else None."""
    lon = middle + np.array([0.0, 90.0, -90.0, 0.0, 45.0, 0.0, 0.0])
    lat = np.array([0.0, 0.0, 0.0, 60.0, 60.0, -90.0, 90.0])
    x, y = _transformed(_lon_lat(), crs, np.stack([lon, lat], axis=1)).T
    if not (np.isfinite(x[:5]).all() and np.isfinite(y[:5]).all()):
        return None
    step = x[1] - x[0]
    apart = np.array([x[0] - x[2] - step, x[3] - x[0], x[4] - x[3] - step / 2, y[1] - y[0], y[4] - y[3]])
    if not (step > 0 and (np.abs(apart) < 1e-9 * step).all()):
        return None
    poles = np.where(np.isfinite(y[5:]), np.clip(y[5:], -FARTHEST, FARTHEST), (-FARTHEST, FARTHEST))
    return System(crs, 4 * float(step), (float(x[0]), middle), (float(poles[0]), float(poles[1])), middle)


def _transformed(source: rasterio.crs.CRS, target: rasterio.crs.CRS, points: Points) -> Points:
    """[N, 2] points, infinite where the target has no place for them."""
    if not len(points):
        return points
    starts = range(0, len(points), AT_ONCE)
    return np.concatenate([_some_transformed(source, target, points[start : start + AT_ONCE]) for start in starts])


def _some_transformed(source: rasterio.crs.CRS, target: rasterio.crs.CRS, points: Points) -> Points:
    """As `_transformed`; GDAL raises on some of the places that do not exist, so these are searched for by halving."""
    try:
        return np.stack(rasterio.warp.transform(source, target, *points.T), axis=1)
    except CPLE_BaseError:
        if len(points) == 1:
            return np.full((1, 2), np.inf)
        half = len(points) // 2
        return np.concatenate([_some_transformed(source, target, part) for part in (points[:half], points[half:])])


class Way:
    """From one georeferenced plane, a CRS with a transform, to another, and back.

    Cylindrical to cylindrical is continuous beyond any cut. From another CRS to a cylindrical one (`unrolls`) points
    come within one turn, and whoever follows an outline has to unroll it. `poles` are the places [P, 2] of the poles on
    the source plane where it has such points, `pole_rows` their y [P] in the target. beyond: units of the source CRS
    that places may lie beyond a pole, which they are taken to; a pixel, or rounding, if nothing is said.
    """

    def __init__(self, source: Geo, target: Geo, beyond: float | None = None) -> None:
        assert source.crs is not None
        assert target.crs is not None
        self.source, self.target = source.transform, target.transform
        self.start, self.end = system(source.crs), system(target.crs)
        self.beyond = _pixel(source.transform, self.start) if beyond is None else beyond
        self.same = self.start.crs == self.end.crs or (self.start.degrees and self.end.degrees)
        self.unrolls = not self.same and self.start.turn is None and self.end.turn is not None
        self.poles, self.pole_rows = self._poles() if self.unrolls else (np.zeros((0, 2)), np.zeros(0))

    def forward(self, points: Points) -> Points:
        """Points [N, 2] of the source plane -> coordinates [N, 2] in the CRS of the target, before its transform."""
        return self._moved(_within_poles(applied(self.source, points), self.start, self.beyond), self.start, self.end)

    def backward(self, coordinates: Points) -> Points:
        """The way back from what `forward` gives."""
        return inverted(
            self.source,
            self._moved(_within_poles(coordinates, self.end, _pixel(PLAIN, self.end)), self.end, self.start),
        )

    def short(self, steps: Points) -> Points:
        """Steps [..., 2] in the CRS of the target, the short way around the earth where points come within one turn."""
        if not self.unrolls:
            return steps
        assert self.end.turn is not None
        return np.asarray(steps - np.round(steps[..., :1] / self.end.turn) * np.array([self.end.turn, 0.0]))

    def _moved(self, coordinates: Points, start: System, end: System) -> Points:
        if self.same:
            return coordinates
        if start.turn is not None and end.turn is None:  # PROJ takes longitudes of up to one turn and a half
            beyond = np.round(start.turns(coordinates[:, 0]))
            coordinates = coordinates - np.where(np.abs(beyond) > 1, beyond * start.turn, 0.0)[:, None] * (1.0, 0.0)
        moved = _transformed(start.crs, end.crs, coordinates)
        if start.turn is not None and end.turn is not None:
            off = np.round(start.turns(coordinates[:, 0]) - end.turns(np.nan_to_num(moved[:, 0], posinf=0.0)))
            moved[:, 0] += off * end.turn
        return moved

    def _poles(self) -> tuple[Points, NDArray[np.float64]]:
        places = inverted(self.source, poles(self.start))
        real = np.isfinite(places).all(axis=1) & (np.abs(places) < FARTHEST).all(axis=1)
        return places[real], np.array(self.end.poles)[real]


def poles(held: System) -> Points:
    """[2, 2]: the places of the south and the north pole in a CRS; infinite for one without a place."""
    return _transformed(_lon_lat(), held.crs, np.array([(0.0, -90.0), (0.0, 90.0)]))


def applied(transform: Affine6, points: Points) -> Points:
    """(column, row) [N, 2] -> coordinates [N, 2] in the CRS of the map."""
    if transform == PLAIN:
        return points
    a, b, c, d, e, f = transform
    with np.errstate(invalid="ignore", over="ignore"):  # places that do not exist are infinite
        return np.stack([a * points[:, 0] + b * points[:, 1] + c, d * points[:, 0] + e * points[:, 1] + f], axis=1)


def inverted(transform: Affine6, coordinates: Points, *, steps: bool = False) -> Points:
    """Coordinates [..., 2] in the CRS of the map -> (column, row). steps: differences of coordinates."""
    if transform == PLAIN:
        return coordinates
    a, b, c, d, e, f = transform
    x, y = (coordinates[..., 0], coordinates[..., 1]) if steps else (coordinates[..., 0] - c, coordinates[..., 1] - f)
    det = a * e - b * d
    with np.errstate(invalid="ignore", over="ignore"):  # infinite coordinates
        return np.stack([(e * x - b * y) / det, (a * y - d * x) / det], axis=-1)


def _pixel(transform: Affine6, held: System) -> float:
    """Height of a pixel, or what coordinates may be off by rounding where there are none."""
    rounding = SLACK * (held.turn or 0.0) / 360
    return rounding if transform == PLAIN else abs(transform[3]) + abs(transform[4])


def _within_poles(coordinates: Points, held: System, beyond: float) -> Points:
    """What lies less than `beyond` the pole moved onto it: grids may be centred on the pole."""
    if held.turn is None or not len(coordinates):
        return coordinates
    south, north = held.poles
    y = coordinates[:, 1]
    if south <= y.min() and y.max() <= north:
        return coordinates
    near = (y >= south - beyond) & (y <= north + beyond)
    return np.stack([coordinates[:, 0], np.where(near, np.clip(y, south, north), y)], axis=1)
