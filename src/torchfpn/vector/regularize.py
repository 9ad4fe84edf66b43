"""Polygons cleaned: simplified, squared, dissolved by distance, without small ones and those of another layer.

features -> simplify -> dissolve -> square, or simplify what stays as it is -> smallest area -> exclude -> features

All steps keep the coordinate system of the features. Only dissolving holds all of them in memory.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.geo.crs import PLAIN, Planes, Way, system
from torchfpn.geo.georef import Geo
from torchfpn.geo.reprojection import repaired, reproject, within_turn
from torchfpn.vector.features import Feature
from torchfpn.vector.lon_lat import geojson_polygons, to_lon_lat
from torchfpn.vector.objects import Objects

ALONG, ACROSS, SLANTED = 0, 1, 2
RIGHT = 0.5  # mean of cos(4 (a - direction)), weighted by L^2, from which on walls are taken to be at right angles
SLANT = np.radians(30)  # of an edge from both directions; steeper ones are no walls
SHORTEST, LONG = 2.0, 8.0  # tolerances; shorter walls go, and slanted ones as long as that stay
LEAST_IOU, MOST_GROWTH, FARTHEST = 0.8, 0.1, 4.0  # with and of the given area; tolerances from outline to outline
Points = NDArray[np.float64]
Ints = NDArray[np.int64]
POINTS = 500_000  # that are moved at a time
SAME = 1e-6  # part of the area that rounding may lose
ROWS = 1000  # polygons that are worked on at a time


@dataclass
class _Wall:
    """kind: ALONG the main direction or ACROSS it. start, stop: points of the outline, counted on beyond its end."""

    kind: int
    start: int
    stop: int


def square(polygon: Any, tolerance: float) -> Any:
    """A Polygon with right angles, or None where that would be another shape. In metres, or any true plane.

    Holes are treated like the outer ring, in its direction; those without four walls are simplified. The result never
    crosses itself; neighbours that shared a border may overlap or part by about the tolerance.

    The outline is simplified to edges, edges become walls along and across the main direction, short walls go, and
    corners are where neighbouring walls meet. The main direction is the mean of the edges' angles a modulo 90 degrees,
    weighted by the squares of their lengths L: arg(sum of L^2 exp(4 i a)) / 4; it is then turned by the mean lean of
    the walls, weighted by L^3, the accuracy of a line's angle. A wall keeps the area: with x along and y across it,
    along the part of the outline that it replaces, y = (integral of y dx) / (integral of dx). Short slanted edges are
    corners cut off, or steps; long ones stay.

    Args:
        polygon: a valid Polygon.
        tolerance: how far outlines may be off; walls shorter than twice of it are smoothed away. Where nothing comes
            out, twice the tolerance is tried: ragged outlines hide their direction.
    """
    rings = [_opened(ring) for ring in shapely.get_rings(polygon)]
    for off in (tolerance, 2 * tolerance):
        result = _squared_rings(rings, off)
        if result is not None and _is_close(result, polygon, FARTHEST * tolerance):
            return result
    return None


def _squared_rings(rings: list[Points], tolerance: float) -> Any:
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
        walls = _without_short(_joined_walls(walls, len(points)), points, SHORTEST * tolerance)
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


def _joined_walls(walls: list[_Wall], count: int) -> list[_Wall]:
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


def dissolve(features: Sequence[Feature], crs: str, metres: float, file: str | Path | None = None) -> list[Feature]:
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
        polygon = _joined_shapes(shapes[group], crs, metres, file)
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


def _joined_shapes(shapes: NDArray[Any], crs: str, metres: float, file: str | Path | None) -> Any:
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


class Exclusion:
    """The polygons of a layer, in the coordinate system `crs` (well-known text) of those it will be asked about.

    tolerance: units of `crs` that edges may be off.

    Raises:
        RasterError: there is no way from one coordinate system to the other.
    """

    def __init__(self, layer: Objects, crs: str, tolerance: float) -> None:
        self.system = system(crs)
        self.tree = shapely.STRtree(self._folded(_brought(layer, crs, tolerance)))

    def covers(self, shapes: Sequence[Any]) -> NDArray[np.float64]:
        """[N]: the share of each polygon that the layer covers, 0..1; never less than its IoU with one of them."""
        asked = self._folded(np.asarray(shapes, dtype=object))
        result = np.zeros(len(asked))
        one, other = self.tree.query(asked, predicate="intersects")
        for i in np.unique(one):
            over = shapely.union_all(self.tree.geometries[other[one == i]])
            result[i] = shapely.intersection(asked[i], over).area / asked[i].area
        return result

    def _folded(self, shapes: NDArray[Any]) -> NDArray[Any]:
        """Within one turn around the earth, so that the same place has the same coordinates."""
        return shapes if self.system.turn is None else within_turn(shapes, self.system.west, self.system.turn)


def _brought(layer: Objects, crs: str, tolerance: float) -> NDArray[Any]:
    """The polygons in another coordinate system; those without a place there are left out."""
    way = Way(Geo(layer.crs, PLAIN), Geo(crs, PLAIN))
    try:
        moved = reproject(layer.shapes, way, tolerance, lost=True)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        found = f"cannot be brought into the coordinate system of the polygons ({error})"
        raise RasterError(found, file=layer.file) from error
    return repaired(moved.shapes[~moved.torn])


@dataclass(frozen=True)
class CleanOptions:
    """What `clean` does; 0 leaves a step out.

    Attributes:
        merge: metres between features that become one.
        square: how far walls may be off for right angles, in pixels of the size on the ground at each feature.
        simplify: how far outlines may be off, likewise: before merging, or with `square` of those that did not become
            square.
        pixel: the area of a pixel in units of the coordinate system; 0: `square` and `simplify` are in metres.
        min_area: square metres of the smallest feature.
        exclude: a layer whose polygons are left out.
        share: how much of a polygon the layer covers then.
    """

    merge: float = 0.0
    square: float = 0.0
    simplify: float = 0.0
    pixel: float = 0.0
    min_area: float = 0.0
    exclude: Exclusion | None = None
    share: float = 0.5


@dataclass
class CleanCounts:
    """Features that came, that went into others, became square, were too small, were known, and are left."""

    given: int = 0
    merged: int = 0
    squared: int = 0
    small: int = 0
    known: int = 0
    left: int = 0


def clean(
    features: Iterable[Feature],
    crs: str,
    options: CleanOptions,
    counts: CleanCounts,
    *,
    tolerance: float,
    file: str | Path | None = None,
) -> Iterator[Feature]:
    """Features in the coordinate system `crs` (well-known text), as they are wanted. Those left alone stay as given.

    Args:
        features: in the coordinate system `crs`.
        crs: their coordinate system, well-known text.
        options: the options.
        counts: numbers of features, added to.
        tolerance: units of `crs` that edges may be off on the ground, where they are measured.
        file: the file, for messages.

    Raises:
        RasterError: a place without longitude and latitude.
    """
    if options.simplify > 0 and not options.square > 0:
        features = _simplified(features, crs, options, file)
    if options.merge > 0:
        given = list(features)
        given = _measured(given, given, crs, tolerance, file)  # scores are weighted by area
        counts.given = len(given)
        features = dissolve(given, crs, options.merge, file)
        counts.merged = counts.given - len(features)
    for batch in _batches(features):
        counts.given += len(batch) if not options.merge > 0 else 0
        shaped = _shaped(batch, crs, options, counts, file) if options.square > 0 else batch
        kept = [
            feature for feature in _measured(shaped, batch, crs, tolerance, file) if feature.area >= options.min_area
        ]
        counts.small += len(batch) - len(kept)
        if options.exclude is not None:
            covered = options.exclude.covers([feature.polygon for feature in kept])
            counts.known += int((covered > options.share).sum())
            kept = [feature for feature, share in zip(kept, covered.tolist(), strict=True) if share <= options.share]
        counts.left += len(kept)
        yield from kept


def features_in_lon_lat(
    features: Iterable[Feature], crs: str, decimals: int, tolerance: float, file: str | Path | None = None
) -> Iterator[Feature]:
    """Features in the coordinate system `crs`, in longitude and latitude, cut at the 180th meridian (RFC 7946).

    Args:
        features: in the coordinate system `crs`.
        crs: their coordinate system, well-known text.
        decimals: decimals of degrees.
        tolerance: units of `crs` that edges may be off.
        file: the file, for messages.

    Raises:
        RasterError: a place without longitude and latitude.
    """
    for batch in _batches(features):
        moved = to_lon_lat(_polygons(batch), Geo(crs, PLAIN), file, tolerance=tolerance)
        for feature, polygon in zip(batch, geojson_polygons(moved, decimals), strict=True):
            if not polygon.is_empty:
                yield replace(feature, polygon=polygon)


def _simplified(
    features: Iterable[Feature], crs: str, options: CleanOptions, file: str | Path | None
) -> Iterator[Feature]:
    """Each by itself; what changed is still to be measured (`nan`)."""
    for batch in _batches(features):
        shaped = _shaped(batch, crs, options, CleanCounts(), file)
        for new, old in zip(shaped, batch, strict=True):
            yield new if new is old else replace(new, area=float("nan"))


def _shaped(
    batch: Sequence[Feature], crs: str, options: CleanOptions, counts: CleanCounts, file: str | Path | None
) -> list[Feature]:
    """With right angles, or simplified each by itself; the very same objects where nothing changed."""
    planes = Planes.around(_polygons(batch), crs, file)
    ground = planes.to_metres(_polygons(batch))
    results = ground.copy()
    units = np.sqrt(np.abs(np.linalg.det(planes.scales)) * options.pixel) if options.pixel else np.ones(len(batch))
    for i, (polygon, unit) in enumerate(zip(ground, units.tolist(), strict=True)):
        found = _squared_parts(polygon, options.square * unit) if options.square > 0 else None
        if found is not None:
            counts.squared += 1
        elif options.simplify > 0:
            found = shapely.simplify(polygon, options.simplify * unit)
        results[i] = polygon if found is None else found
    changed = [result is not polygon for result, polygon in zip(results, ground, strict=True)]
    back = planes.from_metres(results)
    back[changed] = repaired(back[changed])
    back = shapely.orient_polygons(back, exterior_cw=False)
    triples = zip(batch, back, changed, strict=True)
    return [replace(feature, polygon=polygon) if new else feature for feature, polygon, new in triples]


def _squared_parts(polygon: Any, tolerance: float) -> Any:
    """None where no part gets right angles."""
    if polygon.geom_type == "Polygon":
        return square(polygon, tolerance)
    parts = shapely.get_parts(polygon).tolist()
    found = [square(part, tolerance) for part in parts]
    if all(part is None for part in found):
        return None
    result = shapely.multipolygons([new or old for new, old in zip(found, parts, strict=True)])
    return result if result.is_valid else None


def _measured(
    features: Sequence[Feature], before: Sequence[Feature], crs: str, tolerance: float, file: str | Path | None
) -> list[Feature]:
    """With the areas on the ground of those that are new or have none."""
    result = list(features)
    new = [i for i, (one, old) in enumerate(zip(features, before, strict=True)) if one is not old or np.isnan(one.area)]
    polygons = _polygons([features[i] for i in new])
    areas = to_lon_lat(polygons, Geo(crs, PLAIN), file, tolerance=tolerance).areas
    for i, area in zip(new, areas.tolist(), strict=True):
        result[i] = replace(features[i], area=area)
    return result


def _polygons(features: Sequence[Feature]) -> NDArray[Any]:
    return np.array([feature.polygon for feature in features], dtype=object)


def _batches(features: Iterable[Feature]) -> Iterator[list[Feature]]:
    batch: list[Feature] = []
    for feature in features:
        batch.append(feature)
        if len(batch) == ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
