"""Shapes of any coordinate system in metres around a place of their own: true to length and angle there.

Far from its place such a plane is out of true: by a hundredth 100 km to the north or south.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.files.geo import Geo
from torchfpn.vectors.area import AXIS, FLATTENING
from torchfpn.vectors.systems import LON_LAT, PLAIN, Way, system

BEYOND, INSIDE = 1.01, 1 - 1e-6  # parts of a quarter turn
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Planes:
    """origins: [N, 2] places in the coordinate system. scales: [N, 2, 2] its units there -> metres east and north."""

    origins: Numbers
    scales: Numbers

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


def _scales(places: Numbers, crs: str, file: str | Path | None) -> Numbers:
    step = 1e-5 if rasterio.crs.CRS.from_wkt(crs).is_geographic else 1.0  # about a metre
    shifts = np.array([(0.0, 0.0), (step, 0.0), (0.0, step)])
    degrees = _degrees((places[:, None] + shifts).reshape(-1, 2), crs, file).reshape(-1, 3, 2)
    apart = degrees[:, 1:] - degrees[:, :1]
    apart[..., 0] = (apart[..., 0] + 180) % 360 - 180
    metres = np.radians(apart) / step * _radii(degrees[:, 0, 1])[:, None]
    return np.asarray(np.swapaxes(metres, 1, 2))


def _radii(latitude: Numbers) -> Numbers:
    """[N, 2]: metres for a radian of longitude and of latitude on the ellipsoid (Snyder 1987, equations 4-20, 4-18)."""
    e2 = FLATTENING * (2 - FLATTENING)
    sine, cosine = np.sin(np.radians(latitude)), np.cos(np.radians(latitude))
    root = np.sqrt(1 - e2 * sine**2)
    return np.stack([AXIS * cosine / root, AXIS * (1 - e2) / root**3], axis=1)


def _degrees(places: NDArray[np.float64], crs: str, file: str | Path | None) -> NDArray[np.float64]:
    if not len(places):
        return places
    try:
        moved = Way(Geo(crs, PLAIN), Geo(LON_LAT, PLAIN)).forward(places)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise RasterError(f"its places have no longitude and latitude ({error})", file=file) from error
    if not np.isfinite(moved).all() or np.abs(moved[:, 1]).max() > 90:
        raise RasterError("lies where there is no longitude and latitude", file=file, hint="is its CRS the right one?")
    return moved
