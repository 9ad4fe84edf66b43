"""Boxes on a grid of rows and columns, joined by arrows, as one self-contained SVG in light and dark."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from torchfpn.types import Level

Kind = Literal["map", "op", "plus", "dot"]
Way = Literal["straight", "out-up", "up-out", "bus"]

LETTER, LINE, PAD = 6.9, 15, 8  # widths are guessed from the number of letters, so as to hold in any sans-serif font
RADIUS, GAP, ROW_GAP, EDGE, TIP = 11, 26, 24, 14, 8
HEAD = 76  # above the rows: name and kind of the piece, names of the columns
STYLE = """
.architecture { --paper: #ffffff; --panel: #f4f6f9; --rule: #d9dee6; --ink: #1b1f26; --soft: #5d6778; --box: #ffffff;
  --line: #4a5465; --map: #dce8fb; --map-line: #2563c9;
  font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
@media (prefers-color-scheme: dark) { .architecture { --paper: #0f1216; --panel: #171b21; --rule: #2a3039;
  --ink: #e8ebf0; --soft: #98a1b0; --box: #222831; --line: #a9b2c0; --map: #1d3358; --map-line: #6ea4ff; } }
.architecture .paper { fill: var(--paper); }
.architecture .panel { fill: var(--panel); stroke: var(--rule); }
.architecture .op { fill: var(--box); stroke: var(--line); }
.architecture .map { fill: var(--map); stroke: var(--map-line); }
.architecture .plus { fill: var(--box); stroke: var(--line); stroke-width: 1.4; }
.architecture .dot, .architecture .tip { fill: var(--line); }
.architecture .arrow { fill: none; stroke: var(--line); stroke-width: 1.4; }
.architecture text { fill: var(--ink); text-anchor: middle; }
.architecture .name { font-size: 14px; font-weight: 650; }
.architecture .level { font-weight: 650; }
.architecture .soft { fill: var(--soft); font-size: 11px; }
"""


@dataclass(frozen=True)
class Node:
    """One thing on the grid. row: larger is coarser and higher up; several, if it spans them. level: of its map."""

    kind: Kind
    column: int
    row: float
    lines: tuple[str, ...] = ()
    level: Level | None = None
    span: tuple[float, float] | None = None

    @property
    def boxed(self) -> bool:
        """Whether it is a rectangle with text."""
        return self.kind in ("map", "op")


@dataclass(frozen=True)
class Arrow:
    """From one node to another. way: "bus" is out, up or down, and in again, shared by all that meet."""

    start: Node
    end: Node
    way: Way
    label: str


@dataclass
class Figure:
    """Panels of columns; nodes and arrows are added, and drawn by `svg`."""

    title: str
    panels: list[tuple[int, str, str]] = field(default_factory=list)  # first column, name, kind
    columns: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)

    def panel(self, name: str, kind: str) -> None:
        """Begins a piece of the model: all columns that follow are its own."""
        self.panels.append((len(self.columns), name, kind))

    def column(self, caption: str = "") -> int:
        """Begins a column; what it is called."""
        self.columns.append(caption)
        return len(self.columns) - 1

    def add(self, node: Node) -> Node:
        """Puts a node on the grid."""
        self.nodes.append(node)
        return node

    def arrow(self, start: Node, end: Node, way: Way = "straight", label: str = "") -> None:
        """Joins two nodes; "straight" becomes "bus" where it cannot be."""
        self.arrows.append(Arrow(start, end, way, label))

    def svg(self) -> str:
        """The drawing."""
        place = _Layout(self)
        parts = [f'<rect class="paper" width="{place.width}" height="{place.height}"/>']
        parts += [_panel(panel, place) for panel in place.panels]
        parts += [
            _text("soft", place.x[i], HEAD + EDGE - 10, caption) for i, caption in enumerate(self.columns) if caption
        ]
        parts += [_arrows(self.arrows, place)]
        parts += [_node(node, place) for node in self.nodes]
        title, wide, tall = escape(self.title), place.width, place.height
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="architecture" role="img" aria-label="{title}" '
            f'width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}">'
            f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
        )


@dataclass(frozen=True)
class _Panel:
    x: float
    width: float
    name: str
    kind: str


class _Layout:
    """Where every column, row and node lies, in pixels."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        boxes = [node for node in figure.nodes if node.boxed]
        self.box = [max([0.0, *(_width(n.lines) for n in boxes if n.column == i)]) for i in range(len(figure.columns))]
        self.x, self.panels = self._columns()
        self.width = math.ceil(self.panels[-1].x + self.panels[-1].width + EDGE)
        self.y = self._rows()
        self.height = math.ceil(max(self.y.values()) + self._tall(min(self.y)) / 2 + 2 * EDGE)

    def _columns(self) -> tuple[list[float], list[_Panel]]:
        x, panels = float(EDGE), []
        centers: list[float] = []
        ends = [first for first, _, _ in self.figure.panels[1:]] + [len(self.figure.columns)]
        for (first, name, kind), end in zip(self.figure.panels, ends, strict=True):
            widths = [
                max(self.box[i], 2 * RADIUS, LETTER * len(self.figure.columns[i]) * 0.92) for i in range(first, end)
            ]
            inner = sum(widths) + GAP * (len(widths) - 1)
            width = max(inner + GAP, LETTER * len(kind) + 2 * PAD, 1.3 * LETTER * len(name) + 2 * PAD)
            at = x + (width - inner) / 2
            for w in widths:
                centers.append(at + w / 2)
                at += w + GAP
            panels.append(_Panel(x, width, name, kind))
            x += width + EDGE
        return centers, panels

    def _tall(self, row: float) -> float:
        """The height of a row: of all whole ones the same, and of all those between them."""
        alike = [n for n in self.figure.nodes if n.boxed and not n.span and (n.row % 1 == 0) == (row % 1 == 0)]
        return max([2.0 * RADIUS, *(len(n.lines) * LINE + PAD for n in alike)])

    def _rows(self) -> dict[float, float]:
        y, at = {}, float(HEAD + EDGE)
        used = {row for node in self.figure.nodes for row in (node.row, *(node.span or ()))}
        for row in sorted(used, reverse=True):
            y[row] = at + self._tall(row) / 2
            at += self._tall(row) + ROW_GAP
        return y

    def rect(self, node: Node) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        x = self.x[node.column]
        if not node.boxed:
            r = RADIUS if node.kind == "plus" else 0
            return x - r, self.y[node.row] - r, x + r, self.y[node.row] + r
        half, low, high = self.box[node.column] / 2, *(node.span or (node.row, node.row))
        if node.span:
            top, bottom = self.y[high] - self._tall(high) / 2, self.y[low] + self._tall(low) / 2
        else:
            tall = len(node.lines) * LINE + PAD
            top, bottom = self.y[node.row] - tall / 2, self.y[node.row] + tall / 2
        return x - half, top, x + half, bottom

    def path(self, arrow: Arrow) -> list[tuple[float, float]]:
        """The corners."""
        a, b = arrow.start, arrow.end
        left, top, right, bottom = self.rect(a)
        left2, top2, right2, bottom2 = self.rect(b)
        x, x2 = self.x[a.column], self.x[b.column]
        y = self.y[b.row if a.span else a.row]
        y2 = y if b.span else self.y[b.row]
        side, side2 = (right, left2) if x2 >= x else (left, right2)
        if arrow.way == "out-up":
            return [(side, y), (x2, y), (x2, bottom2 if y2 < y else top2)]
        if arrow.way == "up-out":
            return [(x, top if y2 < y else bottom), (x, y2), (side2, y2)]
        if a.column == b.column:
            return [(x, top), (x, bottom2)] if y2 < y else [(x, bottom), (x, top2)]
        if y == y2:
            return [(side, y), (side2, y2)]
        first = b.column in [start for start, _, _ in self.figure.panels]
        bus = x2 - self.box[b.column] / 2 - GAP / 2 - first * EDGE / 2  # between the panels
        return [(side, y), (bus, y), (bus, y2), (side2, y2)]


def _width(lines: tuple[str, ...]) -> float:
    return LETTER * max(len(line) for line in lines) + 2 * PAD


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _panel(panel: _Panel, place: _Layout) -> str:
    middle, tall = panel.x + panel.width / 2, place.height - 2 * EDGE
    return (
        f'<rect class="panel" x="{panel.x:.1f}" y="{EDGE}" width="{panel.width:.1f}" height="{tall:.1f}" rx="8"/>'
        + _text("name", middle, EDGE + 21, panel.name)
        + _text("soft", middle, EDGE + 38, panel.kind)
    )


def _node(node: Node, place: _Layout) -> str:
    left, top, right, bottom = place.rect(node)
    x, y = (left + right) / 2, (top + bottom) / 2
    if node.kind == "dot":
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>'
    if node.kind == "plus":
        arm = RADIUS / 2
        cross = f"M{x - arm:.1f} {y:.1f}h{2 * arm:.1f}M{x:.1f} {y - arm:.1f}v{2 * arm:.1f}"
        return f'<circle class="plus" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/><path class="arrow" d="{cross}"/>'
    round_ = 3 if node.kind == "op" else 7
    size = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" rx="{round_}"'
    return f'<rect class="{node.kind}" {size}/>' + "".join(_lines(node, x, y))


def _lines(node: Node, x: float, y: float) -> Iterator[str]:
    first = y - LINE * (len(node.lines) - 1) / 2 + 4
    for i, line in enumerate(node.lines):
        yield _text("level" if node.kind == "map" and i == 0 else "what", x, first + LINE * i, line)


def _arrows(arrows: Sequence[Arrow], place: _Layout) -> str:
    """One path for all lines, so that those which share a stretch look like one there; heads; labels."""
    lines, tips, labels = [], [], []
    for arrow in arrows:
        *before, (x, y), (x2, y2) = place.path(arrow)
        along, down = _sign(x2 - x), _sign(y2 - y)
        if arrow.end.kind != "dot":
            x3, y3, half = x2 - TIP * along, y2 - TIP * down, TIP / 2 - 0.5
            wings = [(x2, y2), (x3 + half * down, y3 + half * along), (x3 - half * down, y3 - half * along)]
            tips.append(f"M{_corners(wings)}z")
            x2, y2 = x2 - along * TIP / 2, y2 - down * TIP / 2
        lines.append(f"M{_corners([*before, (x, y), (x2, y2)])}")
        if arrow.label:
            labels.append(_text("soft", (x + x2) / 2 + 14, (y + y2) / 2 + 3, arrow.label))
    return f'<path class="arrow" d="{"".join(lines)}"/>\n<path class="tip" d="{"".join(tips)}"/>\n' + "".join(labels)


def _corners(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
