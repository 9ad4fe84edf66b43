"""The outlines inside one block of a label map, as pieces: closed rings, and lines that end at the block's seams.

A block owns the corners at the top and left of its pixels, and the cracks of these two seams; at the map's bottom and
right the last ones too. So every turn is found once, in one block, and a side that runs across a seam gets no vertex
there.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.raster.corners import NORTH, SOUTH, WAYS, Bools, Corners, Ints, Sides, corners_of, sides_of

_NONE: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Pieces:
    """The outlines inside one block, numbered through the whole map; the open ones come first.

    places: the vertices of each piece (`place_of`). codes: what is inside each. heads, tails: for each way, (pieces,
    rows or columns on the map) of those that begin and end at a seam going that way. links: [N, 2] pieces that belong
    to one area. carry: [height] the pieces at the left end of the runs of pixels that touch the right seam; -1 where
    these are not traced. sums: pieces, each once, and the sum of the scores of the pixels that belong to it.
    """

    places: list[Ints]
    codes: list[int]
    heads: list[tuple[Ints, Ints]]
    tails: list[tuple[Ints, Ints]]
    links: Ints
    carry: Ints
    sums: tuple[Ints, Ints]


def trace_block(
    codes: NDArray[Any],
    height: int,
    corner: tuple[int, int],
    width: int,
    carry: Ints,
    first: int,
    *,
    nodes: bool,
    scores: NDArray[np.uint8] | None = None,
) -> Pieces:
    """The outlines of all pixels whose code is not 0.

    codes: [1 + height (+ 1), 1 + W (+ 1)] the block, the pixels above and to its left, and zeros beyond the map's end.
    corner: (row, column) of its first pixel. width: of the map. carry: what the block to the left gave. first: number
    of the first piece. nodes: a vertex also where an outline runs straight past the border between two others, so that
    neighbours have the same vertices. scores: [height, W] of the pixels, to be summed.
    """
    framed = np.pad(codes, 1, mode="edge")  # cracks run on to the frame
    upright, level = framed[:, :-1] != framed[:, 1:], framed[:-1] != framed[1:]
    corners = corners_of(framed, upright, level)
    sides = sides_of(corners, nodes)
    heads = [sides[way].begins[corners.at_gate(sides[way].begins, way - 2)] for way in WAYS]
    tails = [sides[way].ends[corners.at_gate(sides[way].ends, way)] for way in WAYS]
    following = np.full(4 * len(corners), -1)
    for side in sides:
        following[side.begins] = side.ends
    visits, stops = _travelled(following, np.concatenate(tails))
    owner = np.full_like(following, -1)
    owner[visits] = np.repeat(np.arange(first, first + len(stops)), np.diff(stops, prepend=0))
    runs = _Runs(corners, sides[NORTH], owner, upright[2 : 2 + height], carry)
    links, carry = _links(runs, corners, sides, owner, framed)
    ways, at = corners.split(visits[stops - 1])
    return Pieces(
        _places(corners, visits, stops, sum(map(len, tails)), corner, width),
        corners.pixels[(ways + 1) % 4, at].tolist(),
        [(owner[visits], corners.along(way, visits, corner)) for way, visits in enumerate(heads)],
        [(owner[visits], corners.along(way, visits, corner)) for way, visits in enumerate(tails)],
        links,
        carry,
        (_NONE, _NONE) if scores is None else _sums(runs, framed, scores, first),
    )


def _travelled(following: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Visits in the order of travel, way after way, and how many there are after each; first those that have an end.

    following: [N] the visit after each, -1: not visited. By doubling (Wyllie 1979), all at once: every visit finds the
    smallest number ahead of it, its way's name, in steps of 1, 2, 4, ..., then how far away that is.
    """
    begun = np.flatnonzero(following >= 0)
    visits = np.concatenate([ends, begun])  # ends have the smallest numbers: each names its way
    number = np.empty_like(following)
    number[visits] = every = np.arange(len(visits))
    after = np.concatenate([every[: len(ends)], number[following[begun]]])
    name = _least_ahead(after)
    goal = name == every
    distance = _distance(np.where(goal, every, after), goal)
    way = (np.cumsum(goal) - 1)[name]
    stops = np.cumsum(np.bincount(way))
    result = np.empty_like(visits)
    result[stops[way] - 1 - distance] = visits
    return result, stops


def _least_ahead(after: Ints) -> Ints:
    least, ahead = np.arange(len(after)), after
    while not np.array_equal(least, found := np.minimum(least, least[ahead])):
        least, ahead = found, ahead[ahead]
    return least


