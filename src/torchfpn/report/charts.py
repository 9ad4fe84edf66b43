"""Curves as inline SVG: crisp at every size, in the page's own colours, light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 30
LOG_FROM = 40.0  # a curve that falls by more than this factor is drawn on a logarithmic axis
POINTS = 200  # up to so many points say their value when the mouse is over them


@dataclass(frozen=True)
class Series:
    """One curve. y: None where nothing was measured. color: of CSS. thin: in the background."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: str
    thin: bool = False

    def points(self) -> list[tuple[float, float]]:
        """What was measured."""
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if y is not None]


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        share = (self._scaled(value) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values between the ends: four to seven, or the powers of ten with their halves."""
        if not self.log:
            return nice_ticks(self.low, self.high)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [m * 10.0**p for p in powers for m in (1, 3)]
        return [v for v in values if self.low * 0.999 <= v <= self.high * 1.001]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def chart(
    title: str,
    series: Sequence[Series],
    *,
    limits: tuple[float, float] | None = None,
    log: bool = True,
    x_name: str = "epoch",
    whole: bool = True,
) -> str:
    """A <figure> of the curves with axes, grid and legend; empty where nothing was measured.

    limits: ends of the vertical axis that are kept at least, such as 0 and 1. log: whether the axis may be logarithmic.
    whole: only whole numbers below the horizontal axis, as epochs are.
    """
    shown = [line for line in series if line.points()]
    if not shown:
        return ""
    x, y = _axes(shown, limits, log=log)
    parts = [
        _grid(x, y, x_name, whole=whole),
        *(_line(line, x, y) for line in sorted(shown, key=lambda line: not line.thin)),
    ]
    parts.append(_hover(shown, x, y, x_name))
    keys = "".join(f'<li><i style="background:{escape(line.color)}"></i>{escape(line.name)}</li>' for line in shown)
    note = " (logarithmic)" if y.log else ""
    return (
        f'<figure class="chart"><figcaption>{escape(title)}{note}</figcaption><ul class="keys">{keys}</ul>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within low..high, at most about `most` of them."""
    rough = (high - low) / most
    if not rough > 1e-300:  # nothing between them, or so little that powers of ten run out
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis: four significant digits at most, no trailing zeros."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _axes(shown: Sequence[Series], limits: tuple[float, float] | None, *, log: bool) -> tuple[Axis, Axis]:
    xs = [x for line in shown for x, _ in line.points()]
    ys = [y for line in shown for _, y in line.points()]
    low, high = min(ys), max(ys)
    log = log and limits is None and low > 0 and high / low > LOG_FROM
    if limits is not None:
        low, high = min(low, limits[0]), max(high, limits[1])
    elif not log:
        pad = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = (0.0 if 0 <= low < 0.5 * high else low - pad), high + pad
    return Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP, log)


def _grid(x: Axis, y: Axis, x_name: str, *, whole: bool) -> str:
    rows = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.place(t):.1f}" y2="{y.place(t):.1f}"/>'
        f'<text x="{LEFT - 7}" y="{y.place(t) + 4:.1f}" text-anchor="end">{short(t)}</text>'
        for t in y.ticks()
    )
    shown = [t for t in x.ticks() if t == round(t) or not whole]
    columns = "".join(
        f'<text x="{x.place(t):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{short(t)}</text>' for t in shown
    )
    name = f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 1}" text-anchor="end">{escape(x_name)}</text>'
    base = f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>'
    return rows + columns + name + base


def _line(line: Series, x: Axis, y: Axis) -> str:
    points = [(x.place(a), y.place(b)) for a, b in line.points()]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    style = f'style="stroke:{escape(line.color)}" class="line{" thin" if line.thin else ""}"'
    end = (
        ""
        if line.thin
        else f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="3" fill="{escape(line.color)}"/>'
    )
    return f'<polyline {style} points="{path}"/>{end}'


def _hover(shown: Sequence[Series], x: Axis, y: Axis, x_name: str) -> str:
    """Invisible spots that say their value under the mouse."""
    spots = [
        f'<circle class="spot" cx="{x.place(a):.1f}" cy="{y.place(b):.1f}" r="6">'
        f"<title>{escape(line.name)}, {escape(x_name)} {short(a)}: {b:.4g}</title></circle>"
        for line in shown
        for a, b in line.points()
    ]
    return "".join(spots) if len(spots) <= POINTS * len(shown) else ""
