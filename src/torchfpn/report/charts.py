"""Curves and confusion matrices as inline SVG, in the colours of the page, light and dark.

Every text is escaped here, so templates insert the results as they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from torchfpn.report.run import RECALLS, DetectionScores, Scores
from torchfpn.types import Color

WIDTH, HEIGHT = 460, 250

LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 30

LOG_FROM = 40.0  # a curve that falls by more than this factor is drawn on a logarithmic axis

POINTS = 200  # curves of up to so many points show their values under the mouse

FEW = 12  # classes; more get no curve each

LONGEST = 22  # characters of a class name beside the matrix; the whole name is in the tooltip

TEXT_WIDTH = 6.9  # pixels of a character of the labels, at most

LIGHTEST, DARKEST = 0.04, 0.94  # opacity of the cells


@dataclass(frozen=True)
class Series:
    """One curve. y: None where nothing was measured. color: in CSS. thin: drawn in the background."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: str
    thin: bool = False

    def points(self) -> list[tuple[float, float]]:
        """The points that were measured."""
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if y is not None]


@dataclass(frozen=True)
class Axis:
    """Maps values from `low` to `high` to pixels from `start` to `end`."""

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
    """Draws curves with axes, grid and legend.

    Args:
        title: above the chart.
        series: the curves.
        limits: values that the vertical axis spans at least, such as 0 and 1.
        log: whether the vertical axis may be logarithmic.
        x_name: of the horizontal axis.
        whole: labels only whole numbers on the horizontal axis, such as epochs.

    Returns:
        A <figure>; empty if nothing was measured.
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


def precision_recall(scores: DetectionScores) -> list[str]:
    """Charts of precision over recall at an IoU of .50 and of .75: of each class that has objects, and their mean."""
    what = "boxes" if scores.masks is None else "masks"
    return [
        chart(f"{what} at IoU {iou}", _precisions(scores, curve), limits=(0, 1), x_name="recall", whole=False)
        for curve, iou in (("curve50", ".50"), ("curve75", ".75"))
    ]


def heat_map(scores: Scores) -> str:
    """A confusion matrix as an <svg>. Rows are classes of the truth and sum to 1; large cells show their share."""
    names = [_short(name) for name in scores.classes]
    count, cell = len(names), _cell(len(names))
    longest = max(map(len, names)) * TEXT_WIDTH
    left, top = max(longest + 16, 84), 0.72 * longest + 34  # column labels rise at 45 degrees
    width, height = left + count * cell + 0.72 * longest + 16, top + count * cell + 8
    parts = [
        f'<text class="axis" x="0" y="{top - 12:.0f}">truth ↓</text><text class="axis" x="0" y="12">predicted →</text>'
    ]
    for i, name in enumerate(names):
        middle = top + (i + 0.5) * cell + 3
        parts.append(_label(left - 10, middle, name, scores.classes[i], "end"))
        x, y = left + (i + 0.5) * cell, top - 8
        parts.append(_label(x, y, name, scores.classes[i], "start", turn=-45))
        parts += [_square(scores, i, j, left + j * cell, top + i * cell, cell) for j in range(count)]
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg class="matrix" {size} role="img" aria-label="confusion matrix">{"".join(parts)}</svg>'


def css(color: Color) -> str:
    """A colour in CSS."""
    return f"rgb({color[0]},{color[1]},{color[2]})"


def readable(color: Color) -> str:
    """A class colour for thin lines, in CSS: mixed with the ink, to be seen on dark and on light pages."""
    return f"color-mix(in srgb, {css(color)} 72%, var(--ink))"


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


def _precisions(scores: DetectionScores, curve: str) -> list[Series]:
    triples = zip(scores.classes, scores.colors, scores.main.curves[curve], strict=True)
    known = [(name, color, values) for name, color, values in triples if values is not None]
    lines = [_precision(name, values, readable(color), thin=len(known) > 1) for name, color, values in known]
    if len(known) == 1:
        return lines
    each = zip(*(values for _, _, values in known), strict=True)
    mean = [_precision("mean", [sum(values) / len(values) for values in each], "var(--ink)")] if known else []
    return [*(lines if len(known) <= FEW else []), *mean]


def _precision(name: str, values: Sequence[float], color: str, *, thin: bool = False) -> Series:
    """A curve without the points in the middle of straight parts."""
    recalls = [i / (RECALLS - 1) for i in range(RECALLS)]
    turns = [a != b for a, b in pairwise(values)]
    keep = [i for i in range(RECALLS) if i in (0, RECALLS - 1) or turns[i - 1] or turns[i]]
    return Series(name, [recalls[i] for i in keep], [values[i] for i in keep], color, thin)


def _cell(count: int) -> int:
    """Pixels of a cell: large for few classes."""
    return next((size for most, size in ((6, 62), (10, 50), (16, 40), (24, 30)) if count <= most), 22)


def _square(scores: Scores, i: int, j: int, x: float, y: float, cell: int) -> str:
    pixels, total = scores.confusion[i][j], scores.truth(i)
    share = pixels / total if total else 0.0
    opacity = LIGHTEST + (DARKEST - LIGHTEST) * share**0.7 if total else 0.0
    kind = "hit" if i == j else "miss"
    truth, taken = escape(scores.classes[i]), escape(scores.classes[j])
    tip = f"<title>{truth} taken for {taken}: {100 * share:.2f} %, {pixels:,} of {total:,} pixels</title>"
    box = f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{cell - 2}" height="{cell - 2}" rx="3"'
    square = f'{box} fill-opacity="{opacity:.3f}">{tip}</rect>'
    if not total or cell < 30:
        return square
    ink, size = "over" if opacity > 0.55 else "under", 13 if cell >= 50 else 11.5 if cell >= 40 else 10
    place = f'x="{x + cell / 2 - 1:.1f}" y="{y + cell / 2 + 3.5:.1f}" text-anchor="middle" style="font-size:{size}px"'
    return f'{square}<text class="{ink}" {place}>{_share(pixels, total, tenths=cell >= 40)}</text>'


def _share(pixels: int, total: int, *, tenths: bool) -> str:
    """Percent, with 0 and 100 only for none and all; nothing for next to nothing in a dense map."""
    if pixels in (0, total):
        return ("0" if tenths else "") if pixels == 0 else "100"
    percent = min(max(100 * pixels / total, 0.1 if tenths else 0.0), 99.9 if tenths else 99.0)
    return f"{percent:.1f}" if tenths else f"{percent:.0f}" if percent >= 0.5 else ""


def _label(x: float, y: float, name: str, whole: str, anchor: str, turn: int = 0) -> str:
    rotate = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    tip = f"<title>{escape(whole)}</title>" if name != whole else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{rotate}>{escape(name)}{tip}</text>'


def _short(name: str) -> str:
    line = " ".join(name.split()) or "?"
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
