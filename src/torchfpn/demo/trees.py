"""Trees: woods, hedges between fields, gardens and alleys; round crowns lit from one side."""

from dataclasses import dataclass

import numpy as np

from torchfpn.demo.canvas import SHADOW, SUN, VEGETATION, Canvas, Points, Stencil
from torchfpn.demo.land import Land
from torchfpn.demo.noise import Field, smoothstep

LEAVES: tuple[tuple[float, float, float, float], ...] = (
    (0.060, 0.092, 0.038, 0.42),
    (0.074, 0.104, 0.040, 0.46),
    (0.046, 0.076, 0.036, 0.36),
    (0.040, 0.062, 0.036, 0.28),
    (0.098, 0.108, 0.042, 0.40),
)


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
    """Paints the crowns, small ones first."""
    for tree in sorted(trees, key=lambda t: t.radius):
        _crown(rng, canvas, tree)


def _crown(rng: np.random.Generator, canvas: Canvas, tree: Tree) -> None:
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
    canvas.paint(alpha, color[:, None, None] * light, label=VEGETATION, at=(int(corner[1]), int(corner[0])))
