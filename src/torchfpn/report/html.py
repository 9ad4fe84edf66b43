"""report.html: one file that needs no other, made from the plain files of a run folder.

Every text from outside is escaped, and the page forbids itself scripts and requests.
"""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from torchfpn.files.atomic import write_text
from torchfpn.report.charts import Series, chart
from torchfpn.report.class_table import class_section, readable, with_unit
from torchfpn.report.matrix import heat_map
from torchfpn.report.numbers import Number
from torchfpn.report.object_table import object_section
from torchfpn.report.precision_curves import precision_curves
from torchfpn.report.precision_section import area_section, precision_section
from torchfpn.report.region_page import EXTREMES, best_and_worst, region_charts, region_headlines
from torchfpn.report.run import Run, Scores, read_run

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
FEW = 12  # up to so many classes have a curve of their own
PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16 and float32"}  # what Lightning calls them -> in words
HIGHLIGHTS = {  # label -> settings in config.yaml, the first that is there
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


def write_report(folder: Path) -> Path:
    """Writes report.html into a run folder, whole or not at all; the path of it.

    Raises:
        DataError: not a run folder, or a damaged file in it.
    """
    target = folder / "report.html"
    write_text(target, page(read_run(folder)))
    return target


def page(run: Run) -> str:
    """The whole document."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    sections = [
        _header(run),
        _section("Curves", _curves(run)),
        _section("Classes", class_section(run.scores) if run.scores else ""),
        _section("Objects", object_section(run.scores.objects) if run.scores and run.scores.objects else ""),
        _section("Confusion", _confusion(run.scores) if run.scores else ""),
        *(_section(title, body) for title, body in _regions(run)),
        _section("Predictions", _samples(_ordinary(run))),
        _section("Settings", _settings(run)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(run.name)}</title><style>\n{style}</style></head>\n"
        f"<body><main>{''.join(sections)}</main><footer>written by torchfpn</footer></body></html>\n"
    )


def _regions(run: Run) -> list[tuple[str, str]]:
    """(title, body) of what is said of detectors alone."""
    scores = run.regions
    if scores is None:
        return []
    return [
        ("Classes", precision_section(scores)),
        ("Sizes and numbers", area_section(scores)),
        ("Precision and recall", precision_curves(scores)),
        ("Best and worst", best_and_worst(scores, run.samples, figure)),
    ]


def _ordinary(run: Run) -> list[tuple[str, bytes]]:
    """Pictures that are not shown elsewhere."""
    if run.regions is None:
        return run.samples
    return [(name, picture) for name, picture in run.samples if not name.startswith(EXTREMES)]


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>\n" if body else ""


def _header(run: Run) -> str:
    tiles = "".join(
        f'<div class="tile"><b>{value}</b><span>{escape(label)}</span></div>' for label, value in _headlines(run)
    )
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in _facts(run))
    return (
        f'<header><p class="kind">{escape(run.kind)}</p><h1>{escape(run.name)}</h1>'
        f'<div class="tiles">{tiles}</div>{f"<dl>{facts}</dl>" if facts else ""}</header>\n'
    )


def _headlines(run: Run) -> list[tuple[str, str]]:
    """(what, number) of the tiles at the top."""
    tiles: list[tuple[str, str]] = []
    if run.scores is not None:
        split = run.scores.split
        tiles.append((f"mIoU, {split}", with_unit(run.scores.miou)))
        if run.scores.boundary is not None:
            tiles.append((f"boundary mIoU, {split}", with_unit(run.scores.mean_boundary())))
        tiles.append((f"pixel accuracy, {split}", with_unit(run.scores.pixel_accuracy)))
    if run.regions is not None:
        tiles += region_headlines(run.regions)
    epochs = len(next(iter(run.curves.values()), []))
    if epochs:
        tiles.append(("epochs", str(epochs)))
        by = next((name for name in ("val/miou", "val/mask_ap", "val/ap") if name in run.curves), "")
        curve = [(v, k) for k, v in enumerate(run.curves.get(by, []), start=1) if v is not None]
        if curve:
            tiles.append(("best epoch", str(max(curve, key=lambda pair: pair[0])[1])))
    return tiles


def _facts(run: Run) -> list[tuple[str, str]]:
    """The settings and the machine in a few words."""
    flat = dict(_flat(run.config))
    facts = _work(run.about)
    if weights := run.about.get("weights") or _began_from(flat.get("model.pretrained")):
        facts.append(("weights", str(weights)))
    of_objects = "train/loss_objectness" in run.curves  # whose loss has no terms to choose
    for label, names in HIGHLIGHTS.items():
        if label == "loss" and of_objects:
            continue
        value = next(
            (flat[name] for name in names if flat.get(name) not in (None, "") and flat[name] is not False), None
        )
        if value is not None:
            facts.append((label, _plain(value)))
    machine = run.environment
    words = [_plain(machine[key]) for key in ("device", "cpu", "precision") if machine.get(key)]
    words = [PRECISIONS.get(word, word) for word in words]
    if words:
        facts.append(("machine", ", ".join(words)))
    if isinstance(packages := machine.get("packages"), Mapping):
        chosen = [f"{name} {packages[name]}" for name in ("torchfpn", "torch", "timm") if packages.get(name)]
        facts.append(("versions", ", ".join(chosen)))
    return facts


def _began_from(pretrained: Any) -> str:
    """The setting `model.pretrained` of runs that did not write down more."""
    if isinstance(pretrained, bool):
        return "published" if pretrained else "random"
    return f"from {pretrained}" if isinstance(pretrained, str) else ""


def _work(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """When the work was done, how long it took, on how many images, with how many parameters."""
    facts: list[tuple[str, str]] = []
    if isinstance(date := about.get("date"), str):
        facts.append(("date", f"{date[:16].replace('T', ' ')} UTC"))
    if isinstance(seconds := about.get("seconds"), int | float):
        facts.append(("duration", _duration(seconds)))
    if isinstance(images := about.get("images"), Mapping) and images:
        facts.append(("images", ", ".join(f"{count:,} in {name}" for name, count in images.items())))
    if isinstance(parameters := about.get("parameters"), int):
        facts.append(("parameters", f"{parameters:,}"))
    return facts


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _curves(run: Run) -> str:
    curves = run.curves
    if not curves:
        return ""
    length = len(next(iter(curves.values())))
    epochs = [v if v is not None else float(k) for k, v in enumerate(curves.get("epoch", [None] * length), start=1)]

    def line(name: str, column: str, color: str, *, thin: bool = False) -> Series:
        return Series(name, epochs, curves.get(column, [None] * length), color, thin)

    mean = line("mean", "val/miou", "var(--ink)")
    charts = [
        chart("loss", [line("training", "train/loss", "var(--one)"), line("validation", "val/loss", "var(--two)")]),
        chart("IoU on the validation images", [*_class_lines(run, line), mean], limits=(0, 1)),
        *region_charts(curves, line, _class_lines(run, line, "val/ap_")),
        chart("learning rate", [line("learning rate", "lr", "var(--three)")], log=False),
        chart("terms of the training loss", _terms(curves, line)),
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def _class_lines(run: Run, line: Any, prefix: str = "val/iou_") -> Sequence[Series]:
    columns = [name for name in run.curves if name.startswith(prefix)]
    if len(columns) > FEW:
        return []
    scores = run.scores or run.regions
    colors = dict(zip(scores.classes, scores.colors, strict=True)) if scores else {}
    names = [column.removeprefix(prefix) for column in columns]
    return [
        line(name, column, readable(colors.get(name, (140, 140, 150))), thin=True)
        for name, column in zip(names, columns, strict=True)
    ]


def _terms(curves: Mapping[str, list[Number]], line: Any) -> list[Series]:
    columns = [name for name in curves if name.startswith("train/loss_")]
    if len(columns) < 2:
        return []
    colors = ["var(--one)", "var(--two)", "var(--three)", "var(--ink)", "var(--wrong)"]
    return [line(c.removeprefix("train/loss_"), c, colors[i % len(colors)]) for i, c in enumerate(columns)]


def _confusion(scores: Scores) -> str:
    note = "Each row is a class of the truth and sums to 100 %; the diagonal is recall."
    return f'<p class="note">{note}</p><div class="wide">{heat_map(scores)}</div>'


def _samples(samples: list[tuple[str, bytes]]) -> str:
    """Pictures under the names of their images; the number before a name keeps them in order in the folder."""
    return "".join(figure(re.sub(r"^\d+-", "", name), picture) for name, picture in samples)


def figure(caption: str, picture: bytes) -> str:
    """A picture (PNG) with a line above it."""
    return (
        f'<figure class="sample"><figcaption>{escape(caption)}</figcaption>'
        f'<div class="wide"><img alt="{escape(caption)}" src="{_data(picture)}"></div></figure>'
    )


def _data(picture: bytes) -> str:
    """A PNG as a data address; as WebP, a fifth of the size, where Pillow can."""
    target = io.BytesIO()
    try:
        Image.open(io.BytesIO(picture)).save(target, "WEBP", quality=90, method=4)
        kind, data = "webp", target.getvalue()
    except (OSError, KeyError):
        kind, data = "png", picture
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _settings(run: Run) -> str:
    parts = []
    if run.config_text:
        parts.append(f"<details><summary>config.yaml</summary><pre>{escape(run.config_text)}</pre></details>")
    if run.environment:
        rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(_plain(v))}</dd>" for k, v in _flat(run.environment))
        parts.append(f"<details><summary>env.json</summary><dl>{rows}</dl></details>")
    return "".join(parts)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested settings as dotted names and values."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
