"""Where an image lies on the earth: coordinate system and affine transform, as plain values."""

from dataclasses import dataclass

Affine6 = tuple[float, float, float, float, float, float]
SAME_GRID = 0.01  # pixels; how far apart two grids may lie and still be one


@dataclass(frozen=True)
class Geo:
    """crs: well-known text, None where unknown. transform: (a, b, c, d, e, f) of the upper left pixel corners.

    x = a * column + b * row + c and y = d * column + e * row + f; a south-up image has e > 0, a rotated one b, d != 0.
    """

    crs: str | None
    transform: Affine6

    def world(self, column: float, row: float) -> tuple[float, float]:
        """The place of a pixel corner, in units of the coordinate system."""
        a, b, c, d, e, f = self.transform
        return a * column + b * row + c, d * column + e * row + f

    def part(self, row: int, column: int) -> "Geo":
        """The place of a part of the image whose upper left pixel is that one."""
        a, b, _, d, e, _ = self.transform
        x, y = self.world(column, row)
        return Geo(self.crs, (a, b, x, d, e, y))

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """(column, row) of a place; infinite where the transform cannot be inverted."""
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        if det == 0:
            return float("inf"), float("inf")
        return (e * (x - c) - b * (y - f)) / det, (a * (y - f) - d * (x - c)) / det

    def distance(self, other: "Geo", height: int, width: int) -> float:
        """How far apart the same pixel lies on the two grids, in pixels of this one: the worst of the four corners."""
        worst = 0.0
        for column, row in ((0, 0), (width, 0), (0, height), (width, height)):
            c, r = self.pixel(*other.world(column, row))
            worst = max(worst, abs(c - column), abs(r - row))
        return worst
