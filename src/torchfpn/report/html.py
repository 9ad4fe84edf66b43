"""report.html of a run folder and index.html of `fpn compare`: each one file that needs no other.

A page is a list of sections, which templates/page.html renders. The template escapes every text, and the page forbids
itself scripts and requests.
"""

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from torchfpn.errors import amount
from torchfpn.io.atomic import write_text
from torchfpn.report.charts import FEW, Series, chart, css, heat_map, precision_recall, readable
from torchfpn.report.run import (
    BEST,
    SEGMENT_COUNTS,
    SINGLE,
    WORST,
    DetectionScores,
    Number,
    PanopticTable,
    Run,
    Scores,
    read_run,
)
from torchfpn.report.tables import OBJECT_COUNTS, OBJECT_SHARES, crowded_note, panoptic_notes, precision_columns

DASH = "\N{EN DASH}"  # in place of a number

WIDE = 1060  # pixels: the width of the page

MOST_PICTURES = 200  # on index.html

AREA_HEADS = ("AP", "AP50", "AP75", "small", "medium", "large", "AR 1", "AR 10", "AR 100")

PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16 and float32"}  # in env.json -> in words

HIGHLIGHTS = {  # label -> settings in config.yaml, of which the first that is there is shown
    "backbone": ("model.backbone",),
    "pyramid": ("model.pyramid",),
    "dataset": ("dataset",),
    "loss": ("loss.terms",),
    "optimiser": ("optimizer.name",),
    "learning rate": ("lr",),
    "schedule": ("schedule.name",),
    "batch": ("batch_size",),
    "shorter side": ("data.shorter",),
    "crop": ("data.crop",),
    "seed": ("seed",),
}

Facts = Sequence[tuple[str, str]]  # name and value

Line = Callable[..., Series]  # (name, column of metrics.csv, colour, thin=) -> its curve


