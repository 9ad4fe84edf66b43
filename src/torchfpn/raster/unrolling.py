"""Polygons around a pole, whose longitudes jump by 360 degrees -> the same where they do not."""

from typing import Any

import numpy as np
import shapely

TURNS = (-720.0, -360.0, 0.0, 360.0, 720.0)


def unrolled(polygon: Any) -> Any:
    """Areas of a Polygon or MultiPolygon in degrees, edges the short way around; those with the pole reach up to it."""
    return shapely.union_all([_part(part) for part in shapely.get_parts(polygon)])


def _part(polygon: Any) -> Any:
    area, *holes = (shapely.make_valid(_ring(ring)) for ring in shapely.get_rings(polygon))
    for hole in holes:
        for turn in TURNS:  # it may have begun on another turn than the outline
            area = shapely.difference(area, shapely.affinity.translate(hole, turn))
    return area


def _ring(ring: Any) -> Any:
    points = shapely.get_coordinates(ring)
    jumps = np.round(np.diff(points[:, 0], prepend=points[0, 0]) / 360)
    points[:, 0] -= 360 * np.cumsum(jumps)
    first, last = points[0, 0], points[-1, 0]
    if abs(last - first) > 180:  # once around the pole
        pole = 90.0 if points[:, 1].max() > -points[:, 1].min() else -90.0
        points = np.concatenate([points, [(last, pole), (first, pole)]])
    return shapely.Polygon(points)
