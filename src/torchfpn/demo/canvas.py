"""What a scene of the demo is painted on and with: noise, stencils with soft edges, fields, rivers and ponds.

Coordinates are (x, y) in pixels, x right, y down; pixel k covers k..k+1. One pixel is half a metre.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

Field = NDArray[Any]  # [H, W], or [4, H, W]; float32 unless said otherwise
Points = NDArray[np.float64]  # [N, 2], x and y
VEGETATION, ROAD, BUILDING, WATER = 1, 2, 3, 4
SHARP = 4  # stencils are drawn this many times larger and averaged: soft edges of one pixel

SUN = np.array(
    [-0.52, -0.48, 0.71]
)  # x right, y down, z up: in the upper left, an afternoon of the southern hemisphere

SHADOW = -SUN[:2] / SUN[2]  # where the shadow of a point falls, per unit of its height

# reflectance of red, green, blue, near infrared; how strongly rows of plants show; how mottled it is
CROPS: tuple[tuple[tuple[float, float, float, float], float, float], ...] = (
    ((0.088, 0.130, 0.058, 0.40), 0.04, 0.16),  # meadow
    ((0.066, 0.115, 0.045, 0.47), 0.10, 0.10),  # young grain
    ((0.118, 0.142, 0.068, 0.38), 0.05, 0.20),  # dry grass
    ((0.300, 0.245, 0.138, 0.34), 0.10, 0.08),  # ripe grain
    ((0.160, 0.132, 0.094, 0.23), 0.16, 0.12),  # bare soil
    ((0.236, 0.210, 0.142, 0.30), 0.16, 0.10),  # stubble
    ((0.245, 0.248, 0.078, 0.46), 0.06, 0.08),  # rapeseed
    ((0.070, 0.105, 0.046, 0.43), 0.38, 0.08),  # vegetables in rows
)

CHANCES = (0.27, 0.17, 0.13, 0.12, 0.09, 0.09, 0.04, 0.09)


def fractal(rng: np.random.Generator, shape: tuple[int, int], scale: float, *, roughness: float = 1.2) -> Field:
    """[H, W] noise of mean 0 and deviation 1 with features of about `scale` pixels, finer ones mixed in.

    White noise whose spectrum falls as frequency ** -(1 + roughness) above 1 / scale: hills for large `scale`, grain
    for small.
    """
    height, width = shape
    white = np.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    square = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None, :] ** 2
    weight = (1.0 + (square * scale**2).astype(np.float32)) ** np.float32(-(1.0 + roughness) / 2)
    weight[0, 0] = 0.0
    field = np.fft.irfft2(white * weight, s=shape)
    return (field / max(float(field.std()), 1e-9)).astype(np.float32)


def blur(field: Field, sigma: float) -> Field:
    """Gaussian blur of the last two axes; beyond the border the outermost pixels go on."""
    radius = max(1, round(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (field.ndim - 2, field.ndim - 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(field.ndim)]
        wide, size = np.pad(field, pad, mode="edge"), field.shape[axis]
        field = np.zeros_like(field)
        for start, tap in enumerate(taps):
            window = [slice(start, start + size) if a == axis else slice(None) for a in range(field.ndim)]
            field += np.float32(tap) * wide[tuple(window)]
    return field


def smoothstep(low: float, high: float, value: Field) -> Field:
    """0 below `low`, 1 above `high`, a soft ramp between."""
    ramp = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), dtype=np.float32)


class Stencil:
    """Shapes drawn in white on black, and how much of each pixel they cover."""

    def __init__(self, shape: tuple[int, int], *, sharp: int = SHARP) -> None:
        self.sharp = sharp
        self.picture = Image.new("L", (shape[1] * sharp, shape[0] * sharp))
        self.pen = ImageDraw.Draw(self.picture)

    def _place(self, points: ArrayLike) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in np.asarray(points, dtype=float) * self.sharp - 0.5]

    def polygon(self, points: ArrayLike) -> None:
        """A filled polygon with the corners [N, 2]."""
        self.pen.polygon(self._place(points), fill=255)

    def line(self, points: ArrayLike, width: float) -> None:
        """A line through the points [N, 2], `width` pixels wide, with round joints."""
        self.pen.line(self._place(points), fill=255, width=max(1, round(width * self.sharp)), joint="curve")

    def disc(self, center: Sequence[float], radius: float) -> None:
        """A filled circle."""
        (x, y), r = self._place([center])[0], radius * self.sharp
        self.pen.ellipse((x - r, y - r, x + r, y + r), fill=255)

    def alpha(self) -> Field:
        """[H, W], the covered part of each pixel, 0..1."""
        return np.asarray(self.picture.reduce(self.sharp), dtype=np.float32) / 255


class Canvas:
    """A picture and what is on it.

    image: [4, H, W] reflectance 0..1 of red, green, blue, near infrared. labels: [H, W] uint8. numbers: [H, W] uint16,
    which building a pixel belongs to, 0 for none.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.image = np.zeros((4, *shape), np.float32)
        self.labels = np.full(shape, VEGETATION, np.uint8)
        self.numbers = np.zeros(shape, np.uint16)

    def paint(
        self,
        alpha: Field,
        color: ArrayLike,
        *,
        label: int | None = None,
        number: int = 0,
        at: tuple[int, int] = (0, 0),
    ) -> None:
        """Lays `color` ([4] or [4, h, w]) over the picture as far as `alpha` [h, w] covers it, from (row, column) `at`.

        The label of a pixel is the one that covers more than half of it, and so is the number.
        """
        rows, columns, alpha_rows, alpha_columns = _overlap(self.shape, alpha.shape, at)
        part = alpha[alpha_rows, alpha_columns]
        paint = np.asarray(color, dtype=np.float32)
        paint = paint[:, None, None] if paint.ndim == 1 else paint[:, alpha_rows, alpha_columns]
        self.image[:, rows, columns] += part * (paint - self.image[:, rows, columns])
        if label is not None:
            self.labels[rows, columns][part > 0.5] = label
            self.numbers[rows, columns][part > 0.5] = number


