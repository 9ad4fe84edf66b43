"""What the scene is painted on: reflectance of four bands, a label for every pixel, and soft-edged stencils.

Coordinates are (x, y) in pixels, x right, y down; pixel k covers k..k+1. One pixel is half a metre.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from torchfpn.demo.noise import Field

Points = NDArray[np.float64]  # [N, 2], x and y
VEGETATION, ROAD, BUILDING, WATER = 1, 2, 3, 4
SHARP = 4  # stencils are drawn this many times larger and averaged: soft edges of one pixel
SUN = np.array(
    [-0.52, -0.48, 0.71]
)  # x right, y down, z up: in the upper left, an afternoon of the southern hemisphere
SHADOW = -SUN[:2] / SUN[2]  # where the shadow of a point falls, per unit of its height


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
