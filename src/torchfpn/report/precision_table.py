"""Average precision for a terminal: each class, and all of them."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

from torchfpn.report.cells import literal, percents, with_notes
from torchfpn.report.region_scores import Found, RegionScores, RegionTable, parse_region_scores

NAMES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar100": "AR"}


def precision_table(scores: Mapping[str, Any] | RegionScores) -> Group:
    """AP, AP50, AP75 and AR in percent and objects per class; "-" where the truth has none. Of masks, then of boxes.

    scores: as `RegionEvaluation.to_dict` or `Precisions.to_dict` have them.

    Raises:
        DataError: they are not.
    """
    found = scores if isinstance(scores, RegionScores) else parse_region_scores(scores)
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    columns = _columns(found)
    for name, _, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("objects", justify="right", no_wrap=True)
    for k, name in enumerate(found.classes):
        values = [percents(each.classes[f"class_{score}"][k]) for _, each, score in columns]
        table.add_row(literal(name), *values, f"{found.main.objects[k]:,}")
    mean = [percents(each.single[score]) for _, each, score in columns]
    table.add_row("mean", *mean, f"{sum(found.main.objects):,}", style="bold")
    return with_notes(table, _notes(found))


def _found(total: Found) -> list[str]:
    """F1 and the counts over all images."""
    counts = f"{total.matched:,} found, {total.missed:,} missed, {total.false:,} false"
    if total.f1 is None:
        return [f"F1 -: {counts}"]
    return [f"F1 {percents(total.f1)} at scores from {total.threshold:.2f}, where it is best: {counts}"]


def _columns(scores: RegionScores) -> list[tuple[str, RegionTable, str]]:
    """Head, where it stands, and which score."""
    if scores.masks is None:
        return [(name, scores.boxes, score) for score, name in NAMES.items()]
    masks = [(f"mask {name}", scores.masks, score) for score, name in NAMES.items()]
    return [*masks, ("box AP", scores.boxes, "ap"), ("box AP50", scores.boxes, "ap50")]


def _notes(scores: RegionScores) -> list[str]:
    single, notes = scores.main.single, []
    sizes = [f"{name} {percents(single[f'ap_{name}'])}" for name in ("small", "medium", "large")]
    notes.append(f"AP: {', '.join(sizes)}")
    if scores.total is not None:
        notes += _found(scores.total)
    missing = [name for k, name in enumerate(scores.classes) if scores.main.classes["class_ap"][k] is None]
    if missing:
        notes.append(f"-: no object, left out of the mean ({', '.join(missing)})")
    if scores.crowded:
        images = f"{scores.crowded:,} image{'s have' if scores.crowded != 1 else ' has'}"
        notes.append(f"{images} more than {scores.most} objects of a class; {scores.most} of them count at most")
    return notes
