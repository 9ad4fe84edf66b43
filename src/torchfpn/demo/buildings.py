"""Roads, cars, buildings and their roofs: where they stand in a scene of the demo, and how they are painted."""

from dataclasses import dataclass, field

import numpy as np

from torchfpn.demo.canvas import BUILDING, ROAD, SHADOW, SHARP, SUN, Canvas, Field, Points, Stencil, fractal

ASPHALT, WORN, GRAVEL = (0.108, 0.110, 0.114, 0.135), (0.175, 0.172, 0.166, 0.205), (0.262, 0.238, 0.198, 0.290)
PAINT, DECK, VERGE = (0.47, 0.47, 0.45, 0.47), (0.30, 0.295, 0.28, 0.32), (0.165, 0.160, 0.112, 0.30)
CARS = ((0.42, 0.42, 0.42), (0.05, 0.05, 0.06), (0.34, 0.06, 0.05), (0.07, 0.11, 0.26), (0.24, 0.25, 0.26))

ROOFS: tuple[tuple[float, float, float, float], ...] = (
    (0.270, 0.138, 0.095, 0.330),  # terracotta
    (0.225, 0.098, 0.070, 0.260),  # old brick red
    (0.142, 0.098, 0.074, 0.205),  # brown, near the colour of soil
    (0.105, 0.108, 0.116, 0.135),  # slate, near the colour of asphalt
    (0.172, 0.170, 0.166, 0.200),  # fibre cement, near the colour of worn roads
    (0.300, 0.245, 0.165, 0.330),  # straw and tan, near the colour of ripe grain
)

METAL: tuple[tuple[float, float, float, float], ...] = (
    (0.310, 0.315, 0.318, 0.340),  # bare
    (0.095, 0.150, 0.092, 0.210),  # green
    (0.200, 0.096, 0.080, 0.250),  # red
    (0.128, 0.160, 0.205, 0.200),  # blue
    (0.225, 0.222, 0.212, 0.250),  # grey
)


@dataclass(frozen=True)
class Road:
    """points: [N, 2] its middle line, a point about every 4 pixels. width: pixels. main: a through road with lanes."""

    points: Points
    width: float
    color: tuple[float, float, float, float]
    main: bool

    def normals(self) -> Points:
        """[N, 2] unit vectors to the right of the road."""
        along = np.gradient(self.points, axis=0)
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
        return np.stack([-along[:, 1], along[:, 0]], axis=1)

    def beside(self, offset: float) -> Points:
        """[N, 2] the line `offset` pixels to the right of the middle."""
        return self.points + offset * self.normals()


def network(rng: np.random.Generator, shape: tuple[int, int], angle: float, water: Field) -> list[Road]:
    """Through roads along `angle`, and side streets from them that end before the water."""
    middle, length = np.array(shape[::-1]) / 2, float(np.hypot(*shape))
    count = max(1, round(min(shape) / 480))
    mains, sides = [], []
    for k in range(count):
        shift = (k - (count - 1) / 2) * 420 + rng.uniform(-50, 50)
        across = np.array([-np.sin(angle), np.cos(angle)])
        start = middle + shift * across - length / 2 * np.array([np.cos(angle), np.sin(angle)])
        line = _wander(rng, start, angle, length, 34)
        mains.append(Road(line, rng.uniform(13.5, 16.5), ASPHALT, main=True))
        sides += _branches(rng, mains[-1], water)
    return sides + mains


def _wander(rng: np.random.Generator, start: Points, angle: float, length: float, swing: float) -> Points:
    """[N, 2] a line from `start` towards `angle`, softly winding."""
    t = np.arange(0, length, 4.0)
    phase, wave = rng.uniform(0, 2 * np.pi, 2), rng.uniform(280, 520, 2)
    drift = swing * (np.sin(2 * np.pi * t / wave[0] + phase[0]) - np.sin(phase[0]))
    drift += swing / 3 * (np.sin(4 * np.pi * t / wave[1] + phase[1]) - np.sin(phase[1]))
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    return np.asarray(start + t[:, None] * along + drift[:, None] * across)


