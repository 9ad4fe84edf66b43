"""Outlines on the grid of a map in longitude and latitude: reprojection, the bend of edges, and the decimals needed."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.geo.crs import LON_LAT, PLAIN, Points, Way
from torchfpn.geo.georef import Geo
from torchfpn.geo.reprojection import SHARE, Bends, Moved, NoPlaceError, repaired, reproject, within_turn
from torchfpn.io.rasters import no_place

MOST = 15  # decimals; more than a double has
CELLS = 16  # to each side of a map; the bend of edges is measured at their corners
CELL = 16  # pixels of a cell at least
PROBE = 256.0  # pixels, the longest step that bends are measured with
FLAT = 1e-7  # of the longer side of a pixel in degrees: it has no shorter side
SAFE = 4.0  # an edge may bend so much more between the corners of a cell than at them
DEGREES = Geo(LON_LAT, PLAIN)


def check_place(geo: Geo | None, file: str | Path | None = None, size: tuple[int, int] | None = None) -> None:
    """Passes what can be turned into longitude and latitude.

    Args:
        geo: the georeference.
        file: for messages.
        size: height and width of the map, if it is to be looked at in many places.

    Raises:
        RasterError: no transform, one that cannot be inverted, no coordinate system, or no place of the map has a
            longitude and latitude.
    """
    if geo is None:
        hint = "give --polygons pixels, --tiles for tiles of a web map, or a world file and --assume-crs EPSG:..."
        lacks = "no georeference, so no longitude and latitude"
        raise RasterError(lacks, hint=hint) if file is None else no_place(file, lacks, hint)
    a, b, _, d, e, _ = geo.transform
    if a * e - b * d == 0:  # pixels without an area: every polygon would be empty
        raise RasterError(f"its transform {geo.transform} cannot be inverted", file=file, hint="give it a pixel size")
    if geo.crs is None:
        hint = "give --assume-crs EPSG:..., or --polygons pixels"
        raise RasterError("no coordinate system, so no longitude and latitude", file=file, hint=hint)
    if size is not None:
        decimals_for(geo, size, file)


def to_lon_lat(
    polygons: NDArray[Any],
    geo: Geo,
    file: str | Path | None = None,
    *,
    tolerance: float = SHARE,
    bends: Bends | None = None,
) -> Moved:
    """Polygons on the plane of `geo` in degrees, followed around the earth, and their areas on the ground.

    Args:
        polygons: [N] valid ones, in pixels (or in units of the CRS, with the transform `PLAIN`).
        geo: where the plane lies.
        file: for messages.
        tolerance: pixels (or units) that edges may be off.
        bends: see `reproject`.

    Raises:
        RasterError: a place that has no longitude and latitude.
    """
    try:
        beyond = tolerance / SHARE if geo.transform == PLAIN else None
        moved = reproject(polygons, Way(geo, DEGREES, beyond), tolerance, of="source", areas=True, bends=bends)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"its places cannot be turned into longitude and latitude ({error})", file=file) from error
    except NoPlaceError as error:
        raise _nowhere(file) from error
    bounds = np.abs(shapely.bounds(moved.shapes))
    if (bounds[:, ::2] > 720).any() or (bounds[:, 1::2] > 90).any():
        raise _nowhere(file)
    return moved


def geojson_polygons(moved: Moved, decimals: int, *, exact: bool = False) -> NDArray[Any]:
    """Polygons as GeoJSON has them (RFC 7946): cut at the 180th meridian, with so many decimals.

    Outlines run anticlockwise.

    Args:
        moved: polygons in longitude and latitude.
        decimals: decimals of degrees.
        exact: they follow the edges of pixels, and `decimals` keep a share of each pixel; so they cannot become
            invalid.
    """
    shapes = within_turn(moved.shapes, -180.0, 360.0, decimals)
    if not len(shapes):
        return shapes
    shapes = shapely.transform(shapes, lambda points: points.round(decimals))
    asked = moved.unrolled if exact and decimals < MOST else np.ones(len(shapes), bool)
    shapes[asked] = repaired(shapes[asked])
    return np.asarray(shapely.orient_polygons(shapes, exterior_cw=False))


def decimals_for(geo: Geo, size: tuple[int, int], file: str | Path | None = None) -> int:
    """Decimals of a degree that keep a fiftieth of the smallest step between pixels; six (a hand's breadth) at least.

    Args:
        geo: the georeference of the image or map.
        size: height and width of the map, which is looked at in many places.
        file: the file, for messages.

    Raises:
        RasterError: none of them has a longitude and latitude.
    """
    corners = _grid(size, CELLS + 1)
    try:
        way = Way(geo, DEGREES)
        _, pixel = _seen(corners, 0.5, way)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"its places cannot be turned into longitude and latitude ({error})", file=file) from error
    away = np.isfinite(pixel).all(axis=(1, 2))
    for pole in way.poles:  # where steps of longitude mean nothing
        away &= np.abs(corners - pole).max(axis=1) > 2
    if not away.any():
        raise _nowhere(file)
    sizes = np.linalg.svd(pixel[away], compute_uv=False)
    sizes = sizes[sizes[:, 1] > FLAT * sizes[:, 0], 1]  # else beyond the pole, by less than a pixel
    return min(MOST, max(6, math.ceil(-math.log10(sizes.min() * SHARE)))) if len(sizes) else MOST


class GridBends:
    """How far edges on the grid of a map are bent in longitude and latitude, at most, in pixels.

    Measured once at the corners of cells, for all maps of one place alike: whether an edge gets points must not depend
    on what lies around it. What crosses cells, or comes near a pole or places without longitude, is infinite.
    """

    def __init__(self, geo: Geo, size: tuple[int, int]) -> None:
        way = Way(geo, DEGREES)
        self.cells = np.array([max(1, min(CELLS, math.ceil(side / CELL))) for side in size[::-1]])  # across, down
        self.sides = np.array(size[::-1]) / self.cells
        self.bends = np.zeros((self.cells[1], self.cells[0]))
        if way.same:
            return
        across, down = (np.arange(n + 1) * side for n, side in zip(self.cells, self.sides, strict=True))
        corners = np.stack(np.meshgrid(across, down), axis=-1)
        step = min(PROBE, float(self.sides.max()))
        try:
            sags, pixel = _seen(corners.reshape(-1, 2), step, way)
        except (rasterio.errors.RasterioError, CPLE_BaseError):
            self.bends[:] = np.inf
            return
        bends = _bends(sags, pixel).reshape(corners.shape[:2])
        bends = np.maximum(np.maximum(bends[1:, 1:], bends[:-1, 1:]), np.maximum(bends[1:, :-1], bends[:-1, :-1]))
        self.bends[:] = SAFE * bends
        middles = (corners[1:, 1:] + corners[:-1, :-1]) / 2
        for pole in way.poles:
            self.bends[(np.abs(middles - pole) < 1.6 * self.sides).all(axis=-1)] = np.inf

    def __call__(self, start: Points, end: Points) -> NDArray[np.float64]:
        """[E] pixels, of edges from start [E, 2] to end [E, 2]."""
        if not self.bends.any():
            return np.zeros(len(start))
        one, other = (np.clip((points // self.sides).astype(np.int64), 0, self.cells - 1) for points in (start, end))
        bends = np.maximum(self.bends[one[:, 1], one[:, 0]], self.bends[other[:, 1], other[:, 0]])
        squares = ((end - start) ** 2).sum(axis=1)
        return np.where((np.abs(one - other) > 1).any(axis=1), np.inf, bends * squares)


def _grid(size: tuple[int, int], count: int) -> Points:
    """[count^2, 2] places all over a map, its corners among them."""
    height, width = size
    return np.stack(np.meshgrid(np.linspace(0, width, count), np.linspace(0, height, count)), axis=-1).reshape(-1, 2)


def _seen(corners: Points, step: float, way: Way) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How degrees change around each of [N, 2] places, measured over `step` pixels.

    [N, 4, 2]: off the chord, in the middle of an edge of one pixel, in four directions. [N, 2, 2]: degrees (row) for a
    pixel to the right and down (column).
    """
    ways = np.array([(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, -1.0)])
    steps = np.concatenate([np.zeros((1, 2)), ways, -ways]) * step
    seen = way.forward((corners[:, None] + steps).reshape(-1, 2)).reshape(-1, 9, 2)
    with np.errstate(invalid="ignore"):
        apart = way.short(seen - seen[:, :1])
        sags = (apart[:, 1:5] + apart[:, 5:]) / (8 * step**2 * (ways**2).sum(axis=1))[:, None]
        pixel = (apart[:, 1:3] - apart[:, 5:7]) / (2 * step)
    return sags, np.swapaxes(pixel, 1, 2)


def _bends(sags: NDArray[np.float64], pixel: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N]: pixels that an edge of one pixel is bent by, whatever its direction; infinite where nobody can tell."""
    with np.errstate(invalid="ignore", divide="ignore"):
        usable = np.isfinite(sags).all(axis=(1, 2)) & (np.abs(np.linalg.det(pixel)) > 1e-30)
    result = np.full(len(sags), np.inf)
    off = np.einsum("nij,nkj->nki", np.linalg.inv(pixel[usable]), sags[usable])  # [n, 4, 2] pixels
    aside = np.stack([off[:, 0, 1], off[:, 1, 0], off[:, 2, 0] - off[:, 2, 1], off[:, 3, 0] + off[:, 3, 1]], axis=1)
    result[usable] = np.abs(aside).max(axis=1)
    return result


def _nowhere(file: str | Path | None) -> RasterError:
    return RasterError("lies where there is no longitude and latitude", file=file, hint="is its CRS the right one?")
