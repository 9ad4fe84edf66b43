"""The table of objects, for a terminal and for report.html: how many were found, precision, recall, F1 per class."""

from collections.abc import Mapping
from html import escape
from typing import Any

from rich.console import Group
from rich.table import Table

from torchfpn.report.cells import literal, percents, with_notes
from torchfpn.report.class_table import percent

MEASURES, COUNTS = ("precision", "recall", "f1"), ("matched", "predicted", "truth")


def object_table(scores: Mapping[str, Any]) -> Group:
    """Shares in percent and counts; "-" where nothing is to measure. scores: as `ObjectScores.to_dict` has them."""
    table = Table(box=None, pad_edge=False)
    table.add_column("objects")
    for name in (*MEASURES, *COUNTS):
        table.add_column("F1" if name == "f1" else name, justify="right", no_wrap=True)
    for k, name in enumerate(scores["classes"]):
        row = {measure: scores[measure][k] for measure in (*MEASURES, *COUNTS)}
        table.add_row(literal(str(name)), *_cells(row))
    if len(scores["classes"]) != 1:
        table.add_row("all", *_cells(scores["all"]), style="bold")
    return with_notes(table, [_note(scores)])


def object_section(scores: Mapping[str, Any]) -> str:
    """The same in HTML."""
    head = "".join(f"<th>{name}</th>" for name in ("class", "precision, %", "recall, %", "F1, %", *COUNTS))
    rows = []
    for k, name in enumerate(scores["classes"]):
        row = {measure: scores[measure][k] for measure in (*MEASURES, *COUNTS)}
        rows.append(f"<tr><th>{escape(str(name))}</th>{_html_cells(row)}</tr>")
    total = f"<tfoot><tr><th>all</th>{_html_cells(scores['all'])}</tr></tfoot>"
    note = f'<p class="note">A true and a predicted object are one from an IoU of {scores["iou"]:g} on.</p>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>{total}</table>"
    return f'<div class="wide">{table}</div>{note}'


def _html_cells(row: Mapping[str, Any]) -> str:
    cells = [percent(row[name]) for name in MEASURES] + [f"{row[name]:,}" for name in COUNTS]
    return "".join(f"<td>{cell}</td>" for cell in cells)


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [percents(row[name]) for name in MEASURES] + [f"{row[name]:,}" for name in COUNTS]


def _note(scores: Mapping[str, Any]) -> str:
    undefined = any(None in scores[name] for name in MEASURES)
    return f"matched: IoU of {scores['iou']:g} or more" + ("; -: nothing to measure" if undefined else "")