def _branches(rng: np.random.Generator, main: Road, water: Field) -> list[Road]:
    """Side streets on both sides of a through road, every 100 to 190 pixels."""
    roads, place = [], rng.uniform(10, 110)
    while place < 4.0 * (len(main.points) - 2):
        at, normal = main.points[int(place / 4)], main.normals()[int(place / 4)]
        for side in rng.permutation([-1, 1])[: rng.integers(1, 3)]:
            heading = np.arctan2(*(side * normal)[::-1]) + rng.normal(0, 0.16)
            line = _dry(_wander(rng, at, heading, rng.uniform(120, 330), 9), water)
            if len(line) > 14:
                color = (ASPHALT, WORN, WORN, GRAVEL)[rng.integers(4)]
                roads.append(Road(line, rng.uniform(9.0, 11.5), color, main=False))
        place += rng.uniform(100, 190)
    return roads


def _dry(line: Points, water: Field) -> Points:
    """The first part of a line, up to 14 pixels before the water."""
    inside = ((line >= 0) & (line < np.array(water.shape[::-1]))).all(axis=1)
    x, y = line.astype(int).clip(0, np.array(water.shape[::-1]) - 1).T
    wet = np.flatnonzero((water[y, x] < 14) & inside)
    return line[: wet[0]] if len(wet) else line


def pave(rng: np.random.Generator, canvas: Canvas, roads: list[Road], drives: list[Points], water: Field) -> None:
    """Paints verges, drives, roads, lanes and bridges; everything paved is labelled road."""
    fine, grain = fractal(rng, canvas.shape, 14.0), fractal(rng, canvas.shape, 1.6)
    texture = (1 + 0.055 * fine + 0.045 * grain)[None]
    verge = _ribbons(canvas, roads, 4.0)
    canvas.paint(0.75 * verge * (water > 1), np.array(VERGE)[:, None, None] * (1 + 0.15 * fine))
    for surface, color in enumerate((GRAVEL, WORN)):
        stencil = Stencil(canvas.shape)
        for corners in drives[surface::2]:
            stencil.polygon(corners)
        canvas.paint(stencil.alpha(), np.array(color)[:, None, None] * texture, label=ROAD)
    mains = [road for road in roads if road.main]
    for color in (GRAVEL, WORN, ASPHALT):
        streets = [road for road in roads if road.color == color and not road.main]
        canvas.paint(_ribbons(canvas, streets, 0.0), np.array(color)[:, None, None] * texture, label=ROAD)
    canvas.paint(_ribbons(canvas, mains, 3.0) * (water < 5), np.array(DECK)[:, None, None] * texture, label=ROAD)
    canvas.paint(_ribbons(canvas, mains, 0.0), np.array(ASPHALT)[:, None, None] * texture, label=ROAD)
    _mark(canvas, roads, mains)


def _ribbons(canvas: Canvas, roads: list[Road], extra: float) -> Field:
    stencil = Stencil(canvas.shape)
    for road in roads:
        half = road.width / 2 + extra
        stencil.polygon(np.concatenate([road.beside(half), road.beside(-half)[::-1]]))
    return stencil.alpha()


def _mark(canvas: Canvas, roads: list[Road], mains: list[Road]) -> None:
    """Wheel tracks on every road; edge lines and a dashed middle on through roads."""
    tracks, lines = Stencil(canvas.shape), Stencil(canvas.shape)
    for road in roads:
        for offset in (-0.3, -0.14, 0.14, 0.3):
            tracks.line(road.beside(offset * road.width), 1.0)
    canvas.paint(0.10 * tracks.alpha(), (0.02, 0.02, 0.02, 0.02))
    for road in mains:
        for side in (-1, 1):
            lines.line(road.beside(side * (road.width / 2 - 1.3)), 0.5)
        for first in range(0, len(road.points) - 2, 4):
            lines.line(road.points[first : first + 3], 0.6)
    canvas.paint(0.7 * lines.alpha(), PAINT)