@dataclass(frozen=True)
class Tile:
    """A number at the top of a page."""

    name: str
    value: str
    unit: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table. color: of a swatch, in CSS. bar: a fraction drawn in the first cell, None without a bar."""

    name: str
    cells: Sequence[str]
    color: str = ""
    bar: Number = None


@dataclass(frozen=True)
class Table:
    """A table: titles of the columns, rows, and the last row, which sums them up."""

    head: Sequence[str]
    rows: Sequence[Row]
    foot: Row | None = None


@dataclass(frozen=True)
class Picture:
    """A picture with a line above it. source: a data URL. link: address of the picture in full size."""

    caption: str
    source: str
    link: str = ""


@dataclass(frozen=True)
class Detail:
    """Something that is folded up: a text, or names and values."""

    name: str
    text: str = ""
    facts: Facts = ()


@dataclass(frozen=True)
class Section:
    """A section of a page: what it has is drawn in the order of the fields. charts, matrix: SVG."""

    title: str
    lead: str = ""
    charts: Sequence[str] = ()
    table: Table | None = None
    matrix: str = ""
    pictures: Sequence[Picture] = ()
    note: str = ""
    details: Sequence[Detail] = ()

    def __bool__(self) -> bool:
        return any((self.lead, self.charts, self.table, self.matrix, self.pictures, self.details))


def write_report(folder: Path) -> Path:
    """Writes report.html into a run folder, whole or not at all.

    Args:
        folder: of a training or an evaluation.

    Returns:
        The path of the page.

    Raises:
        DataError: not a run folder, or a damaged file in it.
    """
    target = folder / "report.html"
    write_text(target, report_page(read_run(folder)))
    return target


def report_page(run: Run) -> str:
    """The page of a run. A section without content is left out."""
    sections = [Section("Curves", charts=_curves(run))]
    if run.scores is not None:
        lead = "Each row is a class of the truth and sums to 100 %; the diagonal is recall."
        sections.append(class_section(run.scores))
        if run.scores.objects:
            sections.append(_object_section(run.scores.objects))
        sections.append(Section("Confusion", lead, matrix=heat_map(run.scores)))
    if run.detections is not None:
        sections += _detection_sections(run.detections, run.samples)
    if run.panoptic is not None:
        sections += _panoptic_sections(run.panoptic, run.samples)
    sections += [Section("Predictions", pictures=_pictures(run)), Section("Settings", details=_settings(run))]
    return _page(run.name, run.name, _tiles(run), sections, kind=run.kind, about=_about(run))


def comparison_page(pictures: Sequence[Picture], scores: Scores | None, images: int) -> str:
    """The page of `fpn compare`: scores over all images, and small pictures.

    Args:
        pictures: those that are shown, the worst first, as `linked_picture` makes them.
        scores: over all images; None without a truth or a prediction.
        images: the number of all images.
    """
    tiles, sections = [Tile("images", f"{images:,}")], []
    order = "in the order they were given"
    if scores is not None:
        tiles = [_percent_tile("mIoU", scores.miou), _percent_tile("pixel accuracy", scores.pixel_accuracy), *tiles]
        sections.append(class_section(scores))
        order = "those with the lowest mean IoU first"
    lead = f"{len(pictures):,} of {images:,}, {order}; each leads to the picture in full size."
    return _page("comparison", "Comparison", tiles, [*sections, Section("Images", lead, pictures=pictures)])


def linked_picture(file: str, caption: str, picture: Image.Image) -> Picture:
    """A picture reduced to the width of the page, which leads to `file` beside the page."""
    height = max(1, round(picture.height * min(1.0, WIDE / picture.width)))
    reduced = picture.resize((min(WIDE, picture.width), height), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    reduced.save(target, "WEBP", quality=82, method=4)
    return Picture(caption, _data_url("webp", target.getvalue()), quote(file))


def class_section(scores: Scores) -> Section:
    """IoU, boundary IoU, precision, recall and pixels of each class."""
    boundary, total = scores.boundary, sum(map(sum, scores.confusion))
    rows, missing, unseen = [], [], []
    for k, name in enumerate(scores.classes):
        numbers = [scores.iou[k], *([] if boundary is None else [boundary[k]]), scores.precision(k), scores.recall(k)]
        cells = [*map(_percent, numbers), f"{scores.truth(k):,}", _percent(scores.truth(k) / total if total else None)]
        rows.append(Row(name, cells, css(scores.colors[k]), scores.iou[k]))
        if scores.iou[k] is None:
            missing.append(name)
        elif scores.truth(k) == 0:
            unseen.append(name)
    measures = ["IoU", *([] if boundary is None else ["boundary IoU"]), "precision", "recall"]
    means = [scores.miou, *([] if boundary is None else [scores.mean_boundary()])]
    foot = Row("mean, sum", [*map(_percent, means), "", "", f"{total:,}", ""])
    table = Table(["class", *(f"{name}, %" for name in measures), "pixels", "share, %"], rows, foot)
    notes = [f"Nothing to score ({DASH}), left out of the mean: {', '.join(missing)}."] if missing else []
    notes += [f"Not in the truth, but predicted somewhere: {', '.join(unseen)}."] if unseen else []
    return Section("Classes", table=table, note=" ".join(notes))


def _object_section(scores: Mapping[str, Any]) -> Section:
    """Precision, recall, F1 and counts of the objects of each class."""

    def row(name: str, values: Mapping[str, Any]) -> Row:
        return Row(
            name, [*(_percent(values[key]) for key in OBJECT_SHARES), *(f"{values[key]:,}" for key in OBJECT_COUNTS)]
        )

    each = [{key: scores[key][k] for key in (*OBJECT_SHARES, *OBJECT_COUNTS)} for k in range(len(scores["classes"]))]
    rows = [row(str(name), values) for name, values in zip(scores["classes"], each, strict=True)]
    table = Table(["class", "precision, %", "recall, %", "F1, %", *OBJECT_COUNTS], rows, row("all", scores["all"]))
    note = f"A true and a predicted object are one from an IoU of {scores['iou']:g} on."
    return Section("Objects", table=table, note=note)


def _detection_sections(scores: DetectionScores, samples: Sequence[tuple[str, bytes]]) -> list[Section]:
    """Average precision, its curves, and the worst and the best images."""
    pictures = []
    for start in (WORST, BEST):
        for name, picture in samples:
            if name.startswith(start):
                found = scores.of_picture(name)
                pictures.append(_picture(f"{name}: {found.line}" if found else name, picture))
    kinds = [("masks", scores.masks), ("boxes", scores.boxes)]
    rows = [Row(name, [_percent(each.single[key]) for key in SINGLE]) for name, each in kinds if each is not None]
    note = (
        "AP: mean precision over IoU .50 to .95; AP50, AP75: at one. Small: less than 32 x 32 pixels, large: more "
        "than 96 x 96. AR: mean recall with so many detections of each image and class."
    )
    return [
        _precision_section(scores),
        Section("Sizes and numbers", table=Table(["", *(f"{name}, %" for name in AREA_HEADS)], rows), note=note),
        Section("Precision and recall", charts=[each for each in precision_recall(scores) if each]),
        Section("Best and worst", _matches(scores), pictures=pictures),
    ]


def _panoptic_sections(scores: PanopticTable, samples: Sequence[tuple[str, bytes]]) -> list[Section]:
    """Panoptic quality of each class, the segments that were confused, and the worst and the best images."""
    rows = []
    for k, name in enumerate(scores.classes):
        kind = "thing" if k < scores.things else "stuff"
        shares = [_percent(scores.each[key][k]) for key in scores.qualities]
        cells = [*shares, *(f"{scores.counts[key][k]:,}" for key in SEGMENT_COUNTS), kind]
        rows.append(Row(name, cells, css(scores.colors[k]), scores.each["pq"][k]))
    rows += [_mean_row(scores, name) for name in ("things", "stuff")]
    heads = ["class", *(f"{title}, %" for title in scores.qualities.values()), "found", "false", "missed", "kind"]
    note = (
        "SQ: mean IoU of the segments that were found; RQ: their F1; PQ: the product. Found is a segment that overlaps "
        "with a true one of its class by an IoU above 0.5. "
    )
    note += " ".join(f"{line[0].upper()}{line[1:]}." for line in panoptic_notes(scores))
    lead = (
        "True segments by the class of the predicted one that overlaps by an IoU above 0.5; each row sums to 100 %. "
        "None: no such segment; its row has the predicted ones that match nothing."
    )
    pictures = []
    for start in (WORST, BEST):
        shown = [(name, picture) for name, picture in samples if name.startswith(start)]
        pictures += [_picture(f"{name}: {scores.of_picture(name) or ''}".rstrip(": "), each) for name, each in shown]
    return [
        Section("Classes", table=Table(heads, rows, _mean_row(scores, "all")), note=note),
        Section("Confusion", lead, matrix=heat_map(_segment_confusion(scores))),
        Section("Best and worst", pictures=pictures),
    ]


def _mean_row(scores: PanopticTable, name: str) -> Row:
    shares = [_percent(scores.means[name][key]) for key in scores.qualities]
    totals = [f"{sum(scores.counts[key]):,}" if name == "all" else "" for key in SEGMENT_COUNTS]
    return Row(f"mean of {name}", [*shares, *totals, ""])


def _segment_confusion(scores: PanopticTable) -> Scores:
    """Segments by class as `heat_map` takes them, with a class for none."""
    classes, colors = [*scores.classes, "none"], [*scores.colors, (140, 140, 150)]
    undefined: list[Number] = [None] * len(classes)
    return Scores(classes, colors, scores.confusion, undefined, None, None, None, scores.split)


def _precision_section(scores: DetectionScores) -> Section:
    """AP, AP50, AP75 and AR of each class; of masks first, if there are any."""
    columns = precision_columns(scores)
    rows = []
    for k, name in enumerate(scores.classes):
        values = [each.classes[f"class_{key}"][k] for _, each, key in columns]
        cells = [*map(_percent, values), f"{scores.main.objects[k]:,}"]
        rows.append(Row(name, cells, css(scores.colors[k]), values[0]))
    means = [_percent(each.single[key]) for _, each, key in columns]
    foot = Row("mean, sum", [*means, f"{sum(scores.main.objects):,}"])
    missing = [name for k, name in enumerate(scores.classes) if scores.main.classes["class_ap"][k] is None]
    notes = [f"No object of {', '.join(missing)} ({DASH}), left out of the mean."] if missing else []
    notes += [crowded_note(scores) + "."] if scores.crowded else []
    table = Table(["class", *(f"{name}, %" for name, _, _ in columns), "objects"], rows, foot)
    return Section("Classes", table=table, note=" ".join(notes))


def _matches(scores: DetectionScores) -> str:
    """What was found in all images together, in words."""
    total = scores.total
    if total is None:
        return ""
    objects, what = total.matched + total.missed, "masks" if scores.masks else "boxes"
    images = amount(scores.images, "image")
    if total.f1 is None:
        return f"No object in {images}, and none was found: there is no F1."
    return (
        f"Of {amount(objects, 'object')} in {images}, {total.matched:,} are found and {total.missed:,} missed; "
        f"{total.false:,} detections are false: F1 {100 * total.f1:.1f} %. Counted from a score of "
        f"{total.threshold:.2f} on, where F1 is largest; found is what overlaps with an object ({what}) "
        "by an IoU of 0.5."
    )


def _tiles(run: Run) -> list[Tile]:
    """The scores, and which epoch was the best."""
    tiles: list[Tile] = []
    if run.scores is not None:
        split = run.scores.split
        tiles.append(_percent_tile(f"mIoU, {split}", run.scores.miou))
        if run.scores.boundary is not None:
            tiles.append(_percent_tile(f"boundary mIoU, {split}", run.scores.mean_boundary()))
        tiles.append(_percent_tile(f"pixel accuracy, {split}", run.scores.pixel_accuracy))
    if run.detections is not None:
        tiles += _detection_tiles(run.detections)
    if run.panoptic is not None:
        means, split = run.panoptic.means, run.panoptic.split
        shown = run.panoptic.qualities.items()
        tiles += [_percent_tile(f"{title}, {split}", means["all"][name]) for name, title in shown]
        tiles += [_percent_tile(f"PQ of {name}, {split}", means[name]["pq"]) for name in ("things", "stuff")]
    epochs = len(next(iter(run.curves.values()), []))
    if epochs:
        tiles.append(Tile("epochs", str(epochs)))
        by = next((name for name in ("val/pq", "val/miou", "val/mask_ap", "val/ap") if name in run.curves), "")
        curve = [(v, k) for k, v in enumerate(run.curves.get(by, []), start=1) if v is not None]
        if curve:
            tiles.append(Tile("best epoch", str(max(curve, key=lambda pair: pair[0])[1])))
    return tiles


def _detection_tiles(scores: DetectionScores) -> list[Tile]:
    boxes, main = scores.boxes.single, scores.main.single
    if scores.masks is None:
        shown = [("AP", boxes["ap"]), ("AP50", boxes["ap50"]), ("AP75", boxes["ap75"])]
    else:
        shown = [("mask AP", main["ap"]), ("mask AP50", main["ap50"]), ("box AP", boxes["ap"])]
    return [_percent_tile(f"{name}, {scores.split}", value) for name, value in shown]


def _about(run: Run) -> list[tuple[str, str]]:
    """The work, the settings and the machine in a few words."""
    flat = dict(_flat(run.config))
    facts = _work(run.about)
    if weights := run.about.get("weights") or _initial(flat.get("model.pretrained")):
        facts.append(("weights", str(weights)))
    detector = "train/loss_objectness" in run.curves  # its loss has no terms to choose
    for label, names in HIGHLIGHTS.items():
        if label == "loss" and detector:
            continue
        given = (flat[name] for name in names if flat.get(name) not in (None, "") and flat[name] is not False)
        value = next(given, None)
        if value is not None:
            facts.append((label, _plain(value)))
    machine = run.environment
    words = [_plain(machine[key]) for key in ("device", "cpu", "precision") if machine.get(key)]
    if words:
        facts.append(("machine", ", ".join(PRECISIONS.get(word, word) for word in words)))
    if isinstance(packages := machine.get("packages"), Mapping):
        chosen = [f"{name} {packages[name]}" for name in ("torchfpn", "torch", "timm") if packages.get(name)]
        facts.append(("versions", ", ".join(chosen)))
    return facts


def _initial(pretrained: Any) -> str:
    """The first weights by the setting `model.pretrained`, for runs without them in about.json."""
    if isinstance(pretrained, bool):
        return "published" if pretrained else "random"
    return f"from {pretrained}" if isinstance(pretrained, str) else ""


def _work(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Date, duration, number of images and of parameters; values of other types are left out."""
    facts: list[tuple[str, str]] = []
    if isinstance(date := about.get("date"), str):
        facts.append(("date", f"{date[:16].replace('T', ' ')} UTC"))
    if isinstance(seconds := about.get("seconds"), int | float):
        facts.append(("duration", _duration(seconds)))
    if isinstance(images := about.get("images"), Mapping) and images:
        counts = [f"{count:,} in {name}" for name, count in images.items() if isinstance(count, int)]
        facts.append(("images", ", ".join(counts)))
    if isinstance(parameters := about.get("parameters"), int):
        facts.append(("parameters", f"{parameters:,}"))
    return facts


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _curves(run: Run) -> list[str]:
    """Charts of metrics.csv."""
    curves = run.curves
    if not curves:
        return []
    length = len(next(iter(curves.values())))
    epochs = [v if v is not None else float(k) for k, v in enumerate(curves.get("epoch", [None] * length), start=1)]

    def line(name: str, column: str, color: str, *, thin: bool = False) -> Series:
        return Series(name, epochs, curves.get(column, [None] * length), color, thin)

    mean = line("mean", "val/miou", "var(--ink)")
    charts = [
        chart("loss", [line("training", "train/loss", "var(--one)"), line("validation", "val/loss", "var(--two)")]),
        *_quality_charts(curves, line, _class_lines(run, line, "val/pq_")),
        chart("IoU on the validation images", [*_class_lines(run, line, "val/iou_"), mean], limits=(0, 1)),
        *_precision_charts(curves, line, _class_lines(run, line, "val/ap_")),
        chart("learning rate", [line("learning rate", "lr", "var(--three)")], log=False),
        chart("terms of the training loss", _terms(curves, line)),
    ]
    return [each for each in charts if each]