def _distance(after: Ints, goal: Bools) -> Ints:
    distance = (~goal).astype(np.int64)
    while (further := distance[after]).any():
        distance += further
        after = after[after]
    return distance


def _places(
    corners: Corners, visits: Ints, stops: Ints, opened: int, corner: tuple[int, int], width: int
) -> list[Ints]:
    """The vertices of each piece; the gates at both ends of the first `opened` ones are none."""
    rows, columns = corners.rows + (corner[0] - 1), corners.columns + (corner[1] - 1)
    places = place_of(rows, columns, width, np.all(corners.cracks, axis=0))[corners.split(visits)[1]]
    pieces = [places[start:stop] for start, stop in pairwise([0, *stops.tolist()])]
    return [piece[1:-1] for piece in pieces[:opened]] + pieces[opened:]


def place_of(rows: Ints, columns: Ints, width: int, crossings: Bools) -> Ints:
    """A corner of pixels as one number: row by row, twice; odd where four cracks meet."""
    return np.asarray((rows * (width + 1) + columns) * 2 + crossings)


def _links(runs: "_Runs", corners: Corners, sides: list[Sides], owner: Ints, framed: NDArray[Any]) -> tuple[Ints, Ints]:
    """Pieces of one area, and the carry.

    From the leftmost side of each piece that has the area to its left, the run of pixels there leads to another piece
    further left; from that to the next, and at last to the outer ring.
    """
    south = sides[SOUTH]
    (_, start), (_, stop) = corners.split(south.begins), corners.split(south.ends)
    top = np.maximum(corners.rows[start], 1)  # a side from the frame is the block's from its first row on
    kept = np.flatnonzero(corners.rows[stop] > top)
    pieces, first = np.unique(owner[south.begins[kept]], return_index=True)  # sides come by columns
    leftmost = kept[first]
    links = np.stack([pieces, runs.left_of(top[leftmost] - 1, corners.columns[start[leftmost]])], axis=1)
    rows = np.flatnonzero(framed[2 : 2 + len(runs.carry), -1])
    carry = np.full_like(runs.carry, -1)
    carry[rows] = runs.left_of(rows, np.full_like(rows, runs.span))
    return links[links[:, 0] != links[:, 1]], carry


def _sums(runs: "_Runs", framed: NDArray[Any], scores: NDArray[np.uint8], first: int) -> tuple[Ints, Ints]:
    """Pieces and the sums of the scores of their pixels, run by run; every run belongs to the piece at its left end."""
    width = scores.shape[1]
    starts = runs.cracks[:, 1 : 1 + width].copy()
    starts[:, 0] = True
    begun = np.flatnonzero(starts)
    rows, columns = np.divmod(begun, width)
    inside = framed[2 + rows, 2 + columns] > 0
    sums = np.add.reduceat(scores.reshape(-1), begun, dtype=np.int64)[inside]
    pieces = runs.left_of(rows[inside], columns[inside] + 2)
    here = pieces >= first  # the others began in blocks further left: a few rows
    new = np.bincount(pieces[here] - first, sums[here])  # exact: far below 2^53
    old, index = np.unique(pieces[~here], return_inverse=True)
    numbers = np.concatenate([np.arange(len(new)) + first, old])
    totals = np.concatenate([new, np.bincount(index, sums[~here], minlength=len(old))]).astype(np.int64)
    return numbers[totals > 0], totals[totals > 0]


class _Runs:
    """Which piece is at the left end of a run of pixels of one value."""

    def __init__(self, corners: Corners, north: Sides, owner: Ints, cracks: Bools, carry: Ints) -> None:
        at = corners.split(north.ends)[1]
        self.cracks, self.carry = cracks, carry
        self.places, self.span = np.flatnonzero(cracks), cracks.shape[1]
        self.tall = len(carry) + 4
        self.sides = corners.columns[at] * self.tall + corners.rows[at]
        self.owner = owner[north.begins]

    def left_of(self, rows: Ints, columns: Ints) -> Ints:
        """rows: of pixels of the block. columns: of the cracks, in the frame, that the runs end at to the right."""
        found = np.searchsorted(self.places, rows * self.span + columns) - 1
        place = self.places[found] if len(self.places) else np.full_like(found, -1)
        inside = (found >= 0) & (place // self.span == rows)
        result = self.carry[rows]
        top = rows[inside] + 1  # in the frame: the corner above the crack
        side = np.searchsorted(self.sides, place[inside] % self.span * self.tall + top, "right") - 1
        result[inside] = self.owner[side]
        return result
