"""Blending of overlapping windows: probabilities fade from one window into the next over twice the margin.

Beside its own block, a window stores the probabilities of its rim, the pixels that neighbouring windows see as well.
When all windows are done, the rims are averaged with weights that rise and fall linearly across each seam and add up to
one. Rims lie on the disk; few are in memory at a time.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import ConfigError
from torchfpn.geo.window import Block

BUDGET = 2**28  # bytes of rims in memory

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Seams:
    """Where the windows of a plan overlap.

    side: of the blocks. margin: around them, as in the plan. height, width: of the raster.
    """

    side: int
    margin: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if not 1 <= self.margin <= self.side // 2:
            allowed = f"1 to {self.side // 2}, half a block, for blending"
            raise ConfigError(f"{self.margin}", field="--margin", allowed=allowed)

    def rim(self, block: Block) -> NDArray[np.bool_]:
        """[h, w] of the window: whether other windows may see the pixel."""
        rows, columns = self._weights(block)
        return (rows < 1)[:, None] | (columns < 1)

    def weights(self, block: Block) -> NDArray[np.float32]:
        """[h, w] of the window, 0..1; over all windows they add up to 1 everywhere."""
        rows, columns = self._weights(block)
        return rows[:, None] * columns

    def _weights(self, block: Block) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        (row, column, rows, columns), (top, left, tall, wide) = block.block, block.window
        return (
            self._along(row, rows, top, tall, self.height),
            self._along(column, columns, left, wide, self.width),
        )

    def _along(self, start: int, count: int, first: int, length: int, whole: int) -> NDArray[np.float32]:
        """[length] weights on one axis of a window that begins at `first`; its block: `count` pixels from `start`."""
        places = np.arange(first, first + length)
        weights = np.ones(length)
        if start > 0:
            weights *= self._rise(places, start, whole)
        if start + count < whole:
            weights *= 1 - self._rise(places, start + count, whole)
        return weights.astype(np.float32)

    def _rise(self, places: NDArray[np.int64], seam: int, whole: int) -> NDArray[np.float64]:
        """From 0 to 1 over the pixels that both sides of a seam see."""
        low, high = seam - self.margin, min(seam + self.margin, whole)
        return np.clip((places - low + 0.5) / (high - low), 0, 1)


class Blender:
    """Blends blocks with the rims of their neighbours.

    read: number of a block -> its arrays: "labels" [h, w] of the block, "rim" [K, n] float16 of the window, and where
    wanted "scores" [h, w] uint8 and "probabilities" [K, h, w]. values: what each class is in the labels; nodata: what
    "no data" is.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        seams: Seams,
        read: Callable[[int], Arrays],
        *,
        values: NDArray[Any],
        nodata: int,
        budget: int = BUDGET,
    ) -> None:
        self.blocks, self.seams, self.read, self.values, self.nodata = blocks, seams, read, values, nodata
        self.places = {self._place(block): block.index for block in blocks}
        self.cache: OrderedDict[int, Arrays] = OrderedDict()
        self.budget = budget

    def block(self, index: int) -> dict[str, NDArray[Any]]:
        """The blended arrays of a block: all of its window but "rim"."""
        block = self.blocks[index]
        own = self._get(index)
        blended, shared = self._blended(block)
        result = {name: array.copy() for name, array in own.items() if name != "rim"}
        there = shared & (result["labels"] != self.nodata)
        blended = blended[:, there[shared]]
        best = blended.argmax(0) if len(blended) else np.zeros(0, np.int64)
        result["labels"][there] = self.values[best]
        if "scores" in result:
            result["scores"][there] = np.rint(255 * blended.max(0))
        if "probabilities" in result:
            probabilities = result["probabilities"]
            probabilities[:, there] = np.rint(255 * blended) if probabilities.dtype == np.uint8 else blended
        return result

    def _blended(self, block: Block) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Probabilities [K, n] of the pixels that several windows see, and which of the block's [h, w] these are."""
        row, column, rows, columns = block.block
        shared = self.seams.rim(block)[block.inside]
        total = np.zeros((rows, columns), np.float32)
        probabilities: NDArray[np.float32] | None = None
        i, j = self._place(block)
        for near in ((i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)):
            if (number := self.places.get(near)) is None:
                continue
            other = self.blocks[number]
            top, left, tall, wide = other.window
            y0, y1 = max(row, top), min(row + rows, top + tall)
            x0, x1 = max(column, left), min(column + columns, left + wide)
            if y0 >= y1 or x0 >= x1:
                continue
            here = slice(y0 - row, y1 - row), slice(x0 - column, x1 - column)
            there = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
            rim = self.seams.rim(other)
            flat = self._get(number)["rim"]
            whole = np.zeros((len(flat), *rim.shape), np.float32)
            whole[:, rim] = flat
            weights = (self.seams.weights(other) * rim)[there]
            if probabilities is None:
                probabilities = np.zeros((len(flat), rows, columns), np.float32)
            probabilities[:, *here] += np.nan_to_num(whole[:, *there]) * weights
            total[here] += weights
        assert probabilities is not None  # a block is among its own neighbours
        return probabilities[:, shared] / total[shared], shared

    def _get(self, index: int) -> Arrays:
        if index in self.cache:
            self.cache.move_to_end(index)
            return self.cache[index]
        self.cache[index] = block = self.read(index)
        while len(self.cache) > 1 and sum(_bytes(arrays) for arrays in self.cache.values()) > self.budget:
            self.cache.popitem(last=False)
        return block

    def _place(self, block: Block) -> tuple[int, int]:
        return block.block[0] // self.seams.side, block.block[1] // self.seams.side


def _bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