def _quality_charts(curves: Mapping[str, list[Number]], line: Line, classes: Sequence[Series]) -> list[str]:
    """PQ over the epochs: of things and stuff, and of each class."""
    names = {"val/pq": "PQ", "val/things_pq": "things", "val/stuff_pq": "stuff", "val/sq": "SQ", "val/rq": "RQ"}
    colors = iter(("var(--ink)", "var(--one)", "var(--two)", "var(--three)", "var(--wrong)"))
    lines = [line(name, column, next(colors)) for column, name in names.items() if column in curves]
    mean = line("mean", "val/pq", "var(--ink)")
    return [
        chart("PQ on the validation images", lines, limits=(0, 1)),
        chart("PQ of each class", [*classes, mean] if len(classes) > 1 else [], limits=(0, 1)),
    ]


def _precision_charts(curves: Mapping[str, list[Number]], line: Line, classes: Sequence[Series]) -> list[str]:
    """AP over the epochs: of boxes and masks, and of each class."""
    masks = "val/mask_ap" in curves
    names = {"val/ap": "AP", "val/ap50": "AP50", "val/ap75": "AP75"}
    if masks:
        names = {"val/mask_ap": "mask AP", "val/mask_ap50": "mask AP50", "val/ap": "box AP", "val/ap50": "box AP50"}
    colors = iter(("var(--ink)", "var(--one)", "var(--two)", "var(--three)"))
    lines = [line(name, column, next(colors)) for column, name in names.items() if column in curves]
    mean = line("mean", "val/mask_ap" if masks else "val/ap", "var(--ink)")
    title = f"{'mask ' if masks else ''}AP of each class"
    return [
        chart("AP on the validation images", lines, limits=(0, 1)),
        chart(title, [*classes, mean] if len(classes) > 1 else [], limits=(0, 1)),
    ]


