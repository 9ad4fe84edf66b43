"""Label maps of any size to polygons, streamed block by block; they equal those of the whole map.

labels of a block -> pieces of outlines (`trace_block`) -> rings across seams (`_OpenAreas`) -> `polygons_of`

An outline runs along cracks, the unit edges between pixels of two values, with its area on the right hand. Starts and
ends of the sides that run one way follow each other along a row or a column: the k-th start belongs to the k-th end, so
no crack is walked. Areas are connected by 4-neighbourhood: where two pixels of an area meet at a corner only, the
outline turns right and keeps them apart.

A block owns the corners at the top and left of its pixels and the cracks of these two seams, at the map's bottom and
right the last ones too. So every turn is found once, and a side that runs across a seam gets no vertex there. Between
blocks one row and one column of labels is kept, and the pieces of areas that reach an open seam.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.errors import RasterError
from torchfpn.geo.window import Window

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
EAST, SOUTH, WEST, NORTH = WAYS = range(4)  # each is a right turn from the one before
_NONE: Ints = np.zeros(0, np.int64)
Read = Callable[[int], NDArray[Any]]  # number in a plan -> that block


@dataclass(frozen=True)
class Corners:
    """Corners where an outline turns, and gates: points of the frame around the block that a crack runs through.

    Attributes:
        rows, columns: int64 [N] in the frame, row by row.
        cracks: [4, N] whether one leads east, south, west, north.
        pixels: [4, N] codes south-east, south-west, north-west, north-east.
        gates: [4, N] whether the block is left here going that way.
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

    Args:
        framed: [H, W] codes in a frame of their own outermost pixels, so that cracks run on to it.
        upright: [H, W - 1], [H - 1, W] whether a crack is between a pixel and the one to its right, or below it.
        level: [H, W - 1], [H - 1, W] whether a crack is between a pixel and the one to its right, or below it.
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

    Args:
        corners: of a block.
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


