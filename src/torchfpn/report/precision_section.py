"""Average precision in report.html: the table of the classes, and that of sizes and numbers of detections."""

from html import escape

from torchfpn.report.class_table import DASH, bar, css, percent
from torchfpn.report.region_scores import SINGLE, RegionScores, RegionTable

HEADS = ("AP", "AP50", "AP75", "small", "medium", "large", "AR 1", "AR 10", "AR 100")


def precision_section(scores: RegionScores) -> str:
    """AP, AP50, AP75 and AR of each class, in percent; of masks first, where there are any."""
    head = ["class", *_heads(scores), "objects"]
    rows = []
    for k, name in enumerate(scores.classes):
        values = [table.classes[column][k] for table, column in _columns(scores)]
        cells = f"<td>{bar(values[0])}</td>" + "".join(f"<td>{percent(value)}</td>" for value in values[1:])
        swatch = f'<i class="swatch" style="background:{css(scores.colors[k])}"></i>'
        rows.append(f"<tr><th>{swatch}{escape(name)}</th>{cells}<td>{scores.main.objects[k]:,}</td></tr>")
    mean = "".join(f"<td>{percent(table.single[_of_all(column)])}</td>" for table, column in _columns(scores))
    foot = f"<tr><th>mean, sum</th>{mean}<td>{sum(scores.main.objects):,}</td></tr>"
    header = "".join(f"<th>{name}</th>" for name in head)
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody><tfoot>{foot}</tfoot></table>"
    return f'<div class="wide">{table}</div>{_notes(scores)}'


def area_section(scores: RegionScores) -> str:
    """AP by the size of the objects and AR by the number of detections, of boxes and masks."""
    kinds = [("masks", scores.masks), ("boxes", scores.boxes)]
    rows = "".join(_row(name, table) for name, table in kinds if table is not None)
    header = "".join(f"<th>{name}{', %' * (name != '')}</th>" for name in ("", *HEADS))
    note = (
        "AP: mean precision over IoU .50 to .95; AP50, AP75: at one. Small: less than 32 x 32 pixels, large: more "
        "than 96 x 96. AR: mean recall with so many detections of each image and class."
    )
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div><p class="note">{note}</p>'


def _row(name: str, table: RegionTable) -> str:
    cells = "".join(f"<td>{percent(table.single[column])}</td>" for column in SINGLE)
    return f"<tr><th>{name}</th>{cells}</tr>"


def _columns(scores: RegionScores) -> list[tuple[RegionTable, str]]:
    main = [(scores.main, name) for name in ("class_ap", "class_ap50", "class_ap75", "class_ar100")]
    return main if scores.masks is None else [*main, (scores.boxes, "class_ap"), (scores.boxes, "class_ap50")]


def _heads(scores: RegionScores) -> list[str]:
    names = ["AP", "AP50", "AP75", "AR"]
    names = names if scores.masks is None else [*(f"mask {name}" for name in names), "box AP", "box AP50"]
    return [f"{name}, %" for name in names]


def _of_all(column: str) -> str:
    return column.removeprefix("class_")


def _notes(scores: RegionScores) -> str:
    missing = [escape(name) for k, name in enumerate(scores.classes) if scores.main.classes["class_ap"][k] is None]
    notes = [f"No object of {', '.join(missing)} ({DASH}), left out of the mean."] if missing else []
    if scores.crowded:
        images = f"{scores.crowded:,} image{'s have' if scores.crowded != 1 else ' has'}"
        notes.append(
            f"{images} more than {scores.most} objects of a class, of which {scores.most} count as found at most."
        )
    return f'<p class="note">{" ".join(notes)}</p>' if notes else ""
