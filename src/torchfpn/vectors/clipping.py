"""Polygons cut to an area, on one plane; what reaches across its border keeps its part inside."""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray


def clipped(shapes: NDArray[Any], area: Any, least: float = 0.0) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The parts of the polygons [N] inside `area`, and their numbers; what is smaller than `least` is left out.

    Polygons inside stay as they are. area: a valid polygon or several in one. least: an area in the units of the plane.
    """
    shapely.prepare(area)
    kept = np.flatnonzero(shapely.intersects(area, shapes))
    parts = shapes[kept]
    across = ~shapely.covers(area, parts)
    parts[across] = areal(shapely.intersection(parts[across], area))
    sizes = shapely.area(parts)
    full = (sizes > 0) & (sizes >= least)
    return parts[full], kept[full]


def areal(shapes: NDArray[Any]) -> NDArray[Any]:
    """The polygons [N] of what an intersection left, which may also be lines and points."""
    result = np.array([shapely.Polygon()] * len(shapes), dtype=object)
    parts, owner = shapely.get_parts(shapes, return_index=True)
    kept = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    parts, owner = parts[kept], owner[kept]
    if len(parts):
        shapely.multipolygons(parts, indices=owner, out=result)
    return result
