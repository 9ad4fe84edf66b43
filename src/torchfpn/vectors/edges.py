"""The straight edges that polygons are made of."""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray


def edges(shapes: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Starts [M, 2] and ends [M, 2] of all edges, holes included, and the number [M] of the polygon of each.

    shapes: [N] Polygon or MultiPolygon.
    """
    rings, owner = shapely.get_parts(shapely.boundary(shapes), return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    first = np.flatnonzero(ring[1:] == ring[:-1])
    return points[first], points[first + 1], owner[ring[first]]
