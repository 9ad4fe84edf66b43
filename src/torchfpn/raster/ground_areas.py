"""How large polygons of any coordinate system are on the ground, around the poles too."""

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.files.geo import Geo
from torchfpn.raster.degrees import degrees_of, move
from torchfpn.vectors.area import POLAR, square_metres

# Where edges get points, as shares of them. No two points of an edge from pixel to pixel are then as far from the pole
# as each other, so only edges that follow a parallel have ends of one latitude.
BETWEEN = np.array([0.0, 2**0.5 - 1, 3**0.5 - 1])


def ground_areas(
    polygons: NDArray[Any],
    degrees: NDArray[Any],
    cut: NDArray[np.bool_],
    geo: Geo,
    file: str | Path | None = None,
) -> NDArray[np.float64]:
    """Square metres of polygons in pixels: float64 [N]. degrees, cut: what `degrees.to_degrees` made of them.

    Raises:
        RasterError: a place that has no longitude and latitude.
    """
    areas = np.array(square_metres(degrees))
    whole = degrees.copy()
    whole[cut] = move(polygons[cut], lambda points: degrees_of(points, geo, file))
    _, south, _, north = shapely.bounds(whole).reshape(-1, 4).T
    asked = (north > POLAR) | (south < -POLAR)
    asked[cut] |= _hold_a_pole(whole[cut])
    if asked.any():
        areas[asked] = _around_poles(polygons[asked], geo, file)
    return areas


def _hold_a_pole(degrees: NDArray[Any]) -> NDArray[np.bool_]:
    """[N]: whether a ring goes once around the earth."""
    parts, owner = shapely.get_parts(degrees, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    turns = (np.diff(points[:, 0]) + 180) % 360 - 180
    within = ring[:-1] == ring[1:]
    around = np.abs(np.bincount(ring[:-1][within], turns[within], minlength=len(rings))) > 180
    result = np.zeros(len(degrees), bool)
    result[owner[part[around]]] = True
    return result


def _around_poles(polygons: NDArray[Any], geo: Geo, file: str | Path | None) -> NDArray[np.float64]:
    """With more points, each edge the short way around the pole."""
    parts, owner = shapely.get_parts(polygons, return_index=True)
    _, points, (rings, outlines) = shapely.to_ragged_array(parts)
    steps = np.diff(points, axis=0, append=points[-1:])
    more = points[:, None] + BETWEEN[:, None] * steps[:, None]
    kept = np.ones(more.shape[:2], bool)
    kept[rings[1:] - 1, 1:] = False  # the last of a ring is its first
    ends = np.concatenate([[0], np.cumsum(np.diff(rings) * len(BETWEEN) - (len(BETWEEN) - 1))])
    moved = degrees_of(more[kept], geo, file)
    shapes = shapely.from_ragged_array(shapely.GeometryType.POLYGON, moved, (ends, outlines))
    areas = square_metres(shapes, short=True)
    return np.asarray(np.bincount(owner, areas, minlength=len(polygons)), np.float64)
