"""Pixels that an outline passes through, exactly. All coordinates are (column, row).

GDAL has a switch for this. What it gives depends on the window that is drawn, and outlines on the border of that
window have made it write outside of its memory (rasterio issue 2799); hence this.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.vectors.edges import edges

SHORTEST = 1e-9  # pixels; shorter pieces of an edge are rounding at a corner of pixels


def touched(shapes: NDArray[Any], rows: tuple[int, int], width: int, *, left: int = 0) -> tuple[NDArray[np.int64], ...]:
    """Row, column and number of the shape for every pixel whose inside an outline crosses, some of them repeated.

    Edges along the border of pixels touch neither side. shapes: [N] polygons. rows: the first, and the one after the
    last; only these are looked at, and of them `width` columns from `left` on.
    """
    start, end, owner = _near(shapes, rows, (left, left + width))
    edge, place = _crossings(start, end)
    same = edge[1:] == edge[:-1]
    edge, middle, part = edge[:-1][same], (place[:-1] + place[1:])[same] / 2, np.diff(place)[same]
    long = part * np.hypot(*(end - start).T)[edge] > SHORTEST
    edge, middle = edge[long], middle[long]
    points = start[edge] + middle[:, None] * (end - start)[edge]
    columns, lines = np.floor(points).astype(np.int64).T
    inside = (lines >= rows[0]) & (lines < rows[1]) & (columns >= left) & (columns < left + width)
    return lines[inside], columns[inside], owner[edge[inside]]


def _near(
    shapes: NDArray[Any], rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """Starts and ends [M, 2] of the edges that meet the window, and whose they are; none along pixel borders."""
    start, end, owner = edges(shapes)
    along = ((start == end) & (start == np.floor(start))).any(axis=1)
    near = (np.maximum(start, end)[:, 1] > rows[0]) & (np.minimum(start, end)[:, 1] < rows[1])
    level = (start == end)[:, 1] & (start[:, 1] >= rows[0]) & (start[:, 1] < rows[1])
    beside = (np.maximum(start, end)[:, 0] < columns[0]) | (np.minimum(start, end)[:, 0] > columns[1])
    kept = ~along & ~beside & (near | level)
    return start[kept], end[kept], owner[kept]


def _crossings(start: NDArray[Any], end: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where each edge crosses borders of pixels, as parts 0..1 of its length, with both ends; sorted."""
    numbers = np.arange(len(start))
    edges, places = [numbers, numbers], [np.zeros(len(start)), np.ones(len(start))]
    for axis in (0, 1):
        a, b = start[:, axis], end[:, axis]
        low, high = np.floor(np.minimum(a, b)) + 1, np.ceil(np.maximum(a, b)) - 1  # integers strictly between
        count = np.maximum(high - low + 1, 0).astype(np.int64)
        edge = np.repeat(numbers, count)
        step = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
        edges.append(edge)
        places.append((low[edge] + step - a[edge]) / (b - a)[edge])
    edge, place = np.concatenate(edges), np.concatenate(places)
    order = np.lexsort((place, edge))
    return edge[order], place[order]
