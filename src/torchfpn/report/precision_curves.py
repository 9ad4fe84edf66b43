"""Precision over recall of each class, as inline SVG."""

from collections.abc import Sequence
from itertools import pairwise

from torchfpn.report.charts import Series, chart
from torchfpn.report.class_table import readable
from torchfpn.report.region_scores import RECALLS, RegionScores

FEW = 12  # up to so many classes have a curve of their own


def precision_curves(scores: RegionScores) -> str:
    """Two charts, at an IoU of .50 and of .75: each class that has objects, and their mean."""
    what = "boxes" if scores.masks is None else "masks"
    charts = [
        chart(f"{what} at IoU {iou}", _lines(scores, curve), limits=(0, 1), x_name="recall", whole=False)
        for curve, iou in (("curve50", ".50"), ("curve75", ".75"))
    ]
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def _lines(scores: RegionScores, curve: str) -> list[Series]:
    triples = zip(scores.classes, scores.colors, scores.main.curves[curve], strict=True)
    known = [(name, color, values) for name, color, values in triples if values is not None]
    lines = [_line(name, values, readable(color), thin=len(known) > 1) for name, color, values in known]
    if len(known) == 1:
        return lines
    each = zip(*(values for _, _, values in known), strict=True)
    mean = [_line("mean", [sum(values) / len(values) for values in each], "var(--ink)")] if known else []
    return [*(lines if len(known) <= FEW else []), *mean]


def _line(name: str, values: Sequence[float], color: str, *, thin: bool = False) -> Series:
    """A curve without the points in the middle of straight parts."""
    recalls = [i / (RECALLS - 1) for i in range(RECALLS)]
    turns = [a != b for a, b in pairwise(values)]
    keep = [i for i in range(RECALLS) if i in (0, RECALLS - 1) or turns[i - 1] or turns[i]]
    return Series(name, [recalls[i] for i in keep], [values[i] for i in keep], color, thin)