def _class_lines(run: Run, line: Line, prefix: str) -> list[Series]:
    """A thin curve for each class, unless there are too many."""
    columns = [name for name in run.curves if name.startswith(prefix)]
    if len(columns) > FEW:
        return []
    scores = run.scores or run.detections or run.panoptic
    colors = dict(zip(scores.classes, scores.colors, strict=True)) if scores else {}
    names = [column.removeprefix(prefix) for column in columns]
    return [
        line(name, column, readable(colors.get(name, (140, 140, 150))), thin=True)
        for name, column in zip(names, columns, strict=True)
    ]


def _terms(curves: Mapping[str, list[Number]], line: Line) -> list[Series]:
    """The terms of a loss that has several."""
    columns = [name for name in curves if name.startswith("train/loss_")]
    if len(columns) < 2:
        return []
    colors = ["var(--one)", "var(--two)", "var(--three)", "var(--ink)", "var(--wrong)"]
    return [line(c.removeprefix("train/loss_"), c, colors[i % len(colors)]) for i, c in enumerate(columns)]


def _pictures(run: Run) -> list[Picture]:
    """Sample pictures under the names of their images, without the number that keeps the files in order."""
    shown_elsewhere = (BEST, WORST) if run.detections is not None or run.panoptic is not None else ()
    names = [(name, picture) for name, picture in run.samples if not name.startswith(shown_elsewhere)]
    return [_picture(re.sub(r"^\d+-", "", name), picture) for name, picture in names]


