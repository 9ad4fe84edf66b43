"""Roofs seen from above: sunlit and shaded slopes, tiles, chimneys, solar panels, ventilators."""

import numpy as np

from torchfpn.demo.buildings import Building
from torchfpn.demo.canvas import BUILDING, SHARP, SUN, Canvas
from torchfpn.demo.noise import Field, fractal


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
