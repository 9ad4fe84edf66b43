"""Polygons to class maps: pixel centres or all touched pixels, in any window of an image.

A pixel belongs to the polygon that holds its centre (`all_touched`: to any that reaches into it); of several polygons,
to the last one of the file. What a pixel gets does not depend on the window: polygons are shifted so that no edge runs
through a centre, where rounding would decide. GDAL's own `all_touched` depends on the window, and has written outside
of its memory for outlines on the window's border (rasterio issue 2799), so touched pixels are computed here. A window
costs only the features that reach into it. All coordinates are (column, row).
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.features
import shapely
from numpy.typing import NDArray

from torchfpn.geo.crs import system
from torchfpn.geo.georef import Geo
from torchfpn.geo.window import Window
from torchfpn.printing import quiet
from torchfpn.vector.geometry import RepairedPolygons, edges
from torchfpn.vector.to_pixels import near_window, to_pixels

SHORTEST = 1e-9  # pixels; shorter pieces of an edge are rounding at a corner of pixels
AT_CUT = 1e-9  # turns around the earth that halves may be away from the cut
HAIR = 2e-6  # pixels, between halves that were placed one by one
ASIDE = (1e-6, 0.618e-6)  # pixels, columns and rows; their ratio is the slope of no edge that anybody draws


def touched_pixels(
    shapes: NDArray[Any], rows: tuple[int, int], width: int, *, left: int = 0
) -> tuple[NDArray[np.int64], ...]:
    """Row, column and number of the shape for every pixel whose inside an outline crosses, some of them repeated.

    Edges along the border of pixels touch neither side.

    Args:
        shapes: [N] polygons.
        rows: the first, and the one after the last; only these are looked at, and of them `width` columns from `left`
            on.
        width: number of columns.
        left: the first column.
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


@dataclass(frozen=True)
class LabelledPolygons:
    """The features of one file, ready to be drawn.

    Attributes:
        labels: [N] the label value of each feature, from 1 (0 is where none lies).
        crs: well-known text.
    """

    file: Path
    areas: RepairedPolygons
    labels: NDArray[np.int64]
    crs: str

    @functools.cached_property
    def tree(self) -> shapely.STRtree:
        """The areas by where they lie."""
        return shapely.STRtree(self.areas.shapes)

    @functools.cached_property
    def halves(self) -> NDArray[np.bool_]:
        """[M]: areas of features that were cut in two where the CRS begins, as GeoJSON is at the 180th meridian."""
        held = system(self.crs)
        if held.turn is None:
            return np.zeros(len(self.areas.shapes), bool)
        left, _, right, _ = shapely.bounds(self.areas.shapes).reshape(-1, 4).T
        slack = AT_CUT * held.turn
        sides = (left <= held.west + slack, right >= held.west + held.turn - slack)
        both = np.intersect1d(*(self.areas.features[side] for side in sides))
        return np.asarray((sides[0] | sides[1]) & np.isin(self.areas.features, both), np.bool_)


@dataclass(frozen=True)
class PixelPolygons:
    """Polygons in pixel coordinates.

    Attributes:
        shapes: [M].
        owners: [M] feature of each, rising.
        labels: [M] its value.
        borders: [K] areas that are not labelled, drawn last as `ignored`.
        size: height and width of the image.
    """

    shapes: NDArray[Any]
    owners: NDArray[np.int64]
    labels: NDArray[np.int64]
    borders: NDArray[Any]
    ignored: int
    size: tuple[int, int]


