"""Coordinate reference systems: longitude and latitude, the 180th meridian, poles, areas, local metres."""

import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import ConfigError, RasterError
from torchfpn.geo.georef import Affine6, Geo

_NAME = re.compile(
    r"(?:urn:(?:x-)?ogc:def:crs:|https?://www\.opengis\.net/def/crs/)?(EPSG|OGC|ESRI|IAU)(?:[:/][\w.]*)?[:/](\w+)", re.I
)

AXIS = 6378137.0  # metres, semi-major axis of the WGS 84 ellipsoid
FLATTENING = 1 / 298.257223563  # of the WGS 84 ellipsoid
POLAR = 80.0  # degrees of latitude beyond which areas are measured around the pole
STEEP = 1e-3  # degrees of latitude between the ends of an edge
LON_LAT = "OGC:CRS84"  # WGS 84 in degrees, longitude first: what RFC 7946 says of every GeoJSON
PLAIN: Affine6 = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # the transform of coordinates that are not pixels
SLACK = 1e-6  # degrees that a latitude may lie beyond the pole by rounding
FARTHEST = 1e9  # units, of a pole that has no place (Mercator)
AT_ONCE = 2**18  # points that are transformed at a time
Points = NDArray[np.float64]
BEYOND, INSIDE = 1.01, 1 - 1e-6  # parts of a quarter turn


def crs_wkt(text: str) -> str:
    """Well-known text of "EPSG:32759" and the like.

    Raises:
        ConfigError: no coordinate system that PROJ knows.
    """
    found = _NAME.fullmatch(text.strip())
    try:
        with rasterio.Env():  # keeps GDAL from printing what it thinks of the name
            return str(rasterio.crs.CRS.from_user_input(":".join(found.groups()) if found else "").to_wkt())
    except (rasterio.errors.CRSError, ValueError) as error:
        raise ConfigError(f'"{text}"', field="CRS", allowed="a coordinate system, such as EPSG:4326") from error


@dataclass(frozen=True)
class System:
    """A CRS as reprojection needs it: whether it goes around the earth, and where it is cut.

    In a cylindrical CRS (longitude and latitude, Mercator, equal-area cylinders) x grows with the longitude alone, so
    that it can go on beyond the meridian where maps are usually cut. Every other CRS has a place of its own for each
    point.

    turn: how far x grows once around the earth; None where the CRS is not cylindrical.

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


def square_metres(polygons: Any, *, short: bool = False) -> Any:
    """Areas on the WGS 84 ellipsoid of polygons in degrees, their holes left out: float64 [N], or one for one.

    By Lambert's cylindrical equal-area projection (Snyder 1987, equations 3-12 and 10-15): an area there is one here.
    Rings that reach beyond 80 degrees: by his azimuthal one around the pole (equation 24-23). polygons: [N] Polygon or
    MultiPolygon, or one of them. short: all rings around the pole, and parallels too go the short way, not as the
    longitudes do; so rings may cross the 180th meridian and hold the pole.

    Of a line between two places only the ends are known. Beyond 80 degrees, where longitudes change fast, it is taken
    for straight on a map around the pole; for a part of a parallel if both ends have the very same latitude.
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


def _ring_areas(rings: NDArray[Any], short: bool) -> NDArray[np.float64]:
    if not len(rings):
        return np.zeros(0)
    areas = _on_cylinder(rings)
    _, south, _, north = shapely.bounds(rings).T
    polar = np.flatnonzero((north > POLAR) | (south < -POLAR) | short)
    if len(polar):
        areas[polar] = _around_pole(rings[polar], np.where(north > -south, 1.0, -1.0)[polar], short)
    return areas


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


