"""The per-class table for a terminal."""

from rich.console import Group
from rich.table import Table

from torchfpn.report.cells import literal, percents, with_notes
from torchfpn.report.run import Scores


def class_table(scores: Scores) -> Group:
    """IoU, boundary IoU, precision, recall in percent and pixels per class; "-" where nothing is to score."""
    table = Table(box=None, pad_edge=False)
    boundary = scores.boundary or [None] * len(scores.classes)
    measures = ["IoU", *(["boundary IoU"] if scores.boundary is not None else []), "precision", "recall", "pixels"]
    for name in ("class", *measures):
        table.add_column(name, justify="left" if name == "class" else "right", no_wrap=name != "class")
    for k, name in enumerate(scores.classes):
        numbers = [scores.iou[k], *([boundary[k]] if scores.boundary is not None else [])]
        numbers += [scores.precision(k), scores.recall(k)]
        table.add_row(literal(name), *(percents(n) for n in numbers), f"{scores.truth(k):,}")
    mean = [scores.miou, *([scores.mean_boundary()] if scores.boundary is not None else [])]
    accuracy = f"{percents(scores.pixel_accuracy)} right"
    table.add_row("mean", *(percents(n) for n in mean), "", "", accuracy, style="bold")
    return with_notes(table, _notes(scores))


def _notes(scores: Scores) -> list[str]:
    missing = [name for k, name in enumerate(scores.classes) if scores.iou[k] is None]
    return [f"-: nothing to score, left out of the mean ({', '.join(missing)})"] if missing else []
