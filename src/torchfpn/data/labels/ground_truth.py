"""The objects of an image as its labels say, in whichever form: COCO, label images, polygons."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops


_CUT = 1e-3  # pixels

Masks = Callable[[NDArray[np.int64]], "Crops"]


def _none() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class GroundTruth:
    """N objects of an image that is not augmented.

    boxes: float32 [N, 4] (x1, y1, x2, y2) in pixels; they may reach out of the image. labels: int64 [N] 0-based
    classes. crowds: float32 [M, 4]. size: (height, width) of the image. masks: of the objects with the numbers given
    [K], gives those; made only when asked for, since a crop needs few of them. None: only boxes are known. dropped:
    labels of the image that cannot be used and are left out, as the dataset's `fix` says.
    """

    boxes: NDArray[np.float32] = field(default_factory=_none)
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    crowds: NDArray[np.float32] = field(default_factory=_none)
    size: tuple[int, int] = (0, 0)
    masks: Masks | None = None
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.boxes)


def clip_boxes(
    boxes: NDArray[np.float64],
    size: tuple[int, int],
    *,
    visible: float = 0.0,
    covering: float = 0.0,
    smallest: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Boxes cut at the edges of an image, which of them were cut, and which of them are shown.

    Args:
        boxes: [N, 4] (x1, y1, x2, y2) in pixels of the image; they may reach out of it.
        size: (height, width) of the image.
        visible: share of its box that must be left, 0..1,
        covering: or the share of the image that what is left of the box must cover, 0..1.
        smallest: pixels that both sides of a box must have, 0: anything above 0; of one that is cut, at least 1.

    Returns:
        The boxes [N, 4] as the image shows them, and twice [N] bool.
    """
    inside = np.clip(boxes, 0, np.array([size[1], size[0]] * 2, np.float64))
    sides, whole = inside[:, 2:] - inside[:, :2], boxes[:, 2:] - boxes[:, :2]
    cut = np.abs(inside - boxes).max(1) > _CUT
    left, shorter = sides.prod(1), sides.min(1)
    enough = (left >= visible * whole.prod(1)) | (left >= covering * size[0] * size[1])
    shown = enough & (shorter > 0) & (shorter >= np.where(cut, max(smallest, 1.0), smallest))
    return inside, cut, shown


def overlaps(boxes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which of the boxes [N, 4] share an area with an image of (height, width) `size`."""
    return np.asarray((boxes[:, :2] < [size[1], size[0]]).all(1) & (boxes[:, 2:] > 0).all(1))
