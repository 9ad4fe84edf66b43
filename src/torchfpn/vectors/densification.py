"""Points on straight edges, as many as they need to follow the curve that another CRS makes of them.

Every edge is halved, and each half again, while its chord is off by more than a tolerance. That depends on the two ends
of an edge alone, and not on which way an outline runs along it: polygons that share an edge get the same points.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.vectors.systems import Points, Way, inverted

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


class NoPlaceError(Exception):
    """A point that has no place in the target."""


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
