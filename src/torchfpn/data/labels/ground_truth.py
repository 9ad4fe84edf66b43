"""The labelled objects of an image, whatever the format of the labels."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.labels.segments import SegmentMap
from torchfpn.ops.extents import crops_of

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops


_CLIPPED = 1e-3  # pixels that clipping takes from a box at least

Masks = Callable[[NDArray[np.int64]], "Crops"]


def _none() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class GroundTruth:
    """N objects of an image as labelled, before augmentation.

    Attributes:
        boxes: float32 [N, 4] (x1, y1, x2, y2) in pixels; they may reach beyond the image.
        labels: int64 [N] class indices.
        crowds: float32 [M, 4] boxes of areas with objects that are not told apart.
        size: (height, width) of the image in pixels.
        masks: function from indices [K] of objects to their masks, since a crop needs few of them; None: boxes alone.
        dropped: bad labels of the image that `fix` leaves out.
        segments: of panoptic datasets, things and stuff of the image; None: only objects are labelled.
        overlapping: of panoptic datasets, pixels on which several objects are labelled.
        hidden: of panoptic datasets, objects without a pixel that no other object covers; they are left out.
    """

    boxes: NDArray[np.float32] = field(default_factory=_none)
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    crowds: NDArray[np.float32] = field(default_factory=_none)
    size: tuple[int, int] = (0, 0)
    masks: Masks | None = None
    dropped: int = 0
    segments: SegmentMap | None = None
    overlapping: int = 0
    hidden: int = 0

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def semantic(self) -> NDArray[np.uint8] | None:
        """[H, W] class indices of things and stuff, `IGNORE` where unknown; None outside of panoptic datasets."""
        return None if self.segments is None else self.segments.semantic

    def where(self, valid: NDArray[np.bool_] | None) -> "GroundTruth":
        """The truth with segments on the pixels [H, W] with data alone; boxes and masks stay whole."""
        return self if self.segments is None else replace(self, segments=self.segments.where(valid))


def truth_of_segments(segments: SegmentMap, things: int, boxes: NDArray[np.float32] | None = None) -> GroundTruth:
    """The ground truth of a panoptic image.

    Args:
        segments: of the image.
        things: how many of the first classes are things.
        boxes: [S, 4] of the segments; None: those of their pixels.

    Returns:
        The things in the order of the segments; the boxes of crowds.
    """
    boxes = segments.windows.astype(np.float32) if boxes is None else boxes
    thing = segments.labels < things
    own, crowds = np.flatnonzero(thing & ~segments.crowds), np.flatnonzero(thing & segments.crowds)
    numbers, windows = segments.numbers[own], segments.windows[own]

    def masks(keep: NDArray[np.int64]) -> "Crops":
        return crops_of(segments.ids, numbers[keep], windows[keep])

    height, width = segments.ids.shape
    return GroundTruth(boxes[own], segments.labels[own], boxes[crowds], (height, width), masks, segments=segments)


@dataclass(frozen=True)
class ObjectLabels:
    """N objects of an image as a file labels them: they may overlap, and crowds are among them.

    Attributes:
        boxes: float32 [N, 4] (x1, y1, x2, y2) in pixels; they may reach beyond the image.
        labels: int64 [N] class indices; -1 of areas that are not labelled.
        crowds: bool [N] areas with objects that are not told apart.
        areas: float64 [N] sizes of the whole objects, all in one unit.
        masks: function from rising indices [K] of objects to their masks.
        size: (height, width) of the image in pixels.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowds: NDArray[np.bool_]
    areas: NDArray[np.float64]
    masks: Masks
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: NDArray[np.int64]) -> "ObjectLabels":
        """The objects `keep` [K], rising indices."""
        if len(keep) == len(self):
            return self
        return ObjectLabels(
            self.boxes[keep],
            self.labels[keep],
            self.crowds[keep],
            self.areas[keep],
            lambda own: self.masks(keep[own]),
            self.size,
        )


def clip_boxes(
    boxes: NDArray[np.float64],
    size: tuple[int, int],
    *,
    visible: float = 0.0,
    covering: float = 0.0,
    smallest: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Clips boxes to an image.

    Args:
        boxes: [N, 4] (x1, y1, x2, y2) in pixels of the image; they may reach beyond it.
        size: (height, width) of the image.
        visible: fraction of a box that must remain, 0..1,
        covering: or the fraction of the image that the remainder must cover, 0..1.
        smallest: smallest side of a box in pixels, 0: any above 0; of a clipped box, at least 1.

    Returns:
        Clipped boxes [N, 4]; which boxes were clipped, [N] bool; which are shown, [N] bool.
    """
    inside = np.clip(boxes, 0, np.array([size[1], size[0]] * 2, np.float64))
    sides, whole = inside[:, 2:] - inside[:, :2], boxes[:, 2:] - boxes[:, :2]
    clipped = np.abs(inside - boxes).max(1) > _CLIPPED
    left, shorter = sides.prod(1), sides.min(1)
    enough = (left >= visible * whole.prod(1)) | (left >= covering * size[0] * size[1])
    shown = enough & (shorter > 0) & (shorter >= np.where(clipped, max(smallest, 1.0), smallest))
    return inside, clipped, shown


def overlaps(boxes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which of the boxes [N, 4] overlap an image of (height, width) `size`, [N] bool."""
    return np.asarray((boxes[:, :2] < [size[1], size[0]]).all(1) & (boxes[:, 2:] > 0).all(1))
