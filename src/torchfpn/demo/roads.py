"""A network of roads: one through road, side streets, their lanes, bridges, cars."""

from dataclasses import dataclass

import numpy as np

from torchfpn.demo.canvas import ROAD, SHADOW, Canvas, Points, Stencil
from torchfpn.demo.noise import Field, fractal

ASPHALT, WORN, GRAVEL = (0.108, 0.110, 0.114, 0.135), (0.175, 0.172, 0.166, 0.205), (0.262, 0.238, 0.198, 0.290)
PAINT, DECK, VERGE = (0.47, 0.47, 0.45, 0.47), (0.30, 0.295, 0.28, 0.32), (0.165, 0.160, 0.112, 0.30)
CARS = ((0.42, 0.42, 0.42), (0.05, 0.05, 0.06), (0.34, 0.06, 0.05), (0.07, 0.11, 0.26), (0.24, 0.25, 0.26))


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
