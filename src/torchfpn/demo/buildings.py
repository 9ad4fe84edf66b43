"""Houses, barns and halls along the roads: where they stand and what shadows they cast."""

from dataclasses import dataclass, field

import numpy as np

from torchfpn.demo.canvas import SHADOW, Points, Stencil
from torchfpn.demo.noise import Field
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
