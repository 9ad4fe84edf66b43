"""What report.html says of detectors besides tables: the numbers at the top, curves, the best and the worst images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchfpn.errors import amount
from torchfpn.report.charts import Series, chart
from torchfpn.report.class_table import with_unit
from torchfpn.report.numbers import Number
from torchfpn.report.region_scores import RegionScores

BEST, WORST = "best-", "worst-"  # how the names of their pictures begin
EXTREMES = (BEST, WORST)


def region_headlines(scores: RegionScores) -> list[tuple[str, str]]:
    """(what, number) of the tiles at the top."""
    boxes, main = scores.boxes.single, scores.main.single
    if scores.masks is None:
        shown = [("AP", boxes["ap"]), ("AP50", boxes["ap50"]), ("AP75", boxes["ap75"])]
    else:
        shown = [("mask AP", main["ap"]), ("mask AP50", main["ap50"]), ("box AP", boxes["ap"])]
    return [(f"{name}, {scores.split}", with_unit(value)) for name, value in shown]


def region_charts(curves: Mapping[str, list[Number]], line: Any, classes: Sequence[Series]) -> list[str]:
    """AP over the epochs: of boxes and masks, and of each class. line: makes a `Series` of a column."""
    colors = iter(("var(--ink)", "var(--one)", "var(--two)", "var(--three)"))
    names = {"val/mask_ap": "mask AP", "val/mask_ap50": "mask AP50", "val/ap": "box AP", "val/ap50": "box AP50"}
    masks = "val/mask_ap" in curves
    if not masks:
        names = {"val/ap": "AP", "val/ap50": "AP50", "val/ap75": "AP75"}
    lines = [line(name, column, next(colors)) for column, name in names.items() if column in curves]
    mean = line("mean", "val/mask_ap" if masks else "val/ap", "var(--ink)")
    title = f"{'mask ' if masks else ''}AP of each class"
    return [
        chart("AP on the validation images", lines, limits=(0, 1)),
        chart(title, [*classes, mean] if len(classes) > 1 else [], limits=(0, 1)),
    ]


def best_and_worst(
    scores: RegionScores, samples: Sequence[tuple[str, bytes]], figure: Callable[[str, bytes], str]
) -> str:
    """Pictures of both, with their counts. samples: (name, PNG) of all pictures. figure: a picture as HTML."""
    shown = [(name, picture) for name, picture in samples if name.startswith(EXTREMES)]
    parts = [_note(scores)] if scores.total is not None else []
    for start in (WORST, BEST):
        for name, picture in shown:
            if name.startswith(start):
                found = scores.of_picture(name)
                parts.append(figure(f"{name}: {found.line}" if found else name, picture))
    return "".join(parts)


def _note(scores: RegionScores) -> str:
    """What was found in all images together."""
    total = scores.total
    if total is None:
        return ""
    objects, what = total.matched + total.missed, "masks" if scores.masks else "boxes"
    images = amount(scores.images, "image")
    if total.f1 is None:
        return f'<p class="note">No object in {images}, and none was found: there is no F1.</p>'
    return (
        f'<p class="note">Of {amount(objects, "object")} in {images}, '
        f"{total.matched:,} are found and {total.missed:,} missed; "
        f"{total.false:,} detections are false: F1 {100 * total.f1:.1f} %. Counted from a score of "
        f"{total.threshold:.2f} on, where F1 is largest; found is what overlaps with an object ({what}) "
        "by an IoU of 0.5.</p>"
    )