@dataclass(frozen=True)
class Pieces:
    """The outlines inside one block, numbered through the whole map; the open ones come first.

    Attributes:
        places: the vertices of each piece (`place_of`).
        codes: what is inside each.
        heads, tails: for each way, (pieces, rows or columns on the map) of those that begin and end at a seam going
            that way.
        links: [N, 2] pieces that belong to one area.
        carry: [height] the pieces at the left end of the runs of pixels that touch the right seam; -1 where these are
            not traced.
        sums: pieces, each once, and the sum of the scores of the pixels that belong to it.
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

    Args:
        codes: [1 + height (+ 1), 1 + W (+ 1)] the block, the pixels above and to its left, and zeros beyond the map's
            end.
        height: of the block, in pixels.
        corner: (row, column) of its first pixel.
        width: of the map.
        carry: what the block to the left gave.
        first: number of the first piece.
        nodes: a vertex also where an outline runs straight past the border between two others, so that neighbours have
            the same vertices.
        scores: [height, W] of the pixels, to be summed.
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


def polygons_of(
    areas: Sequence[Sequence[Ints]], width: int, min_pixels: float = 0.0
) -> tuple[NDArray[Any], Ints, Ints]:
    """A valid polygon in (column, row) for every area, given as its rings; the number of each one's area, its pixels.

    Rings are vertices as `place_of` numbers them on a map of `width` pixels, with the area on the right hand.
    Holes of fewer than `min_pixels` pixels are filled, then areas of fewer are left out. The pixels are those of the
    area itself, without the holes that were filled.
    """
    owners = np.repeat(np.arange(len(areas)), [len(area) for area in areas])
    rings, owners = _without_crossings([ring for area in areas for ring in area], owners)
    if not rings:
        return np.empty(0, dtype=object), np.zeros(0, np.int64), np.zeros(0, np.int64)
    lengths = np.array([len(ring) for ring in rings])
    rows, columns = np.divmod(np.concatenate(rings) // 2, width + 1)
    sizes = _signed_areas(rows, columns, lengths)
    pixels = np.bincount(owners, sizes, minlength=len(areas)).astype(np.int64)
    kept = (sizes > 0) | (-sizes >= min_pixels)
    totals = np.bincount(owners[kept], sizes[kept], minlength=len(areas))
    kept &= (totals >= min_pixels)[owners]
    chosen = np.lexsort((-sizes, owners))  # the outer ring before the holes
    chosen = chosen[kept[chosen]]
    index, which = _members(lengths, chosen)
    points = np.stack([columns[index], rows[index]], axis=1).astype(np.float64)
    numbers, polygon = np.unique(owners[chosen], return_inverse=True)
    polygons = np.asarray(shapely.polygons(shapely.linearrings(points, indices=which), indices=polygon))
    return polygons, numbers, pixels[numbers]


def _without_crossings(rings: list[Ints], owners: Ints) -> tuple[list[Ints], Ints]:
    """Rings that pass no vertex twice, and whose they are."""
    if not rings:
        return rings, owners
    starts = np.cumsum([0, *map(len, rings[:-1])])
    crossings = np.add.reduceat(np.concatenate(rings) & 1, starts)  # where four cracks meet
    parts = {i: _simple(rings[i]) for i in np.flatnonzero(crossings > 1).tolist()}
    counts = [len(parts.get(i, "1")) for i in range(len(rings))]
    return [part for i, ring in enumerate(rings) for part in parts.get(i, [ring])], np.repeat(owners, counts)


def _simple(ring: Ints) -> list[Ints]:
    """A ring that meets itself at corners, cut there: a bay that closes becomes a hole, holes that touch become two."""
    cuts = np.flatnonzero(ring & 1)  # where four cracks meet
    if len(np.unique(ring[cuts])) == len(cuts):
        return [ring]
    done: list[Ints] = []
    way: list[Ints] = []  # stretches that each begin at such a corner
    since: dict[int, int] = {}  # corner -> its place in `way`
    for stretch in np.split(np.roll(ring, -cuts[0]), cuts[1:] - cuts[0]):
        corner = int(stretch[0])
        if corner in since:
            loop = way[since[corner] :]
            del way[since[corner] :]
            for part in loop:
                del since[int(part[0])]
            done.append(np.concatenate(loop))
        since[corner] = len(way)
        way.append(stretch)
    return [*done, np.concatenate(way)]


def _signed_areas(rows: Ints, columns: Ints, lengths: Ints) -> Ints:
    """Pixels inside each ring, below zero for holes. rows, columns: of all vertices, ring after ring."""
    stops = np.cumsum(lengths)
    after = np.arange(1, len(rows) + 1)
    after[stops - 1] = stops - lengths
    doubled = columns * rows[after] - columns[after] * rows
    return np.asarray(np.add.reduceat(doubled, stops - lengths) // 2)


def _members(lengths: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """Indices of the vertices of the chosen rings one after another, and the ring (0, 1, ...) of each."""
    starts, counts = np.cumsum(lengths)[chosen] - lengths[chosen], lengths[chosen]
    which = np.repeat(np.arange(len(chosen)), counts)
    return np.arange(len(which)) + (starts - np.cumsum(counts) + counts)[which], which


class TracedAreas(NamedTuple):
    """Areas that are complete.

    Attributes:
        values: [N] label values.
        polygons: [N] in (column, row).
        scores: [N] mean over the pixels of each area, 0..1; None without any.
    """

    values: Ints
    polygons: NDArray[Any]
    scores: NDArray[np.float64] | None = None


def trace_blocks(
    plan: Sequence[Window],
    read: Read,
    values: Sequence[int],
    *,
    nodes: bool = False,
    min_pixels: float = 0.0,
    scores: Read | None = None,
) -> Iterator[TracedAreas]:
    """The areas that are complete after a block, by 4-neighbourhood.

    Args:
        plan: blocks that tile the map, in bands from top to bottom, from left to right.
        read: number in the plan -> labels [H, W] of that block, integers; asked once for each, in order.
        values: those that get polygons.
        nodes: vertices also where the borders of other areas end, so that the polygons are a valid coverage.
        min_pixels: holes of fewer pixels are filled, then areas of fewer left out.
        scores: number in the plan -> uint8 [H, W], 255 times the score of each pixel. Sums are whole numbers, so the
            mean does not depend on the plan. Filled holes do not count.

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
        polygons, which, pixels = polygons_of(rings, width, min_pixels)
        if len(polygons):
            means = None if scores is None else sums[which] / (255 * pixels)
            yield TracedAreas(np.array(values)[inside[which] - 1], polygons, means)


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
