"""The objects of an image as its labels say, in whichever form: COCO, label images, polygons."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from torchfpn.ops.masks import Crops

Masks = Callable[[NDArray[np.int64]], Crops]


def _none() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Truth:
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


def meets(boxes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which of the boxes [N, 4] share an area with an image of (height, width) `size`."""
    return np.asarray((boxes[:, :2] < [size[1], size[0]]).all(1) & (boxes[:, 2:] > 0).all(1))
