"""Outlines of buildings -> straight walls that meet at right angles.

outline --simplified--> edges --main direction--> walls along it and across --short ones go--> lines --corners--> walls

The main direction is that of the edges' angles a modulo 90 degrees, weighted by their lengths L, and then turned by
what the walls found with it lean on average, weighted by L^3, as a line of length L says its angle so well:
    direction = arg(sum of L^2 exp(4 i a)) / 4
A wall takes the place that leaves the area as it was: with x along the wall and y across it, along the part of the
given outline that it replaces,
    y = (integral of y dx) / (integral of dx)
and corners are where neighbouring walls meet. Short slanted edges are corners cut off, or steps; long ones stay. What
comes out is taken only if it is valid and close to what was given.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

ALONG, ACROSS, SLANTED = 0, 1, 2
RIGHT = 0.5  # mean of cos(4 (a - direction)), weighted by L^2, from which on walls are taken to be at right angles
SLANT = np.radians(30)  # of an edge from both directions; steeper ones are no walls
SHORTEST, LONG = 2.0, 8.0  # tolerances; shorter walls go, and slanted ones as long as that stay
LEAST_IOU, MOST_GROWTH, FARTHEST = 0.8, 0.1, 4.0  # with and of the given area; tolerances from outline to outline
Points = NDArray[np.float64]


@dataclass
class _Wall:
    """kind: ALONG the main direction or ACROSS it. start, stop: points of the outline, counted on beyond its end."""

    kind: int
    start: int
    stop: int


def squared(polygon: Any, tolerance: float) -> Any:
    """A Polygon with right angles, or None where that would be another shape. In metres, or any true plane.

    Holes are treated like the outer ring, in its direction; those without four walls are simplified. The result never
    crosses itself; neighbours that shared a border may overlap or part by about the tolerance.

    tolerance: how far outlines may be off; walls shorter than twice of it are smoothed away. Where nothing comes out,
    twice the tolerance is tried: ragged outlines hide their direction.
    """
    rings = [_opened(ring) for ring in shapely.get_rings(polygon)]
    for off in (tolerance, 2 * tolerance):
        result = _squared(rings, off)
        if result is not None and _is_close(result, polygon, FARTHEST * tolerance):
            return result
    return None


def _squared(rings: list[Points], tolerance: float) -> Any:
    direction = _direction(rings[0][_kept(rings[0], tolerance)])
    if direction is None:
        return None
    for _ in range(2):
        walls = _walls_of(rings[0] @ _turn(direction), tolerance)
        direction += _lean(rings[0] @ _turn(direction), walls)
    turn = _turn(direction)
    turned = [ring @ turn for ring in rings]
    walled = [_corners(ring, _walls_of(ring, tolerance)) for ring in turned]
    if walled[0] is None:
        return None
    outer, *holes = [_plain(old, tolerance) if new is None else new for old, new in zip(turned, walled, strict=True)]
    return shapely.Polygon(outer @ turn.T, [hole @ turn.T for hole in holes])


def _turn(direction: float) -> Points:
    """What points are multiplied by to lie along `direction`."""
    return np.array([(np.cos(direction), -np.sin(direction)), (np.sin(direction), np.cos(direction))])


def _lean(points: Points, walls: list[_Wall]) -> float:
    """How far walls are turned from the direction they should have, in radians: by least squares, each along itself."""
    leans, weights = [0.0], [1e-12]
    for wall in walls:
        if wall.kind == SLANTED:
            continue
        part = points[np.arange(wall.start, wall.stop + 1) % len(points)]
        x, y = part[:, wall.kind], part[:, 1 - wall.kind]
        x, y = (np.interp(np.linspace(0, 1, 33), np.linspace(0, 1, len(part)), v) for v in (x, y))
        x, y = x - x.mean(), y - y.mean()
        if (spread := float((x * x).sum())) > 0:
            leans.append(float(np.arctan((x * y).sum() / spread)) * (1 if wall.kind == ALONG else -1))
            weights.append(_length(points, wall) ** 3)
    return float(np.average(leans, weights=weights))


def _is_close(result: Any, polygon: Any, farthest: float) -> bool:
    if not result.is_valid or not polygon.is_valid or abs(result.area / polygon.area - 1) > MOST_GROWTH:
        return False
    if shapely.hausdorff_distance(result.exterior, polygon.exterior) > farthest:
        return False
    common = shapely.intersection(result, polygon).area
    return bool(common >= LEAST_IOU * (result.area + polygon.area - common))


def _opened(ring: Any) -> Points:
    """[N, 2] without the last point, which is the first; from a point on that is surely a corner."""
    points = shapely.get_coordinates(ring)[:-1]
    far = np.argmax(((points - points.mean(0)) ** 2).sum(1))
    return np.roll(points, -far, axis=0)


def _plain(points: Points, tolerance: float) -> Points:
    kept = _kept(points, tolerance)
    return points[kept] if len(kept) > 2 else points


def _kept(points: Points, tolerance: float) -> NDArray[np.int64]:
    """Numbers of the points that a ring keeps when it is simplified (Douglas and Peucker 1973)."""
    numbers = np.arange(len(points) + 1.0)  # they ride along as heights
    line = shapely.linestrings(np.column_stack([np.concatenate([points, points[:1]]), numbers]))
    simple = shapely.simplify(line, tolerance, preserve_topology=False)
    return np.asarray(shapely.get_coordinates(simple, include_z=True)[:-1, 2].astype(np.int64))


def _direction(points: Points) -> float | None:
    """The main direction of a ring in radians; None where its edges do not follow two at right angles."""
    if len(points) < 4:
        return None
    edges = np.roll(points, -1, axis=0) - points
    lengths, angles = np.hypot(*edges.T), np.arctan2(edges[:, 1], edges[:, 0])
    total = (lengths**2 * np.exp(4j * angles)).sum()
    direction = float(np.angle(total)) / 4
    return direction if abs(total) >= RIGHT * (lengths**2).sum() else None


def _walls_of(points: Points, tolerance: float) -> list[_Wall]:
    """The walls of a ring in the main direction, no two of a kind beside each other; empty if fewer than four."""
    walls = _without_slanted(_walls(points, _kept(points, tolerance)), points, LONG * tolerance)
    if walls:
        walls = _without_short(_joined(walls, len(points)), points, SHORTEST * tolerance)
    return walls if len(walls) >= 4 else []


def _corners(points: Points, walls: list[_Wall]) -> Points | None:
    """Where neighbouring walls meet; None without walls, or where one leads nowhere."""
    lines = [_line(points, wall) for wall in walls]
    if not walls or any(line is None for line in lines):
        return None
    pairs = np.array([(line, after) for line, after in zip(lines, [*lines[1:], lines[0]], strict=True)])  # [N, 2, 3]
    crossing = np.cross(pairs[:, 0], pairs[:, 1])  # of two lines, as of two points: homogeneous
    if (np.abs(crossing[:, 2]) < 0.1).any():
        return None
    return np.asarray(crossing[:, :2] / crossing[:, 2:])


def _walls(points: Points, kept: NDArray[np.int64]) -> list[_Wall]:
    """The edges of a simplified ring; slanted ones that follow each other as one."""
    walls: list[_Wall] = []
    for start, stop in zip(kept, [*kept[1:], kept[0] + len(points)], strict=True):
        edge = np.abs(points[stop % len(points)] - points[start])
        kind = ALONG if edge[0] >= edge[1] else ACROSS
        if np.arctan2(edge.min(), edge.max()) > SLANT:
            kind = SLANTED
        if walls and walls[-1].kind == kind == SLANTED:
            walls[-1].stop = int(stop)
        else:
            walls.append(_Wall(kind, int(start), int(stop)))
    return walls


def _without_slanted(walls: list[_Wall], points: Points, long: float) -> list[_Wall]:
    """A short slanted edge between walls of two kinds is a corner cut off; between two of one kind, a step."""
    if all(wall.kind == SLANTED for wall in walls):
        return []
    first = next(i for i, wall in enumerate(walls) if wall.kind != SLANTED)
    early = [_Wall(wall.kind, wall.start + len(points), wall.stop + len(points)) for wall in walls[:first]]
    walls = [*walls[first:], *early]
    result = []
    for i, wall in enumerate(walls):
        before, after = walls[i - 1], walls[(i + 1) % len(walls)]
        if wall.kind != SLANTED or _length(points, wall) >= long:
            result.append(wall)
        elif before.kind == after.kind and before is not after:
            result.append(_Wall(1 - before.kind, wall.start, wall.stop))
    return result


def _joined(walls: list[_Wall], count: int) -> list[_Wall]:
    """Walls of one kind that follow each other as one. count: of points of the outline."""
    result = [walls[0]]
    for wall in walls[1:]:
        if wall.kind == result[-1].kind:
            result[-1] = _Wall(wall.kind, result[-1].start, wall.stop)
        else:
            result.append(wall)
    if len(result) > 2 and result[0].kind == result[-1].kind:
        last = result.pop()
        result[0] = _Wall(last.kind, last.start, result[0].stop + count)
    return result


def _without_short(walls: list[_Wall], points: Points, shortest: float) -> list[_Wall]:
    """Walls of at least that length: shorter ones, the shortest first, go, and their neighbours become one."""
    while len(walls) > 3:
        lengths = [_length(points, wall) for wall in walls]
        i = int(np.argmin(lengths))
        if lengths[i] >= shortest:
            break
        walls = [*walls[i - 1 :], *walls[: i - 1]] if i else [walls[-1], *walls[:-1]]
        before, _, after, *others = walls
        length = (after.stop - before.start) % len(points)
        joined = (
            [_Wall(before.kind, before.start, before.start + length)] if before.kind == after.kind else [before, after]
        )
        walls = [*joined, *others]
    return walls


def _length(points: Points, wall: _Wall) -> float:
    """Along its own way."""
    step = np.abs(_at(points, wall.stop) - _at(points, wall.start))
    return float(np.hypot(*step) if wall.kind == SLANTED else step[wall.kind])


def _at(points: Points, number: int) -> Points:
    return np.asarray(points[number % len(points)])


def _line(points: Points, wall: _Wall) -> Points | None:
    """(a, b, c) of the line a x + b y + c = 0 that a wall lies on, a^2 + b^2 = 1; None if it leads nowhere."""
    if wall.kind == SLANTED:
        (x, y), (dx, dy) = _at(points, wall.start), _at(points, wall.stop) - _at(points, wall.start)
        return np.asarray(np.array([dy, -dx, dx * y - dy * x]) / np.hypot(dx, dy))
    part = points[np.arange(wall.start, wall.stop + 1) % len(points)]
    x, y = part[:, wall.kind], part[:, 1 - wall.kind]
    steps = np.diff(x)
    if abs(steps.sum()) < 1e-9 * np.abs(steps).sum():
        return None
    place = -(steps * (y[1:] + y[:-1])).sum() / steps.sum() / 2
    return np.array([0.0, 1.0, place] if wall.kind == ALONG else [1.0, 0.0, place])
