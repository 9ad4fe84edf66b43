"""Houses, barns and halls along the roads: where they stand, their roofs and what they cast."""

from dataclasses import dataclass, field

import numpy as np

from torchfpn.demo.canvas import BUILDING, SHADOW, SHARP, SUN, Canvas, Points, Stencil
from torchfpn.demo.noise import Field, fractal
from torchfpn.demo.roads import Road

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


def roof_over(rng: np.random.Generator, canvas: Canvas, building: Building) -> None:
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
    canvas.paint(alpha, color, label=BUILDING, at=(int(low[1]), int(low[0])))


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
