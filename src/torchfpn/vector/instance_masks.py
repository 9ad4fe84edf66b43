"""Polygons to instance masks, each in its own window: a pixel is on if the polygon holds its centre.

Along each column of pixel centres a polygon is entered and left in turn: the crossings of all edges are computed at
once, and the pixels below each crossing change sides. A centre on an edge belongs to one side, the same for both
polygons that share the edge. (COCO's own rule, rounding at five times the resolution, differs by pixels of the
outline.)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops


Ints = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Outlines:
    """Polygons as edges. Within one, an edge more changes sides (holes); several of one object are joined.

    Attributes:
        start, end: [E, 2] (x, y) in pixels.
        owner: [E] the polygon of each, rising.
        objects: [P] the object of each polygon, rising.
        count: objects; some may have no polygon.
    """

    start: Reals
    end: Reals
    owner: Ints
    objects: Ints
    count: int


def select_objects(outlines: Outlines, keep: Ints) -> Outlines:
    """The objects `keep` alone: rising numbers."""
    new = np.full(outlines.count, -1)
    new[keep] = np.arange(len(keep))
    polygons = new[outlines.objects] >= 0
    edges = polygons[outlines.owner]
    number = polygons.cumsum() - 1
    return Outlines(
        outlines.start[edges],
        outlines.end[edges],
        number[outlines.owner[edges]],
        new[outlines.objects[polygons]],
        len(keep),
    )


def draw_masks(
    outlines: Outlines, boxes: NDArray[np.float32], size: tuple[int, int], *, beyond: bool = True
) -> "Crops":
    """The masks of all objects in an image of (height, width) `size`.

    Args:
        outlines: polygons as edges.
        boxes: [count, 4]. An object that holds no pixel's centre gets the pixel in the middle of its box.
        size: height and width of the image.
        beyond: where that middle lies outside of the image, the nearest pixel stands for it; otherwise none.
    """
    from torchfpn.ops.masks import Crops

    windows = windows_of(outlines, size)
    pixels = _filled(outlines, windows[outlines.objects])
    pixels = _joined(pixels, outlines.objects, windows)
    return with_center_pixel(Crops.of(windows, pixels, size), boxes, beyond=beyond)


def windows_of(outlines: Outlines, size: tuple[int, int]) -> Ints:
    """[count, 4]: x1, y1, x2, y2 of the pixels whose centres an object may hold; zeros where there are none."""
    low, high = np.full((outlines.count, 2), np.inf), np.full((outlines.count, 2), -np.inf)
    if len(outlines.owner):
        owner = outlines.objects[outlines.owner]
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        low[owner[first]] = np.minimum(
            np.minimum.reduceat(outlines.start, first), np.minimum.reduceat(outlines.end, first)
        )
        high[owner[first]] = np.maximum(
            np.maximum.reduceat(outlines.start, first), np.maximum.reduceat(outlines.end, first)
        )
    limit = np.array([size[1], size[0]], np.float64)
    low, high = np.clip(np.ceil(low - 0.5), 0, limit), np.clip(np.ceil(high - 0.5), 0, limit)
    windows = np.concatenate([low, high], 1).astype(np.int64)
    windows[(high <= low).any(1)] = 0
    return windows


def with_center_pixel(crops: "Crops", boxes: NDArray[np.float32], *, beyond: bool = True) -> "Crops":
    """The same, objects without a pixel given the one in the middle of their box [N, 4]. beyond: see `draw_masks`."""
    from torchfpn.ops.masks import Crops

    totals = np.concatenate([[0], np.cumsum(crops.pixels.numpy(), dtype=np.int64)])
    starts = crops.starts().numpy()
    empty = np.flatnonzero(totals[starts[1:]] == totals[starts[:-1]])
    height, width = crops.size
    middle = np.floor((boxes[empty, :2].astype(np.float64) + boxes[empty, 2:]) / 2)
    inside = ((middle >= 0) & (middle < [width, height])).all(1) | beyond
    empty, middle = empty[inside], middle[inside]
    if not len(empty):
        return crops
    middle = np.clip(np.nan_to_num(middle), 0, [width - 1, height - 1]).astype(np.int64)
    windows = crops.windows.numpy().copy()
    windows[empty] = np.concatenate([middle, middle + 1], 1)
    keep = np.ones(len(crops.pixels), bool)
    for i in empty:
        keep[starts[i] : starts[i + 1]] = False
    kept = crops.pixels.numpy()[keep]
    sizes = np.diff(starts)
    sizes[empty] = 0
    pixels = np.insert(kept, sizes.cumsum()[empty], True)
    return Crops.of(windows, pixels, crops.size)


def _filled(outlines: Outlines, windows: Ints) -> NDArray[np.bool_]:
    """The pixels of each polygon in its window [P, 4], one after the other, column by column."""
    sides = windows[:, 2:] - windows[:, :2]
    stride = sides[:, 1] + 1  # a column, and a place for crossings below it
    base = np.concatenate([[0], (sides[:, 0] * stride).cumsum()])
    turned = outlines.start[:, 0] > outlines.end[:, 0]  # from left to right: shared edges are then the same numbers
    x1, y1 = np.where(turned[:, None], outlines.end, outlines.start).T
    x2, y2 = np.where(turned[:, None], outlines.start, outlines.end).T
    left, top, right, bottom = windows[outlines.owner].T
    first = np.clip(np.ceil(x1 - 0.5), left, right).astype(np.int64)
    count = np.clip(np.ceil(x2 - 0.5), left, right).astype(np.int64) - first
    edge = np.repeat(np.arange(len(count)), count)
    column = first[edge] + np.arange(len(edge)) - np.repeat(count.cumsum() - count, count)
    share = (column + 0.5 - x1[edge]) / (x2 - x1)[edge]
    y = y1[edge] + share * (y2 - y1)[edge]
    row = np.clip(np.ceil(y - 0.5), top[edge], bottom[edge]).astype(np.int64)
    owner = outlines.owner[edge]
    place = base[owner] + (column - left[edge]) * stride[owner] + row - top[edge]
    flips = np.zeros(base[-1], np.uint8)
    np.add.at(flips, place, 1)
    flips &= 1
    on = np.bitwise_xor.accumulate(flips).astype(bool)
    below = np.repeat(stride, sides[:, 0]).cumsum() - 1
    return np.delete(on, below)


def _joined(pixels: NDArray[np.bool_], objects: Ints, windows: Ints) -> NDArray[np.bool_]:
    """Pixels of polygons -> of objects: those of one object, all in its window, are joined."""
    counts = np.bincount(objects, minlength=len(windows))
    if (counts <= 1).all():  # one without a polygon has an empty window
        return pixels
    areas = (windows[:, 2:] - windows[:, :2]).prod(1)
    starts = np.concatenate([[0], (areas * counts).cumsum()])
    keep = np.ones(len(pixels), bool)
    for i in np.flatnonzero(counts > 1):
        parts = pixels[starts[i] : starts[i + 1]].reshape(counts[i], areas[i])
        parts[0] = parts.any(0)
        keep[starts[i] + areas[i] : starts[i + 1]] = False
    return pixels[keep]
