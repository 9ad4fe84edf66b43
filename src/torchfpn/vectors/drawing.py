"""Polygons -> label values of pixels, in any window of an image; a window costs only the features that reach into it.

A pixel belongs to the polygon that holds its centre (`all_touched`: to any that reaches into it); of several polygons,
to the one that comes last in the file. What a pixel gets does not depend on the window it is drawn in: no edge runs
through a centre, where rounding would decide.
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

from torchfpn.files.geo import Geo, Window
from torchfpn.files.quiet import quiet
from torchfpn.vectors.mending import Areas
from torchfpn.vectors.placing import around, placed
from torchfpn.vectors.systems import system
from torchfpn.vectors.touched import touched

AT_CUT = 1e-9  # turns around the earth that halves may be away from the cut
HAIR = 2e-6  # pixels, between halves that were placed one by one
ASIDE = (1e-6, 0.618e-6)  # pixels, columns and rows; their ratio is the slope of no edge that anybody draws


@dataclass(frozen=True)
class Labels:
    """The features of one file, ready to be drawn.

    labels: [N] the label value of each feature, from 1 (0 is where none lies). crs: well-known text.
    """

    file: Path
    areas: Areas
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
class Scene:
    """Polygons in pixel coordinates. shapes: [M]; owners: [M] feature of each, rising; labels: [M] its value.

    borders: [K] areas that are not labelled, drawn last as `ignored`. size: height and width of the image.
    """

    shapes: NDArray[Any]
    owners: NDArray[np.int64]
    labels: NDArray[np.int64]
    borders: NDArray[Any]
    ignored: int
    size: tuple[int, int]


def place(
    labels: Labels,
    geo: Geo,
    size: tuple[int, int],
    *,
    ignored: int,
    border: float = 0.0,
    file: str | Path | None = None,
    window: Window | None = None,
) -> Scene:
    """The labels in the pixels of an image.

    border: pixels beside outlines that are not labelled; outlines outside the image count, as they do in the image
    beside it. file: for messages. window: only the features around it are placed, each to the bit as if all were.

    Raises:
        RasterError: the labels cannot be brought into the coordinate system of the image.
    """
    every, row, column, *whole = labels.areas.shapes, *widened_by(Window(0, 0, *size), border)
    wider, larger = geo.part(row, column), (whole[0], whole[1])
    if window is None:
        shapes, numbers = placed(every, labels.crs, wider, larger, file, tree=labels.tree)
    else:
        near = around(labels.tree, labels.crs, geo, widened_by(window, border + 1))
        shapes, numbers = placed(every[near], labels.crs, wider, larger, file)
        numbers = near[numbers]
    corner = np.array([column, row], np.float64)
    shapes = shapely.transform(shapes, lambda points: points + corner) if border else shapes
    seen = None if window is None else widened_by(window, border + 1)
    here = slice(None) if seen is None else within(shapes, seen[:2], seen.size)
    shapes, owners = shapes[here], labels.areas.features[numbers[here]]
    whole_ones = _joined(shapes, owners, labels.halves[numbers[here]]) if border else shapes[:0]
    borders = shapely.buffer(shapely.boundary(whole_ones), border)
    low, high = np.split(shapely.bounds(shapes).reshape(-1, 4), 2, axis=1)
    inside = (low <= size[::-1]).all(1) & (high >= 0).all(1)
    return Scene(shapes[inside], owners[inside], labels.labels[owners[inside]], borders, ignored, size)


def _joined(shapes: NDArray[Any], owners: NDArray[np.int64], halves: NDArray[np.bool_]) -> NDArray[Any]:
    """The shapes, the halves of each owner as one: the cut between them is no outline."""
    joined = [
        shapely.union_all(shapely.buffer(shapes[halves & (owners == owner)], HAIR, join_style="mitre"))
        for owner in np.unique(owners[halves]).tolist()
    ]
    return np.concatenate([shapes[~halves], np.array(joined, dtype=object)]) if joined else shapes


def draw(scene: Scene, window: Window, *, all_touched: bool = False) -> NDArray[np.uint16]:
    """Label values [height, width] of a window, 0 where no polygon lies."""
    block = np.zeros(window[2:], np.uint16)
    fill(block, window[:2], scene, all_touched=all_touched)
    return block


def fill(block: NDArray[np.uint16], corner: tuple[int, int], scene: Scene, *, all_touched: bool) -> None:
    """Draws shapes and then borders into a block of the map whose upper left pixel is (row, column) `corner`."""
    here = within(scene.shapes, corner, block.shape)
    last = last_of(scene.shapes[here], corner, block.shape, all_touched)
    block[:] = np.concatenate([[0], scene.labels[here]])[last]
    borders = scene.borders[within(scene.borders, corner, block.shape)]
    block[last_of(borders, corner, block.shape, all_touched=False) > 0] = scene.ignored


def widened_by(window: Window, pixels: float) -> Window:
    """The window with so many whole pixels more on every side."""
    return Window(*window).padded(math.ceil(pixels))


def within(shapes: NDArray[Any], corner: tuple[int, int], size: tuple[int, ...]) -> NDArray[np.int64]:
    """Numbers of the shapes whose bounds reach into a block of the map."""
    (row, column), (height, width) = corner, size
    bounds = shapely.bounds(shapes).reshape(-1, 4)
    rows = (bounds[:, 1] < row + height) & (bounds[:, 3] > row)
    return np.flatnonzero(rows & (bounds[:, 0] < column + width) & (bounds[:, 2] > column))


def last_of(
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
        lines, columns, owners = touched(shapes, (row, row + size[0]), size[1], left=column)
        np.maximum.at(numbers, (lines - row, columns - column), (owners + 1).astype(np.int32))
    return numbers
