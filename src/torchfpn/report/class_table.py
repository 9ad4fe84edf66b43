"""The per-class table of report.html: IoU, boundary IoU, precision, recall, pixels."""

from html import escape

from torchfpn.report.numbers import Number
from torchfpn.report.run import Scores

DASH = "\N{EN DASH}"  # in place of a number


def class_section(scores: Scores) -> str:
    """The table, and a note on classes without a score."""
    boundary = scores.boundary is not None
    measures = ["IoU", *(["boundary IoU"] if boundary else []), "precision", "recall"]
    head = ["class", *(f"{name}, %" for name in measures), "pixels", "share, %"]
    total = sum(map(sum, scores.confusion))
    rows = []
    for k, name in enumerate(scores.classes):
        numbers = [scores.iou[k], *([scores.boundary[k]] if scores.boundary is not None else [])]
        numbers += [scores.precision(k), scores.recall(k)]
        cells = f"<td>{bar(numbers[0])}</td>" + "".join(f"<td>{percent(n)}</td>" for n in numbers[1:])
        swatch = f'<i class="swatch" style="background:{css(scores.colors[k])}"></i>'
        share = percent(scores.truth(k) / total if total else None)
        rows.append(f"<tr><th>{swatch}{escape(name)}</th>{cells}<td>{scores.truth(k):,}</td><td>{share}</td></tr>")
    mean = [scores.miou, *([scores.mean_boundary()] if boundary else [])]
    foot = "".join(f"<td>{percent(n)}</td>" for n in mean) + "<td></td><td></td>"
    foot += f"<td>{total:,}</td><td></td>"
    header = "".join(f"<th>{name}</th>" for name in head)
    body = f"<thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody>"
    table = f"<table>{body}<tfoot><tr><th>mean, sum</th>{foot}</tr></tfoot></table>"
    return f'<div class="wide">{table}</div>{_absent(scores)}'


def _absent(scores: Scores) -> str:
    """Says which classes have no score, so that nobody takes the mean for one over all of them."""
    missing = [escape(name) for k, name in enumerate(scores.classes) if scores.iou[k] is None]
    unseen = [escape(n) for k, n in enumerate(scores.classes) if scores.truth(k) == 0 and scores.iou[k] is not None]
    notes = []
    if missing:
        notes.append(f"Nothing to score ({DASH}), left out of the mean: {', '.join(missing)}.")
    if unseen:
        notes.append(f"Not in the truth, but predicted somewhere: {', '.join(unseen)}.")
    return f'<p class="note">{" ".join(notes)}</p>' if notes else ""


def percent(value: Number) -> str:
    """0.8571 -> "85.7"; a dash where there is nothing."""
    return DASH if value is None else f"{100 * value:.1f}"


def with_unit(value: Number) -> str:
    """A large number with a small percent sign."""
    return f"{percent(value)}<small> %</small>" if value is not None else DASH


def bar(value: Number) -> str:
    """A fraction as a bar and a number of one width, so that the bars of a column begin at one place."""
    if value is None:
        return DASH
    filled = f'<span class="bar"><span style="width:{100 * value:.1f}%"></span></span>'
    return f'{filled}<span class="number">{percent(value)}</span>'


def css(color: tuple[int, int, int]) -> str:
    """A colour for style sheets."""
    return f"rgb({color[0]},{color[1]},{color[2]})"


def readable(color: tuple[int, int, int]) -> str:
    """A class colour for thin lines: nearer to the ink, so that dark ones show on dark and light ones on light."""
    return f"color-mix(in srgb, {css(color)} 72%, var(--ink))"
