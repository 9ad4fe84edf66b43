"""Polygons of one class that lie close together -> one: widened until they meet, joined, narrowed again."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.raster.polygons import Feature
from torchfpn.vectors.planes import Planes
from torchfpn.vectors.reprojection import repaired, within_turn
from torchfpn.vectors.systems import system

Ints = NDArray[np.int64]
POINTS = 500_000  # that are moved at a time
SAME = 1e-6  # part of the area that rounding may lose


def merged(features: Sequence[Feature], crs: str, metres: float, file: str | Path | None = None) -> list[Feature]:
    """Features of one class that are less than `metres` apart as one, in the place of the first; all others as given.

    Chains count: what is near to something near belongs to it. The gaps between them are filled where they are
    narrower than that; what stays apart even so becomes a MultiPolygon. Its score is the mean, weighted by area; its
    area is still to be measured (`nan`).

    Raises:
        RasterError: a place without longitude and latitude.
    """
    given = np.array([feature.polygon for feature in features], dtype=object)
    held = system(crs)
    shapes = given if held.turn is None else _side_by_side(given, held.turn)
    values = np.array([feature.value for feature in features])
    groups = _groups(_neighbours(shapes, values, crs, metres, file), len(features))
    result: list[Feature | None] = list(features)
    for group in groups:
        members = [features[i] for i in group]
        polygon = _joined(shapes[group], crs, metres, file)
        if shapes is not given and held.turn is not None:
            left, _, right, _ = shapely.total_bounds(given)
            west = held.west if held.west <= left and right <= held.west + held.turn else left
            (polygon,) = within_turn(np.array([polygon], dtype=object), float(west), held.turn)
        result[group[0]] = replace(members[0], polygon=polygon, area=float("nan"), score=_score(members))
        for i in group[1:]:
            result[i] = None
    return [feature for feature in result if feature is not None]


def _side_by_side(shapes: NDArray[Any], turn: float) -> NDArray[Any]:
    """The shapes themselves, or moved so that those on both sides of the 180th meridian are neighbours.

    The earth is cut where the widest band without a shape lies instead.
    """
    left, _, right, _ = shapely.bounds(shapely.get_parts(shapes)).reshape(-1, 4).T
    if not len(left) or right.max() - left.min() <= turn / 2 or right.max() - left.min() > turn:
        return shapes
    order = np.argsort(left)
    east = np.maximum.accumulate(right[order])
    bands = left[order][1:] - east[:-1]
    if not len(bands) or bands.max() <= max(0.0, left.min() + turn - right.max()):
        return shapes
    cut = east[np.argmax(bands)]
    return np.asarray(
        shapely.transform(shapes, lambda points: points + np.where(points[:, :1] <= cut, turn, 0.0) * (1.0, 0.0))
    )


def _neighbours(shapes: NDArray[Any], values: Ints, crs: str, metres: float, file: str | Path | None) -> Ints:
    """[M, 2] pairs of one class that are less than `metres` apart."""
    if not len(shapes):
        return np.zeros((0, 2), np.int64)
    planes = Planes.around(shapes, crs, file)
    units = metres * 1.01 / np.linalg.norm(planes.scales, ord=-2, axis=(1, 2))  # the shortest way says the most units
    low, high = shapely.bounds(shapes).reshape(-1, 2, 2).swapaxes(0, 1)
    boxes = shapely.box(*(low - units[:, None]).T, *(high + units[:, None]).T)
    one, other = shapely.STRtree(shapes).query(boxes)
    kept = (one < other) & (values[one] == values[other])
    one, other = one[kept], other[kept]
    near = _near(shapes, one, other, planes, metres)
    return np.stack([one[near], other[near]], axis=1)


def _near(shapes: NDArray[Any], one: Ints, other: Ints, planes: Planes, metres: float) -> NDArray[np.bool_]:
    """[M]: which pairs are less than `metres` apart, each on the plane of its first; some at a time."""
    order = np.argsort(one, kind="stable")
    points = np.cumsum(shapely.get_num_coordinates(shapes)[other[order]])
    result = np.zeros(len(one), bool)
    for some in np.split(order, np.flatnonzero(np.diff(points // POINTS)) + 1):
        firsts, place = np.unique(one[some], return_inverse=True)
        ground = planes[firsts].to_metres(shapes[firsts])
        shapely.prepare(ground)  # one with many neighbours is looked at many times
        result[some] = shapely.distance(ground[place], planes[one[some]].to_metres(shapes[other[some]])) < metres
    return result


def _groups(pairs: Ints, count: int) -> list[list[int]]:
    """The connected ones of 0..count - 1, those of one left out; each rising, by their first."""
    top = list(range(count))

    def root(i: int) -> int:
        while top[i] != i:
            top[i] = top[top[i]]
            i = top[i]
        return i

    for one, other in pairs.tolist():
        a, b = root(one), root(other)
        top[max(a, b)] = min(a, b)
    groups = defaultdict(list)
    for i in sorted({i for pair in pairs.tolist() for i in pair}):
        groups[root(i)].append(i)
    return [groups[first] for first in sorted(groups)]


def _joined(shapes: NDArray[Any], crs: str, metres: float, file: str | Path | None) -> Any:
    """Nothing of them is lost, and corners stay corners: widened and narrowed with mitred joins."""
    plane = Planes.around(np.array([shapely.box(*shapely.total_bounds(shapes))], dtype=object), crs, file)
    ground = repaired(plane[np.zeros(len(shapes), np.int64)].to_metres(shapes))
    wide = shapely.union_all(shapely.buffer(ground, metres / 2, join_style="mitre", mitre_limit=2))
    closed = shapely.buffer(wide, -metres / 2, join_style="mitre", mitre_limit=2)
    together = shapely.multipolygons(shapely.get_parts(ground))
    if not together.is_valid:  # as it is where they meet at corners alone, like traced ones
        together = shapely.union_all(ground)
    if not closed.is_valid or shapely.difference(together, closed).area > SAME * together.area:
        closed = shapely.union(*repaired(np.array([closed, together], dtype=object)))
    return repaired(plane.from_metres(np.array([closed], dtype=object)))[0]  # rings that touch may cross by a rounding


def _score(members: Sequence[Feature]) -> float | None:
    known = [(member.score, member.area) for member in members if member.score is not None]
    weights = sum(area for _, area in known)
    return round(sum(score * area for score, area in known) / weights, 3) if weights else None
