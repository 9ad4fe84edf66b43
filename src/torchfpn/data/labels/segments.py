"""Panoptic labels of an image: the segment of every pixel, and the class of every segment."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchfpn.geo.window import Window
from torchfpn.ops.extents import extents
from torchfpn.recipe import IGNORE

VOID = 0  # the id of pixels of no segment: not labelled, or without data


@dataclass(frozen=True)
class SegmentMap:
    """S segments of an image: each thing, and the pixels of each stuff class. No segment is without a pixel.

    Attributes:
        ids: int32 [H, W], `VOID` where nothing is labelled.
        numbers: int64 [S] the id of each segment.
        labels: int64 [S] class indices, things first.
        crowds: bool [S] areas of one class whose things are not told apart.
        windows: int64 [S, 4] (x1, y1, x2, y2) tight boxes of their pixels, ends excluded.
        areas: int64 [S] pixels.
    """

    ids: NDArray[np.int32]
    numbers: NDArray[np.int64]
    labels: NDArray[np.int64]
    crowds: NDArray[np.bool_]
    windows: NDArray[np.int64]
    areas: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        ids: NDArray[np.int32],
        numbers: NDArray[np.int64],
        labels: NDArray[np.int64],
        crowds: NDArray[np.bool_] | None = None,
    ) -> "SegmentMap":
        """The segments `numbers` [S] as far as they have pixels; ids of no segment become `VOID`.

        Args:
            ids: int32 [H, W].
            numbers: id of each segment.
            labels: class of each segment.
            crowds: see the attribute; None: no segment is one.
        """
        known = np.unique(numbers)
        found = extents(ids)
        if len(np.setdiff1d(found.ids, known)):
            ids = np.where(_table(numbers, np.ones(len(numbers), np.uint8), ids) > 0, ids, np.int32(VOID))
            found = extents(ids)
        at = np.searchsorted(found.ids, numbers)
        there = at < len(found.ids)
        there[there] = found.ids[at[there]] == numbers[there]
        at = at[there]
        crowds = np.zeros(len(numbers), bool) if crowds is None else crowds
        return cls(ids, numbers[there], labels[there], crowds[there], found.windows[at], found.pixels[at])

    @functools.cached_property
    def semantic(self) -> NDArray[np.uint8]:
        """[H, W] class indices; `IGNORE` where the id is `VOID`."""
        shifted = _table(self.numbers, (self.labels + 1).astype(np.uint8), self.ids)
        return shifted - np.uint8(1)  # 0 - 1 is IGNORE

    def crop(self, window: Window) -> "SegmentMap":
        """The segments in a window within the image."""
        return SegmentMap.of(self.ids[window.slices], self.numbers, self.labels, self.crowds)

    def where(self, valid: NDArray[np.bool_] | None) -> "SegmentMap":
        """The segments on the pixels [H, W] that are `valid`; None: all."""
        if valid is None or valid.all():
            return self
        ids = np.where(valid, self.ids, np.int32(VOID))
        return SegmentMap.of(ids, self.numbers, self.labels, self.crowds)


assert np.iinfo(np.uint8).max == IGNORE  # what `semantic` counts on


def _table(numbers: NDArray[np.int64], values: NDArray[np.uint8], ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """[H, W] the value of the segment of each pixel; 0 for ids of no segment."""
    table = np.zeros(max(int(ids.max(initial=0)), int(numbers.max(initial=0))) + 1, np.uint8)
    table[numbers] = values
    return np.asarray(table[ids])
