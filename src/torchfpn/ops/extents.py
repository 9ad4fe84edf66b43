"""Instance maps (images of numbers, 0 for background): the window of each number, and the masks of some of them."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops


class Extents(NamedTuple):
    """Where the ids of an image are.

    ids: int64 [N], rising, without 0. windows: int64 [N, 4] (x1, y1, x2, y2), the smallest. pixels: [N] how many.
    first: [N] the first pixel of each, row by row.
    """

    ids: NDArray[np.int64]
    windows: NDArray[np.int64]
    pixels: NDArray[np.int64]
    first: NDArray[np.int64]


def extents(values: NDArray[Any]) -> Extents:
    """Of the ids other than 0 in an image [H, W] of whole numbers; memory follows runs of equal pixels, not pixels."""
    width = values.shape[1]
    turns = np.ones(values.shape, bool)
    np.not_equal(values[:, 1:], values[:, :-1], out=turns[:, 1:])
    begin = np.flatnonzero(turns)
    length = np.diff(begin, append=values.size)
    ids = values.reshape(-1)[begin].astype(np.int64)
    order = np.argsort(ids, kind="stable")
    order = order[ids[order] != 0]
    ids, begin, length = ids[order], begin[order], length[order]
    first = np.flatnonzero(np.diff(ids, prepend=0))
    if not len(first):
        nothing = np.zeros(0, np.int64)
        return Extents(nothing, np.zeros((0, 4), np.int64), nothing, nothing)
    row, column = np.divmod(begin, width)
    windows = [
        np.minimum.reduceat(column, first),
        row[first],  # runs of an id come row by row
        np.maximum.reduceat(column + length, first),
        np.maximum.reduceat(row, first) + 1,
    ]
    return Extents(ids[first], np.stack(windows, 1), np.add.reduceat(length, first), begin[first])


def components(values: NDArray[Any]) -> NDArray[np.int32]:
    """[H, W] numbers from 1, row by row, of the connected areas of one value other than 0; corners connect.

    Memory follows runs of equal pixels. Areas are found by giving every run the lowest number among its neighbours and
    then that one's number, until nothing changes.
    """
    height, width = values.shape
    turns = np.ones(values.shape, bool)
    np.not_equal(values[:, 1:], values[:, :-1], out=turns[:, 1:])
    begin = np.flatnonzero(turns)
    length = np.diff(begin, append=values.size)
    shown = values.reshape(-1)[begin]
    row, column = np.divmod(begin, width)
    start = row * (width + 2) + column  # rows apart by more than a pixel, so that ends do not touch the next one
    stop = start + length
    low = np.searchsorted(stop, start + width + 2, side="left")
    count = np.searchsorted(start, stop + width + 2, side="right") - low
    above = np.repeat(np.arange(len(begin)), count)
    below = np.arange(count.sum()) + np.repeat(low - (count.cumsum() - count), count)
    same = (shown[above] == shown[below]) & (shown[above] != 0)
    above, below = above[same], below[same]
    lowest = np.arange(len(begin))
    while True:
        before = lowest.copy()
        least = np.minimum(lowest[above], lowest[below])
        np.minimum.at(lowest, lowest[above], least)
        np.minimum.at(lowest, lowest[below], least)
        lowest = lowest[lowest]
        if (lowest == before).all():
            break
    _, numbers = np.unique(lowest[shown != 0], return_inverse=True)
    filled = np.zeros(len(begin), np.int32)
    filled[shown != 0] = numbers + 1
    return np.repeat(filled, length).reshape(height, width)


def crops_of(values: NDArray[Any], ids: NDArray[np.int64], windows: NDArray[np.int64]) -> "Crops":
    """The pixels of `ids` [N] in an image [H, W]. windows: [N, 4], those of `extents`."""
    from torchfpn.ops.masks import Crops

    made = [
        (values[y1:y2, x1:x2] == own).T.reshape(-1)
        for own, (x1, y1, x2, y2) in zip(ids.tolist(), windows.tolist(), strict=True)
    ]
    pixels = np.concatenate(made) if made else np.zeros(0, bool)
    return Crops.of(windows, pixels, (values.shape[0], values.shape[1]))
