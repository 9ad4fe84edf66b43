"""The pictures of `fpn compare`: one for each image, or for the worst of them; and what is said of all."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.cli.evaluate_maps import listed, plain_scores

if TYPE_CHECKING:
    from torchfpn.files.geo import Window
    from torchfpn.metrics.pixel_counts import PixelCounts
    from torchfpn.raster.compared import Compared
    from torchfpn.raster.label_classes import LabelClasses
    from torchfpn.raster.label_sides import Side
    from torchfpn.raster.overview import Grid, Sampling
    from torchfpn.raster.sources import Job
    from torchfpn.report.html import Picture
    from torchfpn.report.run import Scores


@dataclass
class Work:
    """What is the same for all images, and what came of them."""

    args: argparse.Namespace
    sides: "list[Side]"
    classes: "LabelClasses"
    part: "Window | None"
    total: "PixelCounts | None" = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: "list[Picture]" = field(default_factory=list)


def draw_worst(work: Work, jobs: "Sequence[Job]") -> int:
    """Draws the worst; how many images failed."""
    from torchfpn.cli.counting import counted

    ranked, failed = [], 0
    with counted("comparing", len(jobs)) as step:
        for k, job in enumerate(jobs):
            found = _tried(lambda job=job: _looked_at(work, job)[2], job)
            if found is None or found.confusion is None:
                failed += 1
            else:
                _add(work, found.confusion)
                score = found.confusion.miou()
                ranked.append((score if score == score else 2.0, k))  # nothing to score comes last
            step()
    ranked = sorted(ranked)[: work.args.worst]
    wide = max(3, len(str(len(ranked))))
    names = [work.args.out / f"{rank:0{wide}d}-{jobs[k].labels.name}" for rank, (_, k) in enumerate(ranked, start=1)]
    _refuse_pictures(work.args, names)
    total, work.total = work.total, None
    failed += draw_all(work, [(jobs[k], name) for (_, k), name in zip(ranked, names, strict=True)])
    work.total = total
    return failed


def _refuse_pictures(args: argparse.Namespace, pictures: Sequence[Path]) -> None:
    from torchfpn.errors import ConfigError
    from torchfpn.files.formats import printable

    there = [path for path in pictures if path.exists()]
    if there and not args.overwrite:
        raise ConfigError("already exists", file=printable(there[0]), hint="replace it with --overwrite")


def draw_all(work: Work, jobs: "Sequence[tuple[Job, Path]]") -> int:
    """How many images failed."""
    from torchfpn.cli.counting import counted

    failed = 0
    with counted("drawing", len(jobs)) as step:
        for job, picture in jobs:
            if _tried(lambda job=job, picture=picture: _draw(work, job, picture), job) is None:
                failed += 1
            step()
    return failed


def _tried(do: Any, job: "Job") -> Any:
    """What it gives, or None after a line about what is wrong with the image."""
    from torchfpn.errors import FPNError, of_system

    try:
        return do()
    except (FPNError, OSError) as error:
        line = error if isinstance(error, FPNError) else of_system(error, job.source)
        print(f"fpn: {line}", file=sys.stderr)
        return None


def _looked_at(work: Work, job: "Job") -> "tuple[Grid, Sampling, Compared]":
    from torchfpn.raster.compared import compared
    from torchfpn.raster.overview import grid_of, sampling

    grid = grid_of(job.source, allow_vrt=work.args.allow_vrt, max_side=work.args.max_side)
    look = sampling(grid, work.args.panel_size, work.part)
    return grid, look, compared(grid, look, work.sides, work.classes)


def _draw(work: Work, job: "Job", picture: Path) -> bool:
    """Writes the picture of an image, and keeps what the index says of it."""
    from torchfpn.files.atomic import write_bytes
    from torchfpn.files.formats import printable
    from torchfpn.raster.overview import view
    from torchfpn.report.html import linked_picture
    from torchfpn.report.images import png, to_rgb
    from torchfpn.report.sheets import Comparison, draw_comparison

    _, look, found = _looked_at(work, job)
    words = listed(work.args.bands)
    bands = [int(word) if word.isdecimal() else word for word in words] or None
    seen = view(job.source, look, bands=bands, allow_vrt=work.args.allow_vrt)
    maps: list[Any] = [*found.maps]
    truth = maps.pop(0) if work.args.truth is not None else None
    prediction = maps.pop(0) if work.args.prediction is not None else None
    scores = _scores(found.confusion)
    comparison = Comparison(
        to_rgb(seen.array, seen.names, seen.valid),
        truth,
        prediction,
        work.classes.names,
        work.classes.colors,
        _background(work, found.maps),
        scores["iou"],
        [printable(job.source.name) + _part(look), *([_said(scores)] if found.confusion is not None else [])],
    )
    sheet = draw_comparison(comparison)
    write_bytes(picture, png(sheet))
    if found.confusion is not None:
        _add(work, found.confusion)
    known = {n: v for n, v in zip(work.classes.names, scores["iou"], strict=False) if v is not None}
    row = {"file": printable(job.source), "picture": picture.name, **scores, "iou": known}
    work.rows.append(row)
    line = f"{job.source.name}: {_said(scores)}" if found.confusion is not None else job.source.name
    work.pictures.append(linked_picture(picture.name, printable(line), sheet))
    print(f"{printable(picture)}  {_said(scores) if found.confusion is not None else ''}".rstrip())
    return True


def _add(work: Work, confusion: "PixelCounts") -> None:
    work.total = confusion if work.total is None else work.total + confusion


def _scores(confusion: "PixelCounts | None") -> dict[str, Any]:
    """Plain numbers, None where there is nothing to score."""
    from torchfpn.metrics.plain import plain

    if confusion is None:
        return {"mean_iou": None, "pixel_accuracy": None, "iou": []}
    iou = [plain(value) for value in confusion.iou().tolist()]
    return {"mean_iou": plain(confusion.miou()), "pixel_accuracy": plain(confusion.pixel_accuracy()), "iou": iou}


def _said(scores: dict[str, Any]) -> str:
    if scores["mean_iou"] is None:
        return "nothing to score"
    return f"mean IoU {100 * scores['mean_iou']:.1f} %, {100 * scores['pixel_accuracy']:.1f} % of the pixels right"


def _part(look: "Sampling") -> str:
    row, column, height, width = look.part
    shown = f", {width} x {height} pixels" + (f" from row {row}, column {column}" if row or column else "")
    return shown + (f", shown at 1 : {look.step}" if look.step > 1 else "")


def _background(work: Work, maps: Sequence[Any]) -> int | None:
    """The place of the class that is no object: as asked for, by its name, of two the first, that of no polygon."""
    from torchfpn.raster.legend import BACKGROUND

    names = work.classes.names
    for name in (work.args.background, BACKGROUND):
        if name in names:
            return names.index(name)
    binary = len(names) == 2 if work.classes.told else all(((m <= 1) | (m == 255)).all() for m in maps)
    polygons = any(side.layers for side in work.sides) and 0 in work.classes.values
    return work.classes.values.index(0) if polygons else 0 if binary else None


def finish(work: Work, images: int) -> None:
    """compare.json, index.html, and the table over all images."""
    import json

    from torchfpn.cli.progress import console
    from torchfpn.files.atomic import write_text
    from torchfpn.metrics.plain import UNIT
    from torchfpn.report.html import MOST_PICTURES, comparison_page
    from torchfpn.report.tables import class_table

    if not work.rows:
        return
    scores = _over_all(work, images)
    order = list(range(len(work.rows)))
    if scores is not None:
        held = [row["mean_iou"] for row in work.rows]
        order.sort(key=lambda k: 2.0 if held[k] is None else held[k])
        data = {"unit": UNIT, "images": work.rows, "over_all": scores[1]}
        write_text(work.args.out / "compare.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    shown = [work.pictures[k] for k in order[:MOST_PICTURES]]
    write_text(work.args.out / "index.html", comparison_page(shown, None if scores is None else scores[0], images))
    if scores is not None and not work.args.quiet:
        console().print(class_table(scores[0]))


def _over_all(work: Work, images: int) -> "tuple[Scores, dict[str, Any]] | None":
    """Scores over the pixels of all images; classes that nobody named and that do not occur are left out."""
    from torchfpn.metrics.pixel_counts import PixelCounts
    from torchfpn.raster.label_pairs import PixelScores
    from torchfpn.report.run import parse_scores

    if work.total is None or not work.total.matrix.any():
        return None
    matrix, classes = work.total.matrix, work.classes
    held = (matrix.sum(0) + matrix.sum(1) > 0).tolist()
    kept = [k for k in range(len(classes.names)) if classes.told or held[k]]
    confusion = PixelCounts(len(kept), matrix[kept][:, kept])
    picked = [(classes.values[k], classes.names[k], classes.colors[k]) for k in kept]
    values, names, colors = (list(column) for column in zip(*picked, strict=True))
    data = plain_scores(PixelScores([*values], names, colors, confusion, 0, 0), images)
    del data["unlabelled"], data["unanswered"], data["split"], data["boundary_iou"]
    return parse_scores(data), data
