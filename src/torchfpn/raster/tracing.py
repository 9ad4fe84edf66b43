"""Polygons of a label map of any size: traced block by block, joined across the seams, handed on as they close.

labels of a block --pieces--> pieces of outlines --joined here--> closed rings --rings--> polygons

They are those of the whole map traced at once. What is kept between blocks: one row and one column of labels, and the
pieces of the areas that reach a seam whose other side has not come yet.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import RasterError
from torchfpn.files.geo import Window
from torchfpn.raster.corners import EAST, SOUTH, Ints
from torchfpn.raster.pieces import Pieces, trace_block
from torchfpn.raster.rings import polygons_of

Read = Callable[[int], NDArray[Any]]  # number in a plan -> that block


class Areas(NamedTuple):
    """values, polygons: [N] in (column, row). scores: [N] mean over the pixels of each area, 0..1; None without any."""

    values: Ints
    polygons: NDArray[Any]
    scores: NDArray[np.float64] | None = None


def trace_blocks(
    plan: Sequence[Window],
    read: Read,
    values: Sequence[int],
    *,
    nodes: bool = False,
    least: float = 0.0,
    scores: Read | None = None,
) -> Iterator[Areas]:
    """The areas that are complete after a block, by 4-neighbourhood.

    plan: blocks that tile the map, in bands from top to bottom, from left to right. read: number in the plan -> labels
    [H, W] of that block, integers; asked once for each, in order. values: those that get polygons. nodes: vertices also
    where the borders of other areas end, so that the polygons are a valid coverage. least: holes of fewer pixels are
    filled, then areas of fewer left out. scores: number in the plan -> uint8 [H, W], 255 times the score of each pixel;
    sums are whole numbers, so that the mean does not depend on the plan. Filled holes do not count.

    Raises:
        RasterError: blocks that do not follow each other so, or labels or scores of another size than their block.
    """
    height, width = _size(plan)
    values = sorted(set(values))
    halo, areas = _Halo(width), _OpenAreas(height, width)
    for i, block in enumerate(plan):
        row, column, rows, columns = block
        codes = _coded(_sized(read(i), block, i, "labels"), values)
        marks = None if scores is None else _sized(scores(i), block, i, "scores")
        framed = halo.around(codes, block, last=(row + rows == height, column + columns == width))
        pieces = trace_block(framed, rows, (row, column), width, halo.carry, areas.count, nodes=nodes, scores=marks)
        halo.carry = pieces.carry
        inside, rings, sums = areas.add(pieces)
        polygons, which, pixels = polygons_of(rings, width, least)
        if len(polygons):
            means = None if scores is None else sums[which] / (255 * pixels)
            yield Areas(np.array(values)[inside[which] - 1], polygons, means)


def _sized(array: NDArray[Any], block: Window, number: int, what: str) -> NDArray[Any]:
    if array.shape != block[2:]:
        found = " x ".join(map(str, array.shape))
        raise RasterError(f"{what} of {found}", field=f"block {number}", allowed=f"{block[2]} x {block[3]}")
    return array


def _size(plan: Sequence[Window]) -> tuple[int, int]:
    """(height, width) of the map that the blocks tile.

    Raises:
        RasterError: they do not.
    """
    width = max((column + columns for _, column, _, columns in plan), default=0)
    row, column, tall = 0, 0, plan[0][2] if plan else 0
    for i, block in enumerate(plan):
        if column == width:
            row, column, tall = row + tall, 0, block[2]
        if block[:3] != (row, column, tall) or min(block[2:]) < 1:
            allowed = f"the one at row {row}, column {column}, of {tall} rows: bands of blocks that tile the map"
            raise RasterError(f"{block}", field=f"block {i}", allowed=allowed)
        column += block[3]
    if not plan or column != width:
        raise RasterError(f"{len(plan)} blocks", field="plan", allowed="bands of blocks that tile the map")
    return row + tall, width


def _coded(labels: NDArray[Any], values: Sequence[int]) -> NDArray[Any]:
    """Labels as numbers from 1 in `values`, 0 for all others, which are never told apart."""
    kind = np.min_scalar_type(len(values))
    if labels.dtype.kind == "u" and labels.dtype.itemsize <= 2:
        table = np.zeros(np.iinfo(labels.dtype).max + 1, kind)
        for code, value in enumerate(values, 1):
            if 0 <= value < len(table):
                table[value] = code
        return np.asarray(table[labels])
    if not values:
        return np.zeros(labels.shape, kind)
    known = np.array(values)
    found = np.minimum(np.searchsorted(known, labels), len(known) - 1)
    return np.where(known[found] == labels, found + 1, 0).astype(kind)


class _Halo:
    """What a block has to know of those above it and to its left.

    above, below: [width] codes of the last row of the band above, and of this one. left: of the last column of the
    block to the left. carry: see `Pieces`.
    """

    def __init__(self, width: int) -> None:
        self.above: NDArray[Any] = np.zeros(width, np.uint8)
        self.below, self.left = self.above, self.above[:0]
        self.carry: Ints = np.zeros(0, np.int64)

    def around(self, codes: NDArray[Any], block: Window, last: tuple[bool, bool]) -> NDArray[Any]:
        """The block's codes with the row above, the column to the left, and zeros beyond the map's end."""
        _, column, rows, columns = block
        if column == 0:
            self.above, self.below = self.below, np.zeros(len(self.below), codes.dtype)
            self.carry = np.full(rows, -1)
        result = np.zeros((1 + rows + last[0], 1 + columns + last[1]), codes.dtype)
        result[1 : 1 + rows, 1 : 1 + columns] = codes
        result[0, 1 : 1 + columns] = self.above[column : column + columns]
        if column:
            result[0, 0], result[1 : 1 + rows, 0] = self.above[column - 1], self.left
        self.below[column : column + columns], self.left = codes[-1], codes[:, -1].copy()
        return result


@dataclass(slots=True)
class _Area:
    """Pieces of one area. ends: how many of theirs lie at seams whose other side has not come yet. score: the sum."""

    code: int
    pieces: list[int]
    ends: int
    score: int = 0


class _OpenAreas:
    """The areas that are not complete.

    count: of all pieces so far. areas, places, following: by the number of a piece its area, its vertices and the piece
    that goes on where it ends. waiting: for each way, the pieces at every row or column of the seams that are open.
    """

    def __init__(self, height: int, width: int) -> None:
        self.count = 0
        self.areas: dict[int, _Area] = {}
        self.places: dict[int, Ints] = {}
        self.following: dict[int, int] = {}
        self.waiting = [np.full(size + 1, -1) for size in (height, width, height, width)]

    def add(self, pieces: Pieces) -> tuple[Ints, list[list[Ints]], Ints]:
        """Code, rings and sum of scores of each area that is complete with the pieces of the next block."""
        opened = sum(len(numbers) for numbers, _ in pieces.heads)
        for i, (code, places) in enumerate(zip(pieces.codes, pieces.places, strict=True)):
            number = self.count + i
            self.areas[number] = _Area(code, [number], 2 if i < opened else 0)
            self.places[number] = places
        new = range(self.count, self.count + len(pieces.codes))
        self.count = new.stop
        for number, score in zip(*(part.tolist() for part in pieces.sums), strict=True):
            self.areas[number].score += score
        for one, other in pieces.links.tolist():
            self._merge(one, other)
        self._join(pieces)
        done = [self._take(number) for number in new if number in self.areas and not self.areas[number].ends]
        for number in new:
            if number in self.areas:
                self.places[number] = self.places[number].copy()  # lets go of the rest of the block
        codes, sums = (np.array([area[i] for area in done], np.int64) for i in (0, 2))
        return codes, [rings for _, rings, _ in done], sums

    def _join(self, pieces: Pieces) -> None:
        """Pieces go on across the seams at the top and left, and wait at those at the bottom and right."""
        for way, waiting in enumerate(self.waiting):
            (begun, at), (ended, to) = pieces.heads[way], pieces.tails[way]
            if way in (EAST, SOUTH):
                pairs, far, number = (waiting[at], begun), to, ended
            else:
                pairs, far, number = (ended, waiting[to]), at, begun
            for before, after in zip(pairs[0].tolist(), pairs[1].tolist(), strict=True):
                self.following[before] = after
                self._merge(before, after)
                self.areas[after].ends -= 2
            waiting[far] = number

    def _merge(self, one: int, other: int) -> None:
        large, small = self.areas[one], self.areas[other]
        if large is small:
            return
        if len(large.pieces) < len(small.pieces):
            large, small = small, large
        for piece in small.pieces:
            self.areas[piece] = large
        large.pieces += small.pieces
        large.ends += small.ends
        large.score += small.score

    def _take(self, number: int) -> tuple[int, list[Ints], int]:
        """Code, rings and sum of scores of the area that a piece belongs to; it is forgotten."""
        area, rings = self.areas[number], []
        for piece in area.pieces:
            del self.areas[piece]
            ring = []
            while piece in self.places:
                ring.append(self.places.pop(piece))
                piece = self.following.pop(piece, -1)
            if ring:
                rings.append(ring[0] if len(ring) == 1 else np.concatenate(ring))
        return area.code, rings, area.score
