"""Polygons from one coordinate reference system to another, with the points that bent edges need."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.geo.crs import Points, Way, inverted, ring_areas

PROBES = np.array([0.5, 0.19, 0.37, 0.77])  # where each part of an edge is measured: no bend is 0 at all of them
FIRST = np.array([0.37])  # where each edge is measured first: at least a quarter of its largest bend, S-shaped or not
UNEVEN = 0.25  # of a part of an edge that a place may be off along it, as scales change
HALVED, BASE, OUTLINE = range(3)  # what points are for: the extrapolation of areas, areas, outlines and areas
FINEST = 4  # how often for its area alone
DEEPEST = 40  # how often an edge is halved
AT_POLE = 1e-6  # units of the source plane that a point may be off a pole and lie on it
Reals = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
SHARE = 0.02  # of a pixel that an edge may be off: a fiftieth
SMALL = 0.02  # of that share, where areas are measured
AREA = 1e-4  # share of a polygon's area that its edges may be off by together


class NoPlaceError(Exception):
    """A point that has no place in the target."""


class Bends(Protocol):
    """An upper bound of how far edges are bent."""

    def __call__(self, start: Points, end: Points) -> Reals:
        """Starts and ends [E, 2] -> [E] units of the source plane."""


@dataclass(frozen=True)
class Moved:
    """Polygons in the target.

    shapes: [N] Polygon or MultiPolygon. unrolled: [N] those that meet the cut of the target, or hold a pole; they are
    valid. torn: [N] those with an edge that the target tears apart. areas: [N] square metres, where they were asked
    for; the target is in longitude and latitude then.
    """

    shapes: NDArray[Any]
    unrolled: Bools
    torn: Bools
    areas: Reals


def reproject(
    shapes: NDArray[Any],
    way: Way,
    tolerance: float,
    *,
    of: Literal["source", "target"] = "target",
    areas: bool = False,
    bends: Bends | None = None,
    lost: bool = False,
) -> Moved:
    """Polygons in the target of `way`.

    Straight edges get points until they follow the curve that the target CRS makes of them, within the tolerance.
    Outlines are followed around the earth and not cut at the meridian where the target CRS begins; `within_turn` cuts
    them there.

        vertices -> `Way.forward` -> `points_between` -> unrolled rings -> polygons, repaired by structure

    Args:
        shapes: [N] valid Polygons or MultiPolygons on the source plane.
        way: from the source plane to the target.
        tolerance: how far edges may be off.
        of: whether in units of the source plane or of the target plane (pixels where it has a transform).
        areas: measure them on the ground too; only with a target in longitude and latitude.
        bends: tells cheaply which edges stay straight; without, each is measured.
        lost: polygons that have no place in the target are `torn`, and without meaning.

    Raises:
        NoPlaceError: a vertex that has no place in the target, if not `lost`.
    """
    count, nothing = len(shapes), np.zeros(len(shapes), bool)
    parts, owner = shapely.get_parts(shapes, return_index=True)
    full = ~shapely.is_empty(parts)
    parts, owner = parts[full], owner[full]
    if not len(parts):
        return Moved(shapes.copy(), nothing, nothing, np.zeros(count))
    _, points, (ends, outlines) = shapely.to_ragged_array(parts)
    base = SMALL * tolerance if areas else tolerance
    moving = Moving(way, tolerance, of, base, _fine(parts, outlines, base, areas), lost)
    rings, torn = _moved_rings(points, np.asarray(ends), moving, bends)
    odd = _odd(rings, outlines, way)
    made, sizes = _polygons(rings, outlines, odd, way, areas)
    orientation = _clockwise(points, np.asarray(ends), way) if odd.any() else nothing
    for i in np.flatnonzero(odd).tolist():
        made[i], sizes[i] = _unrolled(rings, range(outlines[i], outlines[i + 1]), orientation, way, areas)
    of_part = np.repeat(np.arange(len(parts)), np.diff(outlines))
    unrolled, tears = nothing.copy(), nothing.copy()
    unrolled[owner[odd]] = True
    tears[owner[of_part[torn]]] = True
    return Moved(
        _collected(made, owner, shapes),
        unrolled,
        tears,
        np.asarray(np.bincount(owner, sizes, minlength=count), np.float64),
    )


class Moving(NamedTuple):
    """How outlines are moved.

    tolerance: how far edges of outlines may be off. of: whether on the plane of the source or of the target. base: how
    far those may be off whose area counts. fine: [R] or [E], those that are off by more are halved once more for it.
    lost: what has no place in the target is left out.
    """

    way: Way
    tolerance: float
    of: Literal["source", "target"]
    base: float
    fine: Reals
    lost: bool


class Between(NamedTuple):
    """Points on edges: [K] the edge, how far along 0..1, the place [K, 2], what for, the pole or -1."""

    edge: Ints
    along: Reals
    points: Points
    use: Ints
    pole: Ints


@dataclass
class _Parts:
    """Parts of edges that are still measured: [n] edge, from where to where along it, the ends [n, 2] in the target.

    poles: [n, 2] of both ends, -1 for none.
    """

    edge: Ints
    low: Reals
    high: Reals
    one: Points
    other: Points
    poles: Ints

    def __getitem__(self, kept: Any) -> "_Parts":
        values = (self.edge, self.low, self.high, self.one, self.other, self.poles)
        return _Parts(*(value[kept] for value in values))

    def __add__(self, more: "_Parts") -> "_Parts":
        pairs = zip(vars(self).values(), vars(more).values(), strict=True)
        return _Parts(*(np.concatenate(pair) for pair in pairs))


def points_between(points: Points, moved: Points, pole: Ints, first: Ints, moving: Moving) -> tuple[Between, Bools]:
    """The points that edges need, and [E] those edges that are torn: however short, their ends stay apart.

    Every edge is halved, and each half again, while its chord is off by more than a tolerance. That depends on the two
    ends of an edge alone, and not on which way an outline runs along it: polygons that share an edge get the same
    points.

    Args:
        points: [M, 2] vertices of outlines on the source plane.
        moved: [M, 2] the same in the CRS of the target.
        pole: [M] the number of the pole that lies there, -1 for none.
        first: [E] the vertices that begin an edge, which the next one ends.
        moving: how; `fine` is [E].

    Raises:
        NoPlaceError: a place in the middle of an edge that is not in the target, with a tolerance on the source plane.
    """
    way, tolerance, of, base, fine, _ = moving
    start, end = points[first], points[first + 1]
    turned = (start[:, 0] > end[:, 0]) | ((start[:, 0] == end[:, 0]) & (start[:, 1] > end[:, 1]))
    low, high = np.where(turned, first + 1, first), np.where(turned, first, first + 1)
    edges = points[low], points[high]
    every, count = np.arange(len(first)), len(first)
    poles = np.stack([pole[low], pole[high]], axis=1)
    parts = _Parts(every, np.zeros(count), np.ones(count), moved[low], moved[high], poles)
    parts, split = _split_at_poles(parts, edges, way)
    found, torn = [split], np.zeros(count, bool)
    least = np.maximum(fine, tolerance)  # shorter parts may be off by the rounding of PROJ
    first_off = 4 * _errors(parts, edges, way, of, FIRST, least)[0].max(axis=1)
    parts = parts[~(first_off <= fine[parts.edge]) | (parts.poles >= 0).any(axis=1)]
    for depth in range(DEEPEST + 1):
        if not len(parts.edge):
            break
        errors, places = _errors(parts, edges, way, of, PROBES, least)
        worst = errors.max(axis=1)
        off = ~(worst <= fine[parts.edge])
        lost = off & ((depth == DEEPEST) | ~np.isfinite(places[:, 0]).all(axis=1))
        if of == "source" and lost.any() and not np.isfinite(places[lost]).all():
            raise NoPlaceError
        torn[parts.edge[lost]] = True
        kept, more = off & ~lost, ~(worst <= (base if depth < FINEST else tolerance))
        use = np.where(worst <= tolerance, np.where(more, BASE, HALVED), OUTLINE)
        half, none = (parts.low + parts.high) / 2, np.full(len(worst), -1)
        found.append(Between(parts.edge[kept], half[kept], places[kept, 0], use[kept], none[kept]))
        kept &= more
        parts, half, middle, none = parts[kept], half[kept], places[kept, 0], none[kept]
        before = _Parts(parts.edge, parts.low, half, parts.one, middle, np.stack([parts.poles[:, 0], none], 1))
        after = _Parts(parts.edge, half, parts.high, middle, parts.other, np.stack([none, parts.poles[:, 1]], 1))
        parts = before + after
    between = Between(*(np.concatenate(values) for values in zip(*found, strict=True)))
    return between._replace(along=np.where(turned[between.edge], 1 - between.along, between.along)), torn


def _split_at_poles(parts: _Parts, edges: tuple[Points, Points], way: Way) -> tuple[_Parts, Between]:
    """Edges that pass through a pole as two."""
    found = Between(
        *(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    )
    steps = edges[1] - edges[0]
    lengths = np.maximum(np.hypot(*steps.T), 1e-150)
    for number, (place, row) in enumerate(zip(way.poles, way.pole_rows, strict=True)):
        apart = place - edges[0]
        off = np.abs(apart[:, 0] * steps[:, 1] - apart[:, 1] * steps[:, 0]) / lengths
        along = (apart * steps).sum(axis=1) / lengths**2
        inner = (along * lengths > AT_POLE) & ((1 - along) * lengths > AT_POLE)
        hit = np.flatnonzero((off < AT_POLE) & inner & (parts.poles[: len(off)] < 0).all(axis=1))
        at, here = along[hit], np.full(len(hit), number)
        there = np.stack([np.zeros(len(hit)), np.full(len(hit), row)], axis=1)
        found = Between(
            *map(np.concatenate, zip(found, (hit, at, there, np.full(len(hit), OUTLINE), here), strict=True))
        )
        second = parts[hit]
        second.low, second.one, second.poles = at, there, np.stack([here, second.poles[:, 1]], axis=1)
        parts.high[hit], parts.other[hit], parts.poles[hit, 1] = at, there, here
        parts = parts + second
    return parts, found


def _errors(
    parts: _Parts, edges: tuple[Points, Points], way: Way, of: Literal["source", "target"], probes: Reals, least: Reals
) -> tuple[Reals, Points]:
    """[n, P]: how far the chord of each part is off at some places, and [n, P, 2] the true places in the target.

    least: [E] parts of an edge that are not longer are not off.
    """
    low, high = edges[0][parts.edge], edges[1][parts.edge]
    shares = parts.low[:, None] + probes * (parts.high - parts.low)[:, None]
    asked = low[:, None] + shares[..., None] * (high - low)[:, None]
    true = way.forward(asked.reshape(-1, 2)).reshape(asked.shape)
    one, other = parts.one, parts.other
    if len(way.poles):  # all longitudes meet at a pole: the chord goes straight up to it
        at = parts.poles >= 0
        rows = np.append(way.pole_rows, np.nan)
        one = np.where(at[:, :1], np.stack([other[:, 0], rows[parts.poles[:, 0]]], 1), one)
        other = np.where(at[:, 1:], np.stack([one[:, 0], rows[parts.poles[:, 1]]], 1), other)
    step = way.short(other - one)
    chord = one[:, None] + probes[:, None] * step[:, None]
    if of == "target":
        step = inverted(way.target, step, steps=True)
        off = inverted(way.target, way.short(true - chord), steps=True) + probes[:, None] * step[:, None]
    else:
        step = (high - low) * (parts.high - parts.low)[:, None]
        back = way.backward(np.concatenate([chord.reshape(-1, 2), true.reshape(-1, 2)]))  # of both: a change of datum
        off, origin = back.reshape(2, *chord.shape)  # may come back elsewhere
        off = off - origin + probes[:, None] * step[:, None]
    return np.where(np.hypot(*step.T)[:, None] <= least[parts.edge, None], 0.0, _distances(off, step, probes)), true


def _distances(off: Points, step: Points, probes: Reals) -> Reals:
    """From places [n, P, 2] to the straight lines from (0, 0) to `step` [n, 2]; infinite without a place.

    A place far from its share of the way is off by that, on the line or not: there the target may be torn.
    """
    length = np.maximum(np.hypot(*step.T), 1e-150)[:, None]
    with np.errstate(invalid="ignore"):
        aside = (off[..., 0] * step[:, None, 1] - off[..., 1] * step[:, None, 0]) / length
        along = (off * step[:, None]).sum(axis=-1) / length
        late = np.abs(along - probes * length)
        found = np.hypot(aside, np.where(late > UNEVEN * length, late, 0.0))
    return np.where(np.isfinite(found), found, np.inf)


class _Rings(NamedTuple):
    """All rings one after another. points: [M, 2]. use: [M] what each is for; outlines have those of `OUTLINE` alone.

    pole: [M] number of the pole that lies there, -1 for none. ring: [M] number of the ring. ends: [R + 1] where rings
    begin.
    """

    points: Points
    use: Ints
    pole: Ints
    ring: Ints
    ends: Ints


def _fine(parts: NDArray[Any], outlines: NDArray[Any], tolerance: float, areas: bool) -> Reals:
    """[R]: the tolerance of each ring for its area; it is off by less than the length of the outline times that."""
    length = np.maximum(shapely.length(parts), 1e-300)
    fine = np.minimum(tolerance, AREA * shapely.area(parts) / length) if areas else np.full(len(parts), tolerance)
    return np.repeat(fine, np.diff(outlines))


def _moved_rings(points: Points, ends: Ints, moving: Moving, bends: Bends | None) -> tuple[_Rings, Ints]:
    """The rings in the target, with more points; and the numbers of those that are torn."""
    ring = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    moved, gone = moving.way.forward(points), np.zeros(len(ends) - 1, bool)
    gone[ring[~np.isfinite(moved).all(axis=1)]] = True
    if gone.any() and not moving.lost:
        raise NoPlaceError
    moved[gone[ring]] = 0.0
    pole = np.full(len(points), -1)
    for i, place in enumerate(moving.way.poles):
        pole[np.abs(points - place).max(axis=1) < AT_POLE] = i
    rings = _Rings(moved, np.full(len(points), OUTLINE), pole, ring, ends)
    first = np.flatnonzero((ring[1:] == ring[:-1]) & ~gone[ring[1:]] & (not moving.way.same))
    if bends is not None and len(first):
        first = first[~(bends(points[first], points[first + 1]) <= moving.fine[ring[first]])]
    if not len(first):
        return rings, np.flatnonzero(gone)
    moving = moving._replace(fine=moving.fine[ring[first]])
    found, torn = points_between(points, rings.points, rings.pole, first, moving)
    gone[ring[first[torn]]] = True
    return _inserted(rings, first, found), np.flatnonzero(gone)


def _inserted(rings: _Rings, first: Ints, found: Between) -> _Rings:
    if not len(found.edge):
        return rings
    order = np.lexsort((found.along, found.edge))
    after = first[found.edge[order]] + 1
    ring = np.insert(rings.ring, after, rings.ring[after - 1])
    return _Rings(
        np.insert(rings.points, after, found.points[order], axis=0),
        np.insert(rings.use, after, found.use[order]),
        np.insert(rings.pole, after, found.pole[order]),
        ring,
        _ends(ring, len(rings.ends) - 1),
    )


def _odd(rings: _Rings, outlines: NDArray[Any], way: Way) -> Bools:
    """[P]: polygons with a ring that jumps by more than half a turn, or passes through a pole."""
    if not way.unrolls:
        return np.zeros(len(outlines) - 1, bool)
    assert way.end.turn is not None
    jumps = (np.abs(np.diff(rings.points[:, 0])) > way.end.turn / 2) & (rings.ring[1:] == rings.ring[:-1])
    odd = np.zeros(len(rings.ends) - 1, bool)
    odd[rings.ring[:-1][jumps]] = True
    odd[rings.ring[rings.pole >= 0]] = True
    return np.asarray(np.logical_or.reduceat(odd, outlines[:-1])) if len(odd) else odd


def _polygons(rings: _Rings, outlines: NDArray[Any], odd: Bools, way: Way, areas: bool) -> tuple[NDArray[Any], Reals]:
    """All polygons as if none had to be unrolled, and their areas."""
    ends, points = rings.ends, rings.points
    sizes = np.zeros(len(outlines) - 1)
    if areas:
        each = _areas(rings)
        each[np.setdiff1d(np.arange(len(each)), outlines[:-1])] *= -1  # holes
        sizes = np.add.reduceat(each, outlines[:-1])
    kept = rings.use == OUTLINE
    if not kept.all():
        points, ends = points[kept], _ends(rings.ring[kept], len(ends) - 1)
    made = shapely.from_ragged_array(shapely.GeometryType.POLYGON, inverted(way.target, points), (ends, outlines))
    return np.asarray(made, dtype=object), sizes


def _areas(rings: _Rings) -> Reals:
    """[R] square metres inside the curves that the points of the rings lie on.

    The area between a curve and its chord falls to a quarter where the chord is halved: it follows from the outlines
    with and without the points that halve them (Richardson's extrapolation).
    """
    halved = ring_areas(rings.points, rings.ends)
    kept = rings.use != HALVED
    if kept.all():
        return halved
    whole = ring_areas(rings.points[kept], _ends(rings.ring[kept], len(rings.ends) - 1))
    return np.asarray((4 * halved - whole) / 3)


def _ends(ring: Ints, count: int) -> Ints:
    """[R + 1]: where rings begin, by the number of each point's ring."""
    return np.searchsorted(ring, np.arange(count + 1))


def _clockwise(points: Points, ends: Ints, way: Way) -> Bools:
    """[R]: whether the rings run so on the earth."""
    x, y = (points - np.repeat(points[ends[:-1]], np.diff(ends), axis=0)).T
    doubled = np.append(x[:-1] * y[1:] - x[1:] * y[:-1], 0.0)
    a, b, _, d, e, _ = way.source
    return np.asarray(np.add.reduceat(doubled, ends[:-1]) * (a * e - b * d) < 0)


def _unrolled(rings: _Rings, numbers: range, clockwise: Bools, way: Way, areas: bool) -> tuple[Any, float]:
    """A polygon whose rings are followed around the earth, valid, and its area."""
    assert way.end.turn is not None
    size, shape, holes = 0.0, shapely.Polygon(), list[Any]()
    for number in numbers:
        held = slice(rings.ends[number], rings.ends[number + 1] - 1)
        points, use = _ring(rings.points[held], rings.pole[held], rings.use[held], bool(clockwise[number]), way)
        alone = _Rings(points, use, use, np.zeros_like(use), np.array([0, len(use)]))
        (area,) = _areas(alone) if areas else (0.0,)
        (part,) = repaired(np.array([shapely.Polygon(points[use == OUTLINE])], dtype=object))
        if number == numbers[0]:
            size, shape = area, part
            continue
        size -= area
        holes += [shapely.affinity.translate(part, turns * way.end.turn) for turns in (-2, -1, 0, 1, 2)]
    if holes:  # which may have begun on another turn than the outline
        shape = areal(shapely.difference(shape, shapely.union_all([hole for hole in holes if hole.intersects(shape)])))
    return shapely.transform(shape, lambda points: inverted(way.target, points)), float(size)


def _ring(points: Points, pole: Ints, use: Ints, clockwise: bool, way: Way) -> tuple[Points, Ints]:
    """A ring, open, as one that is closed and does not jump; along a pole's line where it holds or meets that pole."""
    assert way.end.turn is not None
    turn, at = way.end.turn, pole >= 0
    twice = np.repeat(np.arange(len(points)), np.where(at, 2, 1))  # at a pole it comes in by one meridian and leaves
    second = np.append(False, twice[1:] == twice[:-1])  # by another
    x, y, at = points[twice, 0], points[twice, 1], at[twice]
    x[at & ~second], x[second] = np.roll(x, 1)[at & ~second], np.roll(x, -1)[second]
    y[at] = way.pole_rows[pole[twice][at]]
    step = np.roll(x, -1) - x
    short = step - np.round(step / turn) * turn
    along = np.roll(second, -1)  # the steps along a pole's line: the area lies on the left of an outline
    left = (y > 0) == clockwise
    short = np.where(along, np.where(left, step % turn, -(-step % turn)), short)
    jumps, use = np.round((step - short) / turn), use[twice]
    total, row = -turn * jumps.sum(), None
    if abs(total) > turn / 2:
        north = (total > 0) != clockwise
        row, nearest = way.end.poles[int(north)], np.argmax(np.where(use == OUTLINE, y if north else -y, -np.inf))
        x, y, jumps, use = (np.roll(values, -nearest) for values in (x, y, jumps, use))
    x = x - turn * np.concatenate([[0.0], np.cumsum(jumps[:-1])])
    tail = [(x[0] + total, y[0])]
    if row is not None:  # up to the pole from the vertex that is nearest to it, where nothing is crossed
        tail += [(x[0] + total, row), (x[0], row), (x[0], y[0])]
    every = np.concatenate([np.stack([x, y], axis=1), tail])
    return every, np.concatenate([use, np.full(len(tail), OUTLINE)])


def _collected(made: NDArray[Any], owner: Ints, shapes: NDArray[Any]) -> NDArray[Any]:
    """The polygons of each shape as one."""
    if len(made) == len(shapes) and (owner == np.arange(len(shapes))).all():
        single = shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON
        if single.all():
            return made
    result = shapes.copy()
    several = np.flatnonzero(shapely.get_type_id(shapes) != shapely.GeometryType.POLYGON)
    single = np.flatnonzero(np.isin(owner, several, invert=True))
    result[owner[single]] = made[single]
    for i in several.tolist():
        parts = shapely.get_parts(made[owner == i])
        result[i] = shapely.multipolygons(parts[~shapely.is_empty(parts)])
    return result


def within_turn(shapes: NDArray[Any], west: float, turn: float, decimals: int | None = None) -> NDArray[Any]:
    """Valid polygons cut where x is `west` and whole turns from it, all parts brought to west..west + turn.

    decimals: what coordinates are rounded to, after points at the cut were added; so neighbours keep their borders.
    """
    result = shapes.copy()
    left, _, right, _ = shapely.bounds(shapes).reshape(-1, 4).T
    out = np.flatnonzero((left < west) | (right > west + turn))
    for i in out.tolist():
        result[i] = _with_cut(shapes[i], west, turn)
    if decimals is not None:
        result = shapely.transform(result, lambda points: points.round(decimals)) if len(result) else result
        result[out] = repaired(result[out])
    for i in out.tolist():
        result[i] = _folded(result[i], west, turn, decimals)
    return result


def _with_cut(shape: Any, west: float, turn: float) -> Any:
    """A shape with a vertex wherever an edge crosses the cut."""
    polygons = [
        shapely.Polygon(rings[0], rings[1:])
        for rings in (
            [_ring_with_cut(shapely.get_coordinates(ring), west, turn) for ring in shapely.get_rings(part)]
            for part in shapely.get_parts(shape)
        )
        if rings
    ]
    return polygons[0] if shape.geom_type == "Polygon" else shapely.multipolygons(polygons)


def _ring_with_cut(points: Points, west: float, turn: float) -> Points:
    for cut in west + turn * np.arange(
        np.floor((points[:, 0].min() - west) / turn), np.ceil((points[:, 0].max() - west) / turn) + 1
    ):
        left = points[:, 0] - cut
        edge = np.flatnonzero(left[:-1] * left[1:] < 0)
        low, high = np.where(left[edge] < 0, edge, edge + 1), np.where(left[edge] < 0, edge + 1, edge)
        share = -left[low] / (left[high] - left[low])  # from west to east, whichever way the outline runs
        y = points[low, 1] + share * (points[high, 1] - points[low, 1])
        points = np.insert(points, edge + 1, np.stack([np.full(len(edge), cut), y], axis=1), axis=0)
    return points


def _folded(shape: Any, west: float, turn: float, decimals: int | None) -> Any:
    left, south, right, north = shape.bounds
    parts: list[Any] = []
    if shape.is_empty:
        return shape
    for turns in range(int(np.floor((left - west) / turn)), int(np.ceil((right - west) / turn))):
        start = west + turns * turn
        inside = areal(shapely.intersection(shape, shapely.box(start, south - 1, start + turn, north + 1)))
        inside = shapely.transform(inside, lambda points, by=turns: points - np.array([by * turn, 0.0]))
        if decimals is not None:
            inside = shapely.transform(inside, lambda points: points.round(decimals))
        parts += [part for part in shapely.get_parts(inside) if part.area > 0]
    if len(parts) == 1 and shape.geom_type == "Polygon":
        return parts[0]
    result = shapely.multipolygons(parts) if parts else shapely.Polygon()
    return result if result.is_valid else shapely.union_all(parts)


def repaired(shapes: NDArray[Any]) -> NDArray[Any]:
    """Polygons [N] with invalid ones made valid by the structure of their rings; valid ones are the same objects.

    Parts without an area are left out; a polygon without any becomes empty.
    """
    result = np.asarray(shapes, dtype=object).copy()
    broken = ~shapely.is_valid(result)
    if broken.any():
        made = shapely.make_valid(result[broken], method="structure", keep_collapsed=False)
        result[broken] = [areal(shape) for shape in made]
    return result


def areal(shape: Any) -> Any:
    """The polygons of a geometry, which may hold lines and points too; an empty polygon without any."""
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    parts = [part for part in shapely.get_parts(shapely.get_parts(shape)) if part.geom_type == "Polygon"]
    return parts[0] if len(parts) == 1 else shapely.multipolygons(parts) if parts else shapely.Polygon()
