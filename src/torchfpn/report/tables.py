"""Scores as tables of a terminal: pixels, objects of maps, average precision of detectors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from torchfpn.printing import visible
from torchfpn.report.run import (
    SEGMENT_COUNTS,
    AveragePrecisions,
    DetectionScores,
    Matches,
    Number,
    PanopticTable,
    Scores,
    parse_detection_scores,
    parse_panoptic_scores,
)

AP_NAMES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar100": "AR"}

OBJECT_SHARES, OBJECT_COUNTS = ("precision", "recall", "f1"), ("matched", "predicted", "truth")


def percents(value: Number) -> str:
    """A fraction in percent with two digits; "-" for None and NaN, where there is nothing to score."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def class_table(scores: Scores) -> Group:
    """IoU, boundary IoU, precision, recall in percent and pixels of each class; "-" where there is nothing to score."""
    boundary = scores.boundary
    rows = []
    for k, name in enumerate(scores.classes):
        numbers = [scores.iou[k], *([] if boundary is None else [boundary[k]]), scores.precision(k), scores.recall(k)]
        rows.append((name, [*map(percents, numbers), f"{scores.truth(k):,}"]))
    means = [scores.miou, *([] if boundary is None else [scores.mean_boundary()])]
    mean = [*map(percents, means), "", "", f"{percents(scores.pixel_accuracy)} right"]
    head = ["class", "IoU", *([] if boundary is None else ["boundary IoU"]), "precision", "recall", "pixels"]
    missing = [name for k, name in enumerate(scores.classes) if scores.iou[k] is None]
    notes = [f"-: nothing to score, left out of the mean ({', '.join(missing)})"] if missing else []
    return _table(head, rows, ("mean", mean), notes)


def object_table(scores: Mapping[str, Any]) -> Group:
    """Precision, recall and F1 in percent and counts of each class; "-" where there is nothing to measure.

    scores: as `ObjectScores.to_dict` has them.
    """
    names = [str(name) for name in scores["classes"]]
    rows = [
        (name, _object_cells({key: scores[key][k] for key in (*OBJECT_SHARES, *OBJECT_COUNTS)}))
        for k, name in enumerate(names)
    ]
    total = ("all", _object_cells(scores["all"])) if len(names) != 1 else None
    undefined = any(None in scores[name] for name in OBJECT_SHARES)
    note = f"matched: IoU of {scores['iou']:g} or more" + ("; -: nothing to measure" if undefined else "")
    return _table(["objects", "precision", "recall", "F1", *OBJECT_COUNTS], rows, total, [note])


def precision_table(scores: Mapping[str, Any] | DetectionScores) -> Group:
    """AP, AP50, AP75 and AR in percent and the number of objects of each class, of masks, then of boxes.

    "-" stands where the truth has no object.

    Args:
        scores: as `ObjectEvaluation.to_dict` or `Precisions.to_dict` have them.

    Raises:
        DataError: they are not of that form.
    """
    found = scores if isinstance(scores, DetectionScores) else parse_detection_scores(scores)
    columns = precision_columns(found)
    rows = []
    for k, name in enumerate(found.classes):
        cells = [percents(each.classes[f"class_{score}"][k]) for _, each, score in columns]
        rows.append((name, [*cells, f"{found.main.objects[k]:,}"]))
    means = [percents(each.single[score]) for _, each, score in columns]
    head = ["class", *(name for name, _, _ in columns), "objects"]
    return _table(head, rows, ("mean", [*means, f"{sum(found.main.objects):,}"]), _precision_notes(found))