def drive_cars(rng: np.random.Generator, canvas: Canvas, roads: list[Road]) -> None:
    """A few cars, each with its shadow and a windscreen; they stay part of the road."""
    for road in roads:
        for place in rng.choice(len(road.points) - 2, size=min(len(road.points) // 22, 12), replace=False) + 1:
            at, normal = road.points[place], road.normals()[place]
            along = np.array([normal[1], -normal[0]])
            center = at + normal * rng.choice([-1, 1]) * road.width * 0.24
            color = np.array(CARS[rng.integers(len(CARS))]) * rng.uniform(0.8, 1.15)
            _car(canvas, center, along, np.array([*color, color.mean() + 0.03]))


def _car(canvas: Canvas, center: Points, along: Points, color: Points) -> None:
    across = np.array([-along[1], along[0]])
    corner = (center - 9).astype(int)

    def box(front: float, back: float, half: float, shift: Points) -> Field:
        stencil = Stencil((18, 18))
        middle = center - corner + shift
        stencil.polygon(
            [middle + a * along + b * across for a, b in ((front, half), (front, -half), (back, -half), (back, half))]
        )
        return stencil.alpha()

    at = (int(corner[1]), int(corner[0]))
    none = np.zeros(2)
    canvas.paint(0.65 * box(4.3, -4.3, 1.9, 2.2 * SHADOW), (0.03, 0.03, 0.035, 0.03), at=at)
    canvas.paint(box(4.3, -4.3, 1.9, none), color, at=at)
    canvas.paint(0.8 * box(1.9, 0.8, 1.6, none), (0.04, 0.05, 0.06, 0.04), at=at)


@dataclass(frozen=True)
class Part:
    """A rectangle in the frame of its building: center (u, v), half sizes along u and v, ridge along the longer one."""

    u: float
    v: float
    half_u: float
    half_v: float


@dataclass(frozen=True)
class Building:
    """center: (x, y). angle: of its u axis. height: of the eaves, pixels. roof: "gable", "hip" or "flat"."""

    center: Points
    angle: float
    parts: tuple[Part, ...]
    height: float
    roof: str
    color: tuple[float, float, float, float]
    axes: Points = field(init=False, repr=False)

    def __post_init__(self) -> None:
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        object.__setattr__(self, "axes", np.array([[cosine, sine], [-sine, cosine]]))

    def corners(self, grow: float = 0.0) -> list[Points]:
        """The corners [4, 2] of each part in the scene, `grow` pixels larger on every side."""
        signs = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])
        return [
            self.center + (np.array([p.u, p.v]) + signs * np.array([p.half_u + grow, p.half_v + grow])) @ self.axes
            for p in self.parts
        ]


def settle(
    rng: np.random.Generator, roads: list[Road], taken: Field, village: Field
) -> tuple[list[Building], list[Points]]:
    """Buildings on both sides of the roads where nothing is `taken` yet, dense where `village` is high; their drives.

    taken: [H, W], above 0 where nothing can be built; filled in as the buildings are placed.
    """
    buildings: list[Building] = []
    drives: list[Points] = []
    for road in roads:
        for side in (-1, 1):
            place = rng.uniform(8, 26)
            while place < 4.0 * (len(road.points) - 2):
                at, normal = road.points[int(place / 4)], side * road.normals()[int(place / 4)]
                building, gap = _next(rng, at, normal, road.width, _density(village, at))
                if building is not None and _free(building, taken):
                    buildings.append(building)
                    drives += _drive(rng, building, at, normal)
                    for corners in building.corners(3.5):
                        _occupy(taken, corners)
                place += gap
    return buildings, drives


def _density(village: Field, at: Points) -> float:
    x, y = at.astype(int).clip(0, np.array(village.shape[::-1]) - 1)
    return float(village[y, x])


def _next(
    rng: np.random.Generator, at: Points, normal: Points, width: float, density: float
) -> tuple[Building | None, float]:
    """One building beside the road at `at`, or none, and how far along the road the next one may stand."""
    if rng.random() > 0.05 + 0.95 * density:
        return None, 24.0
    kind = (
        rng.choice(["house", "house", "house", "barn", "hall"])
        if density < 0.6
        else rng.choice(["house"] * 8 + ["hall"])
    )
    length, depth, height = {
        "house": (rng.uniform(23, 34), rng.uniform(17, 23), rng.uniform(6, 10)),
        "barn": (rng.uniform(46, 74), rng.uniform(24, 31), rng.uniform(10, 13)),
        "hall": (rng.uniform(44, 70), rng.uniform(34, 48), rng.uniform(12, 18)),
    }[str(kind)]
    setback = rng.uniform(9, 20)
    angle = np.arctan2(-normal[0], normal[1]) + rng.normal(0, 0.035) + (np.pi / 2) * (rng.random() < 0.2)
    turned = abs(np.cos(angle) * normal[0] + np.sin(angle) * normal[1]) > 0.7
    reach = (length if turned else depth) / 2
    center = at + normal * (width / 2 + setback + reach)
    return _build(rng, str(kind), center, angle, (length, depth, height)), (depth if turned else length) + rng.uniform(
        9, 22
    )


