"""Where the classes of a scene lie: counts by small blocks, to find a pixel of a class without reading it all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.dataset import Dataset
from torchfpn.data.each import Watch, each, unwatched
from torchfpn.data.headers import Header
from torchfpn.data.reading import read_pair
from torchfpn.data.splits import Pair
from torchfpn.data.windows import SIDE
from torchfpn.files.geo import Window, tile, tiles

_SMALLEST, _MOST = 256, 2**16  # pixels of a block's side; blocks of a scene, so that memory does not follow its size


@dataclass(frozen=True)
class ClassIndex:
    """size: height and width of the scene. side: of a block. counts: uint32 [blocks, K], row by row."""

    size: tuple[int, int]
    side: int
    counts: NDArray[np.uint32]

    @property
    def totals(self) -> NDArray[np.int64]:
        """[K]: pixels of each class in the scene."""
        return np.asarray(self.counts.sum(0, dtype=np.int64))

    def block(self, chosen: int, draw: float) -> Window:
        """A block that holds the class, each as likely as it has pixels of it. draw: of [0, 1)."""
        sums = self.counts[:, chosen].cumsum(dtype=np.int64)
        number = int(np.searchsorted(sums, int(draw * int(sums[-1])), side="right"))
        return tile(self.size, (self.side, self.side), *divmod(number, -(-self.size[1] // self.side)))


def index_scene(dataset: Dataset, pair: Pair, header: Header, *, watch: Watch = unwatched) -> ClassIndex:
    """Counts the classes of a scene, a window at a time; pixels without image data are of none.

    Raises:
        DataError: the image or its labels cannot be used.
    """
    height, width = header.size
    side = _SMALLEST
    while math.ceil(height / side) * math.ceil(width / side) > _MOST:
        side *= 2
    step = max(side, SIDE)
    windows = tiles(header.size, (step, step))
    classes = len(dataset.classes)
    across = math.ceil(width / side)
    counts = np.zeros((math.ceil(height / side) * across, classes), np.uint32)

    def count(window: Window) -> list[NDArray[np.int64]]:
        target = read_pair(dataset, pair, window).target
        parts = tiles(target.shape, (side, side))
        return [np.bincount(target[r : r + h, c : c + w].ravel(), minlength=classes)[:classes] for r, c, h, w in parts]

    for (row, column, tall, wide), found in zip(windows, each(count, windows, watch), strict=True):
        for (top, left, _, _), line in zip(tiles((tall, wide), (side, side)), found, strict=True):
            counts[(row + top) // side * across + (column + left) // side] = line
    return ClassIndex(header.size, side, counts)


def index_scenes(
    dataset: Dataset, pairs: Sequence[Pair], scenes: dict[int, Header], *, watch: Watch = unwatched
) -> dict[int, ClassIndex]:
    """The index of every scene, by the number of its pair."""
    return {i: index_scene(dataset, pairs[i], header, watch=watch) for i, header in scenes.items()}
