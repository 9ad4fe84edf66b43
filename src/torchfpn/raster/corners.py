"""Where the outlines of a label map turn: corners of pixels, and the straight sides between them.

An outline runs along cracks, the unit edges between pixels of two values, with its area on the right hand. Of the sides
that run one way, starts and ends follow each other along a row or a column: the k-th start belongs to the k-th end, and
no crack is ever walked. Areas are connected by 4-neighbourhood: where two pixels of an area meet at a corner only, the
outline turns right and keeps them apart (`rings` mends what comes of it).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
EAST, SOUTH, WEST, NORTH = WAYS = range(4)  # each is a right turn from the one before


@dataclass(frozen=True)
class Corners:
    """Corners where an outline turns, and gates: points of the frame around the block that a crack runs through.

    rows, columns: int64 [N] in the frame, row by row. cracks: [4, N] whether one leads east, south, west, north.
    pixels: [4, N] codes south-east, south-west, north-west, north-east. gates: [4, N] whether the block is left here
    going that way.
    """

    rows: Ints
    columns: Ints
    cracks: Bools
    pixels: NDArray[Any]
    gates: Bools

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, visits: Ints) -> tuple[Ints, Ints]:
        """The ways they come in, and the numbers of their corners."""
        ways, at = np.divmod(visits, max(1, len(self)))
        return ways, at

    def at_gate(self, visits: Ints, way: int) -> Bools:
        """Whether they are at a gate where the block is left going that way."""
        return np.asarray(self.gates[way][self.split(visits)[1]])

    def along(self, way: int, visits: Ints, corner: tuple[int, int]) -> Ints:
        """The row on the map, going east or west, else the column."""
        at = self.split(visits)[1]
        return self.rows[at] + (corner[0] - 1) if way in (EAST, WEST) else self.columns[at] + (corner[1] - 1)


@dataclass(frozen=True)
class Sides:
    """The straight sides that run one way, by rows (east, west) or columns. begins, ends: visits, way * N + corner.

    A visit is named by the way it comes in; one that begins at a gate by the way it goes on.
    """

    begins: Ints
    ends: Ints


def corners_of(framed: NDArray[Any], upright: Bools, level: Bools) -> Corners:
    """Those of a block, and its gates.

    framed: [H, W] codes in a frame of their own outermost pixels, so that cracks run on to it. upright, level:
    [H, W - 1], [H - 1, W] whether a crack is between a pixel and the one to its right, or below it.
    """
    found = (upright[:-1] | upright[1:]) & (level[:, :-1] | level[:, 1:])
    found[[0, -1]], found[:, [0, -1]] = upright[[0, -1]], level[:, [0, -1]]
    rows, columns = np.divmod(np.flatnonzero(found), found.shape[1])
    cracks = np.stack(
        [level[rows, columns + 1], upright[rows + 1, columns], level[rows, columns], upright[rows, columns]]
    )
    steps = ((1, 1), (1, 0), (0, 0), (0, 1))
    pixels = np.stack([framed[rows + down, columns + right] for down, right in steps])
    bottom, right = found.shape[0] - 1, found.shape[1] - 1
    gates = np.stack([columns == right, rows == bottom, columns == 0, rows == 0])
    return Corners(rows, columns, cracks, pixels, gates)


def sides_of(corners: Corners, nodes: bool) -> list[Sides]:
    """Those of all areas whose code is not 0, for each way.

    nodes: sides also end where the border between two other areas does.
    """
    count, sides = len(corners), []
    inner = ~corners.gates.any(0)
    short = corners.columns.max(initial=0) < 2**16
    down = np.argsort(corners.columns.astype(np.uint16 if short else np.int64), kind="stable")  # 16 bits: radix sort
    for way in WAYS:
        ahead, right, back, left = (corners.cracks[(way + turn) % 4] for turn in range(4))
        past = left if nodes else np.zeros_like(left)  # straight on, at the end of another border
        comes = inner & (right | ~ahead | past) | corners.gates[way]
        comes &= back & (corners.pixels[(way + 1) % 4] > 0)
        goes = inner & (right | ~back | past) | corners.gates[way - 2]
        goes &= ahead & (corners.pixels[way] > 0)
        came = np.where(right, (way - 1) % 4, np.where(back, way, (way + 1) % 4))
        order = down if way in (SOUTH, NORTH) else slice(None)
        visits = (came * count + np.arange(count))[order]
        sides.append(Sides(visits[goes[order]], (way * count + np.arange(count))[order][comes[order]]))
    return sides