def _build(
    rng: np.random.Generator, kind: str, center: Points, angle: float, size: tuple[float, float, float]
) -> Building:
    length, depth, height = size
    parts = [Part(0, 0, length / 2, depth / 2)]
    if kind != "barn" and rng.random() < 0.42:  # a wing makes an L or a T
        wing, out = depth * rng.uniform(0.62, 0.85) / 2, rng.uniform(7, 12)
        side = rng.choice([-1, 1])
        shift = rng.choice([-1, 0, 1]) * (length / 2 - wing)
        parts.append(Part(float(shift), float(side * (depth / 2 + out) / 2), wing, (depth / 2 + out) / 2))
    palette = ROOFS if kind == "house" else METAL
    color = np.array(palette[rng.integers(len(palette))]) * rng.normal(1, 0.08) * rng.normal(1, 0.03, 4)
    roof = {"house": rng.choice(["gable", "gable", "hip"]), "barn": "gable", "hall": "flat"}[kind]
    red, green, blue, nir = (float(c) for c in color.clip(0.03, 0.6))
    return Building(center, float(angle), tuple(parts), height, str(roof), (red, green, blue, nir))


def _drive(rng: np.random.Generator, building: Building, at: Points, normal: Points) -> list[Points]:
    """The corners of a paved strip from the road to the building, for about half of them."""
    if rng.random() < 0.45:
        return []
    along = np.array([normal[1], -normal[0]]) * rng.uniform(3.6, 5.0)
    foot = at + normal * ((building.center - at) @ normal)
    return [np.array([at + along, at - along, foot - along, foot + along])]


def _patch(corners: Points, shape: tuple[int, int]) -> tuple[tuple[slice, slice], Points, tuple[int, int]]:
    """The window of the scene around `corners`, its upper left corner (x, y) and its size."""
    low = np.floor(corners.min(axis=0)).astype(int).clip(0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int), shape[::-1])
    size = (max(0, int(high[1] - low[1])), max(0, int(high[0] - low[0])))
    return (slice(low[1], low[1] + size[0]), slice(low[0], low[0] + size[1])), low.astype(float), size


def _free(building: Building, taken: Field) -> bool:
    for corners in building.corners(3.0):
        window, low, size = _patch(corners, (taken.shape[0], taken.shape[1]))
        if 0 in size:
            return False
        stencil = Stencil(size, sharp=1)
        stencil.polygon(corners - low)
        if float((taken[window] * stencil.alpha()).max()) > 0:
            return False
    return True


def _occupy(taken: Field, corners: Points) -> None:
    window, low, size = _patch(corners, (taken.shape[0], taken.shape[1]))
    if 0 not in size:
        stencil = Stencil(size, sharp=1)
        stencil.polygon(corners - low)
        taken[window] = np.maximum(taken[window], stencil.alpha())


def cast(stencil: Stencil, building: Building) -> None:
    """Draws the shadow of a building: each part moved along the rays, with what it sweeps on the way."""
    height = building.height + (0 if building.roof == "flat" else 3.0)
    for corners in building.corners():
        moved = corners + height * SHADOW
        stencil.polygon(moved)
        for a, b in zip(range(4), (1, 2, 3, 0), strict=True):
            stencil.polygon([corners[a], corners[b], moved[b], moved[a]])