def panoptic_table(scores: Mapping[str, Any] | PanopticTable) -> Group:
    """PQ, SQ, RQ and boundary PQ in percent and segments of each class, then means over things, stuff and all.

    Args:
        scores: as `PanopticEvaluation.to_dict` has them.

    Raises:
        DataError: they are not of that form.
    """
    found = scores if isinstance(scores, PanopticTable) else parse_panoptic_scores(scores)
    rows = []
    for k, name in enumerate(found.classes):
        kind = "thing" if k < found.things else "stuff"
        shares = [percents(found.each[key][k]) for key in found.qualities]
        rows.append((name, [kind, *shares, *(f"{found.counts[key][k]:,}" for key in SEGMENT_COUNTS)]))
    for name in ("things", "stuff"):
        rows.append((name, ["mean", *(percents(found.means[name][key]) for key in found.qualities), "", "", ""]))
    total = [f"{sum(found.counts[key]):,}" for key in SEGMENT_COUNTS]
    last = ("all", ["mean", *(percents(found.means["all"][key]) for key in found.qualities), *total])
    head = ["class", "kind", *found.qualities.values(), "found", "false", "missed"]
    return _table(head, rows, last, panoptic_notes(found))


def panoptic_notes(scores: PanopticTable) -> list[str]:
    """Lines below the table: the scores of the branches, and classes that are in no mean."""
    names = {"mask_ap": "mask AP", "mask_ap50": "mask AP50", "ap": "box AP", "ap50": "box AP50", "miou": "mIoU"}
    shown = [f"{text} {percents(scores.branches[name])}" for name, text in names.items() if name in scores.branches]
    notes = [f"branches before merging, %: {', '.join(shown)}"] if shown else []
    missing = [name for k, name in enumerate(scores.classes) if scores.each["pq"][k] is None]
    return [*notes, f"-: no segment, left out of the means ({', '.join(missing)})"] if missing else notes


def _table(
    head: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    last: tuple[str, Sequence[str]] | None,
    notes: Sequence[str],
) -> Group:
    """A table and lines below it, which are as wide as the terminal: a caption would wrap at the table's width."""
    table = Table(box=None, pad_edge=False)
    for k, name in enumerate(head):
        table.add_column(name, justify="right" if k else "left", no_wrap=k > 0)
    for name, cells in rows:
        table.add_row(Text(visible(name)), *cells)  # as text, in which rich finds no markup
    if last is not None:
        table.add_row(last[0], *last[1], style="bold")
    return Group(table, *(Text(visible(note)) for note in notes))


def _object_cells(row: Mapping[str, Any]) -> list[str]:
    return [percents(row[name]) for name in OBJECT_SHARES] + [f"{row[name]:,}" for name in OBJECT_COUNTS]


def precision_columns(scores: DetectionScores) -> list[tuple[str, AveragePrecisions, str]]:
    """Columns of average precision, of masks and then of boxes: title, the scores, and the name of the one shown."""
    if scores.masks is None:
        return [(name, scores.boxes, score) for score, name in AP_NAMES.items()]
    masks = [(f"mask {name}", scores.masks, score) for score, name in AP_NAMES.items()]
    return [*masks, ("box AP", scores.boxes, "ap"), ("box AP50", scores.boxes, "ap50")]


def _precision_notes(scores: DetectionScores) -> list[str]:
    sizes = [f"{name} {percents(scores.main.single[f'ap_{name}'])}" for name in ("small", "medium", "large")]
    notes = [f"AP: {', '.join(sizes)}"]
    if scores.total is not None:
        notes.append(_matches(scores.total))
    missing = [name for k, name in enumerate(scores.classes) if scores.main.classes["class_ap"][k] is None]
    if missing:
        notes.append(f"-: no object, left out of the mean ({', '.join(missing)})")
    return [*notes, crowded_note(scores)] if scores.crowded else notes


def crowded_note(scores: DetectionScores) -> str:
    """Says in how many images the limit of detections leaves objects out."""
    images = f"{scores.crowded:,} image{'s have' if scores.crowded != 1 else ' has'}"
    return f"{images} more than {scores.most} objects of a class; {scores.most} of them count at most"


def _matches(total: Matches) -> str:
    """F1 and the counts over all images."""
    counts = f"{total.matched:,} found, {total.missed:,} missed, {total.false:,} false"
    if total.f1 is None:
        return f"F1 -: {counts}"
    return f"F1 {percents(total.f1)} at scores from {total.threshold:.2f}, where it is best: {counts}"