def _picture(caption: str, picture: bytes) -> Picture:
    """A PNG as WebP, a fifth of the size, if Pillow can read it."""
    target = io.BytesIO()
    try:
        Image.open(io.BytesIO(picture)).save(target, "WEBP", quality=90, method=4)
    except (OSError, KeyError):
        return Picture(caption, _data_url("png", picture))
    return Picture(caption, _data_url("webp", target.getvalue()))


def _data_url(kind: str, picture: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _settings(run: Run) -> list[Detail]:
    details = [Detail("config.yaml", run.config_text)] if run.config_text else []
    if run.environment:
        facts = [(name, _plain(value)) for name, value in _flat(run.environment)]
        details.append(Detail("env.json", facts=facts))
    return details


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested settings as dotted names and values."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _percent(value: Number) -> str:
    """0.8571 -> "85.7"; a dash for None."""
    return DASH if value is None else f"{100 * value:.1f}"


def _percent_tile(name: str, value: Number) -> Tile:
    return Tile(name, _percent(value), "" if value is None else "%")


def _page(
    title: str, heading: str, tiles: Sequence[Tile], sections: Sequence[Section], *, kind: str = "", about: Facts = ()
) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined
    )
    return (
        templates.get_template("page.html").render(
            title=title, heading=heading, tiles=tiles, sections=sections, kind=kind, about=about
        )
        + "\n"
    )