def roof_over(rng: np.random.Generator, canvas: Canvas, building: Building, number: int) -> None:
    """Paints one roof: sunlit and shaded slopes, rows of tiles, weathering, and what stands on it."""
    outline = np.concatenate(building.corners(2.0))
    low = np.floor(outline.min(axis=0)).astype(int)
    width, height = (np.ceil(outline.max(axis=0)).astype(int) - low + 1).tolist()
    y, x = (np.mgrid[0 : height * SHARP, 0 : width * SHARP] + 0.5) / SHARP
    local = np.stack([x + low[0], y + low[1]], axis=-1) - building.center
    u, v = np.moveaxis(local @ building.axes.T, -1, 0)
    rise, inside = _heights(building, u, v)
    shade = _light(building, rise)
    texture = 1 + 0.05 * fractal(rng, u.shape, 30) + 0.035 * fractal(rng, u.shape, 4)
    if building.roof != "flat":
        texture *= 1 - 0.07 * (np.mod(rise, 1.25) < 0.5)  # rows of tiles follow the slope
        ridge = rise > rise[inside].max() - 0.45
        texture *= 1 + 0.22 * ridge
    color = np.array(building.color)[:, None, None] * (shade * texture)[None]
    _furnish(rng, building, color, u, v)
    weight = inside.astype(np.float32)
    alpha = _shrink(weight)
    color = _shrink(color * weight) / np.maximum(alpha, 1e-6)
    canvas.paint(alpha, color, label=BUILDING, number=number, at=(int(low[1]), int(low[0])))


def _heights(building: Building, u: Field, v: Field) -> tuple[Field, Field]:
    """Height of the roof above its eaves and whether there is a roof, for points in the frame of the building."""
    rise, inside = np.full(u.shape, -1.0), np.zeros(u.shape, bool)
    for part in building.parts:
        du, dv = part.half_u - np.abs(u - part.u), part.half_v - np.abs(v - part.v)
        longer_u = part.half_u >= part.half_v
        slope = np.minimum(du, dv) if building.roof == "hip" else (dv if longer_u else du)
        here = (du > 0) & (dv > 0)
        rise = np.where(here, np.maximum(rise, 0.62 * slope), rise)
        inside |= here
    return rise.astype(np.float32), inside


def _light(building: Building, rise: Field) -> Field:
    """Brightness of every point of the roof under the sun, 1 for level ground."""
    if building.roof == "flat":
        return np.ones_like(rise)
    down, right = np.gradient(rise * SHARP)
    normal = np.stack([-right, -down, np.ones_like(rise)]) / np.sqrt(right**2 + down**2 + 1)
    light = np.tensordot(SUN, normal, axes=1) / SUN[2]
    return np.asarray(0.22 + 0.78 * light.clip(0.12, 1.6), dtype=np.float32)


def _furnish(rng: np.random.Generator, building: Building, color: Field, u: Field, v: Field) -> None:
    """Adds, in place, a chimney or solar panels to pitched roofs, a rim and ventilators to flat ones."""
    part = building.parts[0]
    if building.roof == "flat":
        rim = np.minimum(part.half_u - np.abs(u), part.half_v - np.abs(v))
        color[:, (rim > 0) & (rim < 1.3)] *= 1.22
        for _ in range(rng.integers(2, 6)):
            a, b = rng.uniform(-0.7, 0.7, 2) * (part.half_u, part.half_v)
            size = rng.uniform(1.4, 3.2)
            color[:, (np.abs(u - a - 1.4) < size) & (np.abs(v - b - 1.4) < size)] *= 0.55
            color[:, (np.abs(u - a) < size) & (np.abs(v - b) < size)] = rng.uniform(0.3, 0.5)
        return
    if rng.random() < 0.25:
        side = rng.choice([-1, 1])
        panel = (np.abs(u) < 0.62 * part.half_u) & (np.abs(side * v - 0.5 * part.half_v) < 0.3 * part.half_v)
        frame = (np.mod(u, 3.0) < 0.4) | (np.mod(v, 4.5) < 0.4)
        color[:, panel] = np.array([0.035, 0.045, 0.075, 0.05])[:, None] * (1 + 1.3 * frame[panel])
    elif rng.random() < 0.7:
        a, b = rng.uniform(-0.6, 0.6) * part.half_u, rng.uniform(-0.4, 0.4) * part.half_v
        color[:, (np.abs(u - a) < 1.1) & (np.abs(v - b) < 1.1)] = np.array([0.30, 0.20, 0.17, 0.3])[:, None]


def _shrink(field_: Field) -> Field:
    """Averages blocks of `SHARP` x `SHARP`."""
    *front, height, width = field_.shape
    blocks = field_.reshape(*front, height // SHARP, SHARP, width // SHARP, SHARP)
    return np.asarray(blocks.mean(axis=(-3, -1)), dtype=np.float32)
