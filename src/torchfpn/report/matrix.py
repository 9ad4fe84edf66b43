"""The confusion matrix as a heat map: every row is a class of the truth, its cells say what it was taken for."""

from html import escape

from torchfpn.report.run import Scores

LONGEST = 22  # characters of a class name beside the map; the whole name is in the tooltip
TEXT_WIDTH = 6.9  # pixels of a character at the size of the labels, on the safe side
LIGHTEST, DARKEST = 0.04, 0.94  # opacity of the cells


def heat_map(scores: Scores) -> str:
    """An inline <svg>, rows normalised to 1; the share is written into the cells while they are large enough."""
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
