"""Small labelled aerial scenes from a seed: fields, woods, water, roads and buildings, in four bands.

    seed -> parcels, river, roads, houses, trees (geometry) -> ground, shadows, roofs, crowns (paint) -> sensor -> Scene

The labels are exact by construction. No colour identifies a class: slate looks like asphalt, brown roofs like soil,
straw like grain, shadows like water; shape and surroundings tell them apart.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchfpn.demo.buildings import Building, Road, drive_cars, pave, roof_over, settle
from torchfpn.demo.buildings import cast as cast_building
from torchfpn.demo.buildings import network as road_network
from torchfpn.demo.canvas import (
    SHADOW,
    SUN,
    VEGETATION,
    Canvas,
    Field,
    Land,
    Points,
    Stencil,
    blur,
    flood,
    fractal,
    parcels,
    pond,
    river,
    smoothstep,
    sow,
)

LEAVES: tuple[tuple[float, float, float, float], ...] = (
    (0.060, 0.092, 0.038, 0.42),
    (0.074, 0.104, 0.040, 0.46),
    (0.046, 0.076, 0.036, 0.36),
    (0.040, 0.062, 0.036, 0.28),
    (0.098, 0.108, 0.042, 0.40),
)

CLASSES = ("vegetation", "road", "building", "water")  # label values 1..4; 0 is "not labelled"
COLORS = ((112, 168, 84), (90, 90, 102), (222, 92, 64), (58, 134, 214))
BANDS = ("red", "green", "blue", "nir")
MARGIN = 40  # painted around the scene and cut off, so that nothing ends at the border
PIXEL = 0.5  # metres
TREES = 2**15  # numbers on the canvas above this are of trees, others of buildings


@dataclass(frozen=True)
class Tree:
    """center (x, y), radius of the crown and its height in pixels, and which of `LEAVES` it bears."""

    center: Points
    radius: float
    leaves: int


def plant(rng: np.random.Generator, land: Land, woods: Field, village: Field, keep_off: Field) -> list[Tree]:
    """Trees where `keep_off` ([H, W], distance to roads, buildings and water) leaves room for their crowns."""
    height, width = land.border.shape
    step = 6.0
    y, x = np.mgrid[0 : height - 1 : step, 0 : width - 1 : step]
    places = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(0, step, (x.size, 2))
    places = places.clip(0, np.array([width - 1.01, height - 1.01]))
    column, row = places.astype(int).T
    hedge = (land.border[row, column] < 3.2) & (np.sin(land.parcel[row, column] * 12.9898) > -0.1)
    garden = 0.0015 + 0.034 * village[row, column]
    chance = np.maximum(0.62 * woods[row, column], np.where(hedge, 0.42 * (1 - village[row, column]), 0.0))
    chance = np.maximum(chance, np.where(woods[row, column] > 0.01, 0.05, garden))
    trees: list[Tree] = []
    for k in np.flatnonzero(rng.random(len(places)) < chance):
        radius = float(rng.uniform(4.0, 8.5) if woods[row[k], column[k]] > 0.4 else rng.uniform(2.6, 7.0))
        if keep_off[row[k], column[k]] > 0.8 * radius:
            leaves = int(rng.choice(len(LEAVES), p=[0.34, 0.24, 0.2, 0.14, 0.08]))
            trees.append(Tree(places[k], radius, leaves))
    return trees


def cast(stencil: Stencil, tree: Tree) -> None:
    """Draws the shadow of one tree: its crown, moved along the rays."""
    for lift in (0.5, 0.9, 1.3):
        stencil.disc(tree.center + lift * 1.25 * tree.radius * SHADOW, tree.radius * 0.92)


def leaf(rng: np.random.Generator, canvas: Canvas, trees: list[Tree]) -> None:
    """Paints the crowns, small ones first, numbered from `TREES` on."""
    for number, tree in enumerate(sorted(trees, key=lambda t: t.radius), start=TREES + 1):
        _crown(rng, canvas, tree, number)


def _crown(rng: np.random.Generator, canvas: Canvas, tree: Tree, number: int) -> None:
    """A bumpy dome: clumps of leaves stand out, the side away from the sun is dark."""
    reach = int(tree.radius * 1.25) + 2
    corner = tree.center.astype(int) - reach
    y, x = np.mgrid[0 : 2 * reach + 1, 0 : 2 * reach + 1] + 0.5
    dx, dy = x + corner[0] - tree.center[0], y + corner[1] - tree.center[1]
    around = np.arctan2(dy, dx)
    waves, phase = rng.integers(3, 8, 2), rng.uniform(0, 2 * np.pi, 2)
    edge = tree.radius * (1 + 0.10 * np.sin(waves[0] * around + phase[0]) + 0.06 * np.sin(waves[1] * around + phase[1]))
    radial = np.hypot(dx, dy) / edge
    dome = np.sqrt((1.02 - radial**2).clip(0)) * tree.radius * 0.9
    lumps = rng.standard_normal(x.shape)
    lumps = (lumps + np.roll(lumps, 1, 0) + np.roll(lumps, 1, 1) + np.roll(lumps, (1, 1), (0, 1))) / 2
    down, right = np.gradient(dome + 0.42 * lumps)
    normal = np.stack([-right, -down, np.ones_like(dome)]) / np.sqrt(right**2 + down**2 + 1)
    light = 0.30 + 0.85 * (np.tensordot(SUN, normal, axes=1)).clip(0) / SUN[2]
    color = np.array(LEAVES[tree.leaves]) * rng.normal(1, 0.10) * rng.normal(1, 0.04, 4)
    alpha = smoothstep(0.0, 1.0, ((1 - radial) * tree.radius + 0.5).astype(np.float32))
    at = int(corner[1]), int(corner[0])
    canvas.paint(alpha, color[:, None, None] * light, label=VEGETATION, number=number, at=at)


@dataclass(frozen=True)
class Scene:
    """A photograph and its truth.

    image: [4, H, W] uint16, 12-bit numbers of a camera. labels: [H, W] uint8, 1..4. numbers: [H, W] uint16, of the
    buildings, 0 where none is. trees: [H, W] uint16, of the trees.
    """

    image: NDArray[np.uint16]
    labels: NDArray[np.uint8]
    numbers: NDArray[np.uint16]
    trees: NDArray[np.uint16]


def scene(seed: int, size: int) -> Scene:
    """The scene of one seed, `size` x `size` pixels; the same bits for the same seed and size."""
    rng = np.random.default_rng([seed, size])
    shape = (size + 2 * MARGIN, size + 2 * MARGIN)
    canvas, angle = Canvas(shape), float(rng.uniform(0, np.pi))
    fields = parcels(rng, shape, angle + rng.normal(0, 0.1))
    water = _water(rng, shape, angle)
    village = smoothstep(-0.5, 0.9, fractal(rng, shape, 260) + rng.normal(0.25, 0.3))
    network = road_network(rng, shape, angle, water)
    taken = _taken(shape, network, water)
    houses, drives = settle(rng, network, taken, village)
    woods = smoothstep(0.55, 0.85, fractal(rng, shape, 150)) * (1 - village)
    planted = plant(rng, fields, woods, village, _room(shape, network, houses, drives, water))

    sow(rng, canvas, fields)
    _gardens(rng, canvas, houses, woods)
    flood(rng, canvas, water)
    pave(rng, canvas, network, drives, water)
    drive_cars(rng, canvas, network)
    _shade(canvas, houses, planted)
    for number, house in enumerate(houses, start=1):
        roof_over(rng, canvas, house, number)
    leaf(rng, canvas, planted)
    inner = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    numbers, none = canvas.numbers[inner], np.uint16(0)
    houses_alone, trees = np.where(numbers <= TREES, numbers, none), np.where(numbers > TREES, numbers - TREES, none)
    return Scene(_expose(rng, canvas)[:, *inner].copy(), canvas.labels[inner].copy(), houses_alone, trees)


def _water(rng: np.random.Generator, shape: tuple[int, int], angle: float) -> Field:
    """[H, W] distance to the nearest water; a river in most scenes, a pond in many."""
    distance = np.full(shape, 1e3, np.float32)
    if rng.random() < 0.62:
        distance = river(rng, shape, angle + np.pi / 2 + rng.normal(0, 0.3))
    else:
        distance = np.minimum(distance, pond(rng, shape))
    if rng.random() < 0.3:
        distance = np.minimum(distance, pond(rng, shape))
    return distance


def _taken(shape: tuple[int, int], network: list[Road], water: Field) -> Field:
    """Above 0 where no house can stand: roads with their verges, water with its bank."""
    stencil = Stencil(shape, sharp=1)
    for road in network:
        stencil.line(road.points, road.width + 8)
    return np.asarray(np.maximum(stencil.alpha(), water < 10))


def _room(
    shape: tuple[int, int],
    network: list[Road],
    houses: list[Building],
    drives: list[Points],
    water: Field,
) -> Field:
    """[H, W] distance in pixels to roads, houses and water, up to 8: how large a crown may grow there."""
    room = np.full(shape, 8.0, np.float32)
    for grow in range(7, -1, -1):
        stencil = Stencil(shape, sharp=1)
        for road in network:
            stencil.line(road.points, road.width + 2 * grow)
        for house in houses:
            for corners in house.corners(float(grow)):
                stencil.polygon(corners)
        for corners in drives:
            stencil.polygon(corners)
        room[stencil.alpha() > 0.5] = grow
    return np.asarray(np.minimum(room, water.clip(0)))


def _gardens(rng: np.random.Generator, canvas: Canvas, houses: list[Building], woods: Field) -> None:
    """Lawns around the houses and a dark floor under the woods, over the crops."""
    stencil = Stencil(canvas.shape, sharp=1)
    for house in houses:
        for corners in house.corners(13.0):
            stencil.polygon(corners)
    fine = fractal(rng, canvas.shape, 8.0)
    lawn = np.array([0.092, 0.136, 0.060, 0.43])[:, None, None] * (1 + 0.10 * fine)
    floor = np.array([0.058, 0.074, 0.036, 0.27])[:, None, None] * (1 + 0.25 * fine)
    edge = blur(stencil.alpha(), 3.0) + 0.12 * fractal(rng, canvas.shape, 22)
    canvas.paint(0.92 * smoothstep(0.25, 0.6, edge), lawn)
    canvas.paint(0.9 * smoothstep(0.1, 0.5, woods), floor)


def _shade(canvas: Canvas, houses: list[Building], planted: list[Tree]) -> None:
    """Darkens the ground where houses and trees stand in the sun; what is left is light of the blue sky."""
    stencil = Stencil(canvas.shape, sharp=2)
    for house in houses:
        cast_building(stencil, house)
    for tree in planted:
        cast(stencil, tree)
    shadow = blur(stencil.alpha(), 0.7)
    sky = np.array([0.30, 0.34, 0.42, 0.26], np.float32)[:, None, None]
    canvas.image *= 1 - shadow * (1 - sky)


def _expose(rng: np.random.Generator, canvas: Canvas) -> NDArray[np.uint16]:
    """Reflectance to 12-bit numbers: uneven light, haze, the blur of the lens, a tone curve, photon noise."""
    light = 1 + 0.05 * fractal(rng, canvas.shape, 500) + rng.normal(0, 0.03)
    haze = np.array([0.006, 0.009, 0.014, 0.003], np.float32)[:, None, None]
    seen = blur(canvas.image * light + haze, 0.62).clip(0)
    seen += np.sqrt(seen) * 0.0075 * rng.standard_normal(seen.shape, dtype=np.float32)
    numbers = 4095 * (seen.clip(0, 0.65) / 0.65) ** (1 / 1.7)
    return np.asarray(numbers.round().clip(1, 4095), dtype=np.uint16)