def place_polygons(
    labels: LabelledPolygons,
    geo: Geo,
    size: tuple[int, int],
    *,
    ignored: int,
    border: float = 0.0,
    file: str | Path | None = None,
    window: Window | None = None,
) -> PixelPolygons:
    """The labels in the pixels of an image.

    Args:
        labels: the polygons and their label values.
        geo: the georeference of the image or map.
        size: height and width in pixels.
        ignored: the label value of borders.
        border: pixels beside outlines that are not labelled; outlines outside the image count, as they do in the image
            beside it.
        file: for messages.
        window: only the features around it are placed, each to the bit as if all were.

    Raises:
        RasterError: the labels cannot be brought into the coordinate system of the image.
    """
    every, row, column, *whole = labels.areas.shapes, *padded(Window(0, 0, *size), border)
    wider, larger = geo.part(row, column), (whole[0], whole[1])
    if window is None:
        shapes, numbers = to_pixels(every, labels.crs, wider, larger, file, tree=labels.tree)
    else:
        near = near_window(labels.tree, labels.crs, geo, padded(window, border + 1))
        shapes, numbers = to_pixels(every[near], labels.crs, wider, larger, file)
        numbers = near[numbers]
    corner = np.array([column, row], np.float64)
    shapes = shapely.transform(shapes, lambda points: points + corner) if border else shapes
    seen = None if window is None else padded(window, border + 1)
    here = slice(None) if seen is None else reaching_into(shapes, seen[:2], seen.size)
    shapes, owners = shapes[here], labels.areas.features[numbers[here]]
    whole_ones = _joined(shapes, owners, labels.halves[numbers[here]]) if border else shapes[:0]
    borders = shapely.buffer(shapely.boundary(whole_ones), border)
    low, high = np.split(shapely.bounds(shapes).reshape(-1, 4), 2, axis=1)
    inside = (low <= size[::-1]).all(1) & (high >= 0).all(1)
    return PixelPolygons(shapes[inside], owners[inside], labels.labels[owners[inside]], borders, ignored, size)


def _joined(shapes: NDArray[Any], owners: NDArray[np.int64], halves: NDArray[np.bool_]) -> NDArray[Any]:
    """The shapes, the halves of each owner as one: the cut between them is no outline."""
    joined = [
        shapely.union_all(shapely.buffer(shapes[halves & (owners == owner)], HAIR, join_style="mitre"))
        for owner in np.unique(owners[halves]).tolist()
    ]
    return np.concatenate([shapes[~halves], np.array(joined, dtype=object)]) if joined else shapes


def draw(scene: PixelPolygons, window: Window, *, all_touched: bool = False) -> NDArray[np.uint16]:
    """Label values [height, width] of a window, 0 where no polygon lies."""
    block = np.zeros(window[2:], np.uint16)
    fill(block, window[:2], scene, all_touched=all_touched)
    return block


def fill(block: NDArray[np.uint16], corner: tuple[int, int], scene: PixelPolygons, *, all_touched: bool) -> None:
    """Draws shapes and then borders into a block of the map whose upper left pixel is (row, column) `corner`."""
    here = reaching_into(scene.shapes, corner, block.shape)
    last = last_polygon(scene.shapes[here], corner, block.shape, all_touched)
    block[:] = np.concatenate([[0], scene.labels[here]])[last]
    borders = scene.borders[reaching_into(scene.borders, corner, block.shape)]
    block[last_polygon(borders, corner, block.shape, all_touched=False) > 0] = scene.ignored


def padded(window: Window, pixels: float) -> Window:
    """The window with so many whole pixels more on every side."""
    return Window(*window).padded(math.ceil(pixels))


def reaching_into(shapes: NDArray[Any], corner: tuple[int, int], size: tuple[int, ...]) -> NDArray[np.int64]:
    """Numbers of the shapes whose bounds reach into a block of the map."""
    (row, column), (height, width) = corner, size
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    rows = (bounds[:, 1] < row + height) & (bounds[:, 3] > row)
    return np.flatnonzero(rows & (bounds[:, 0] < column + width) & (bounds[:, 2] > column))


def last_polygon(
    shapes: NDArray[Any], corner: tuple[int, int], size: tuple[int, ...], all_touched: bool
) -> NDArray[np.int32]:
    """[height, width]: the number from 1 of the last shape that covers each pixel, 0 for none."""
    row, column = corner
    numbers = np.zeros(size, np.int32)
    if len(shapes):
        pairs = zip(shapes, range(1, len(shapes) + 1), strict=True)
        with quiet(rasterio.errors.NotGeoreferencedWarning):  # rasterio silences it itself, but not among threads
            rasterio.features.rasterize(
                pairs, out=numbers, transform=rasterio.Affine.translation(column - ASIDE[0], row - ASIDE[1])
            )
    if all_touched:
        lines, columns, owners = touched_pixels(shapes, (row, row + size[0]), size[1], left=column)
        np.maximum.at(numbers, (lines - row, columns - column), (owners + 1).astype(np.int32))
    return numbers