def _from_pole(lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres from the north pole on the map (Snyder 1987, equation 24-23), without differences of large numbers."""
    eccentricity = math.sqrt(FLATTENING * (2 - FLATTENING))
    sine, rest = np.sin(np.radians(lat)), 2 * np.sin(np.radians(90 - lat) / 2) ** 2  # rest = 1 - sine
    below = 1 - (eccentricity * sine) ** 2
    part = rest * (1 + eccentricity**2 * sine) / below
    part += (1 - eccentricity**2) * np.arctanh(eccentricity * rest / (1 - eccentricity**2 * sine)) / eccentricity
    return np.asarray(AXIS * np.sqrt(part))


@dataclass(frozen=True)
class Planes:
    """Planes in metres around a place each, true to length and angle there, and off by 1 % 100 km north or south.

    origins: [N, 2] places in the coordinate system. scales: [N, 2, 2] its units there -> metres east and north.
    """

    origins: Points
    scales: Points

    @classmethod
    def around(cls, shapes: NDArray[Any], crs: str, file: str | Path | None = None) -> "Planes":
        """A plane for each shape, around the middle of its bounds. crs: well-known text.

        Raises:
            RasterError: a place without longitude and latitude.
        """
        bounds = shapely.bounds(shapes).reshape(-1, 4)
        middles, held = (bounds[:, :2] + bounds[:, 2:]) / 2, system(crs)
        if held.crs.is_geographic:  # a plane right at the pole has no east; grids may reach half a pixel beyond it
            beyond = np.abs(middles[:, 1]) <= held.poles[1] * BEYOND
            inside = np.clip(middles[:, 1], held.poles[0] * INSIDE, held.poles[1] * INSIDE)
            middles[:, 1] = np.where(beyond, inside, middles[:, 1])
        return cls(middles, _scales(middles, crs, file))

    def __getitem__(self, index: Any) -> "Planes":
        return Planes(self.origins[index], self.scales[index])

    def to_metres(self, shapes: NDArray[Any]) -> NDArray[Any]:
        """Each shape in its own plane."""
        return self._each(shapes, lambda points, i: np.einsum("nij,nj->ni", self.scales[i], points - self.origins[i]))

    def from_metres(self, shapes: NDArray[Any]) -> NDArray[Any]:
        """The way back."""
        back = np.linalg.inv(self.scales)
        return self._each(shapes, lambda points, i: np.einsum("nij,nj->ni", back[i], points) + self.origins[i])

    def _each(self, shapes: NDArray[Any], move: Any) -> NDArray[Any]:
        if not len(shapes):
            return shapes
        points, owner = shapely.get_coordinates(shapes, return_index=True)
        return np.asarray(shapely.set_coordinates(shapes.copy(), move(points, owner)), dtype=object)


def _scales(places: Points, crs: str, file: str | Path | None) -> Points:
    step = 1e-5 if rasterio.crs.CRS.from_wkt(crs).is_geographic else 1.0  # about a metre
    shifts = np.array([(0.0, 0.0), (step, 0.0), (0.0, step)])
    degrees = _to_lon_lat((places[:, None] + shifts).reshape(-1, 2), crs, file).reshape(-1, 3, 2)
    apart = degrees[:, 1:] - degrees[:, :1]
    apart[..., 0] = (apart[..., 0] + 180) % 360 - 180
    metres = np.radians(apart) / step * _radii(degrees[:, 0, 1])[:, None]
    return np.asarray(np.swapaxes(metres, 1, 2))


def _radii(latitude: Points) -> Points:
    """[N, 2]: metres for a radian of longitude and of latitude on the ellipsoid (Snyder 1987, equations 4-20, 4-18)."""
    e2 = FLATTENING * (2 - FLATTENING)
    sine, cosine = np.sin(np.radians(latitude)), np.cos(np.radians(latitude))
    root = np.sqrt(1 - e2 * sine**2)
    return np.stack([AXIS * cosine / root, AXIS * (1 - e2) / root**3], axis=1)


def _to_lon_lat(places: NDArray[np.float64], crs: str, file: str | Path | None) -> NDArray[np.float64]:
    if not len(places):
        return places
    try:
        moved = Way(Geo(crs, PLAIN), Geo(LON_LAT, PLAIN)).forward(places)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"its places have no longitude and latitude ({error})", file=file) from error
    if not np.isfinite(moved).all() or np.abs(moved[:, 1]).max() > 90:
        raise RasterError("lies where there is no longitude and latitude", file=file, hint="is its CRS the right one?")
    return moved