def _overlap(shape: tuple[int, int], part: tuple[int, ...], at: tuple[int, int]) -> tuple[slice, slice, slice, slice]:
    """Where a patch at `at` meets the canvas: rows and columns of the canvas, rows and columns of the patch."""
    spans = []
    for size, length, start in zip(shape, part, at, strict=True):
        first, last = max(0, start), min(size, start + length)
        last = max(first, last)
        spans.append((slice(first, last), slice(first - start, last - start)))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


@dataclass(frozen=True)
class Land:
    """parcel: [H, W] number of the parcel. border: [H, W] distance to its edge in pixels, about."""

    parcel: Field
    border: Field
    angle: float


def grid(shape: tuple[int, int]) -> tuple[Field, Field]:
    """The x and the y of every pixel centre, each [H, W]."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) + 0.5
    return x, y


def parcels(rng: np.random.Generator, shape: tuple[int, int], angle: float) -> Land:
    """Fields laid out in strips along `angle`, each strip cut at its own places, all edges a little crooked."""
    x, y = grid(shape)
    u = x * np.cos(angle) + y * np.sin(angle) + 9 * fractal(rng, shape, 350, roughness=2.6)
    v = -x * np.sin(angle) + y * np.cos(angle) + 9 * fractal(rng, shape, 350, roughness=2.6)
    row, row_edge = _cut(rng, v, 95, 170)
    column, column_edge = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    for strip in np.unique(row):
        inside = row == strip
        column[inside], column_edge[inside] = _cut(rng, u[inside], 110, 240)
    return Land((row * 101 + column).astype(np.float32), np.minimum(row_edge, column_edge), angle)


def _cut(rng: np.random.Generator, value: Field, shortest: float, longest: float) -> tuple[Field, Field]:
    """The number of the piece each value lies in, and its distance to the nearer end of that piece."""
    low, high = float(value.min()) - longest, float(value.max()) + longest
    edges = low + np.cumsum(rng.uniform(shortest, longest, int((high - low) / shortest) + 2))
    piece = np.searchsorted(edges, value)
    previous = np.where(piece > 0, edges[piece - 1], low)
    return piece, np.minimum(edges[np.minimum(piece, len(edges) - 1)] - value, value - previous).astype(np.float32)


def sow(rng: np.random.Generator, canvas: Canvas, land: Land) -> None:
    """Gives every parcel a crop: colour, mottling, rows of plants, the tracks of the tractor, a grassy edge."""
    x, y = grid(canvas.shape)
    coarse, fine, grain = (fractal(rng, canvas.shape, scale) for scale in (60.0, 12.0, 2.0))
    sway = 1.6 * fractal(rng, canvas.shape, 120, roughness=2.6)
    names, which = np.unique(land.parcel, return_inverse=True)
    which = which.reshape(canvas.shape)
    crop = rng.choice(len(CROPS), size=len(names), p=CHANCES)
    color = np.array([c for c, _, _ in CROPS])[crop] * rng.normal(1.0, 0.07, (len(names), 1))
    color *= rng.normal(1.0, 0.04, (len(names), 4))
    rows, mottle = np.array([r for _, r, _ in CROPS])[crop], np.array([m for _, _, m in CROPS])[crop]
    turn = land.angle + rng.choice([0.0, np.pi / 2], len(names)) + rng.normal(0, 0.06, len(names))
    period = rng.uniform(3.4, 6.5, len(names))
    across = -x * np.sin(turn)[which] + y * np.cos(turn)[which] + sway
    stripes = rows[which] * np.sin(2 * np.pi * across / period[which])
    tramline = np.abs(np.mod(across, 44.0) - 22.0)
    track = (np.exp(-(((np.abs(tramline) - 3.0) / 0.8) ** 2)) * np.where(rows > 0.05, 0.16, 0.0)[which]).astype(
        np.float32
    )
    texture = 1 + mottle[which] * (0.55 * coarse + 0.35 * fine) + stripes - track + 0.045 * grain
    canvas.image[:] = color.T[:, which] * texture.clip(0.35, 1.9)
    grass = np.array([0.080, 0.112, 0.050, 0.38])[:, None, None] * (1 + 0.18 * fine + 0.06 * grain)
    canvas.paint(0.85 * smoothstep(3.2, 1.2, land.border + 0.8 * fine), grass)


def river(rng: np.random.Generator, shape: tuple[int, int], angle: float) -> Field:
    """[H, W] distance to a winding river in pixels, about; negative in the water."""
    x, y = grid(shape)
    length = float(np.hypot(*shape))
    middle = np.array(shape[::-1]) * rng.uniform(0.25, 0.75, 2)
    u = (x - middle[0]) * np.cos(angle) + (y - middle[1]) * np.sin(angle)
    v = -(x - middle[0]) * np.sin(angle) + (y - middle[1]) * np.cos(angle)
    wave, phase = rng.uniform(260, 420), rng.uniform(0, 2 * np.pi, 3)
    swing = rng.uniform(24, 46)
    bend = swing * np.sin(2 * np.pi * u / wave + phase[0]) + 0.4 * swing * np.sin(4.6 * np.pi * u / wave + phase[1])
    width = rng.uniform(20, 34) * (1 + 0.28 * np.sin(2 * np.pi * u / (0.7 * length) + phase[2]))
    return np.asarray(0.85 * (np.abs(v - bend) - width) + 2.6 * fractal(rng, shape, 40), dtype=np.float32)


def pond(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """[H, W] distance to a pond in pixels, about; negative in the water."""
    x, y = grid(shape)
    center = np.array(shape[::-1]) * rng.uniform(0.15, 0.85, 2)
    turn, flat = rng.uniform(0, np.pi), rng.uniform(0.55, 0.9)
    u = (x - center[0]) * np.cos(turn) + (y - center[1]) * np.sin(turn)
    v = -(x - center[0]) * np.sin(turn) + (y - center[1]) * np.cos(turn)
    radius = rng.uniform(34, 62)
    return np.asarray(np.hypot(u, v / flat) - radius + 7 * fractal(rng, shape, 70), dtype=np.float32)


def flood(rng: np.random.Generator, canvas: Canvas, distance: Field) -> None:
    """Paints the water: reeds and sand on the bank, shallows, depths, ripples and a few glints."""
    coarse, fine, grain = (fractal(rng, canvas.shape, scale) for scale in (90.0, 10.0, 1.5))
    reeds = np.array([0.052, 0.080, 0.034, 0.34])[:, None, None] * (1 + 0.3 * fine)
    sand = np.array([0.270, 0.232, 0.165, 0.31])[:, None, None] * (1 + 0.08 * fine + 0.05 * grain)
    canvas.paint(0.9 * smoothstep(9.0, 3.0, distance + 2.5 * fine), reeds)
    canvas.paint(smoothstep(3.4, 1.2, distance + 1.6 * coarse) * smoothstep(-0.2, 0.6, coarse), sand)
    deep = smoothstep(-1.0, -17.0, distance + 1.5 * coarse)
    shallow, depth = np.array([0.088, 0.108, 0.080, 0.060]), np.array([0.026, 0.050, 0.054, 0.016])
    water = shallow[:, None, None] + deep * (depth - shallow)[:, None, None]
    ripples = 1 + 0.05 * coarse + 0.045 * fine + 0.05 * grain
    glint = 0.035 * smoothstep(2.2, 3.4, grain + 0.5 * fine)
    canvas.paint(smoothstep(0.5, -0.5, distance), water * ripples + glint, label=None)
    canvas.labels[distance < 0] = WATER
