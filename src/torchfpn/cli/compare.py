"""Pictures of images beside their truth, their prediction and where the two differ, with the IoU of each.

  fpn compare images/ --truth labels/ --prediction predicted/ --out sheets           # label files by name
  fpn compare scene.tif --truth roofs.geojson --prediction predicted.tif --out sheets
  fpn compare "flights/*.tif" --prediction roofs.gpkg --out sheets                   # to look at, without scores
  fpn compare images/ --truth labels/ --prediction predicted/ --out sheets --worst 20

Truth and prediction are label files, polygons, folders of them with the names of the images, or one file for all
images: polygons, or a raster that the images are parts of. Every IMAGE gives DIR/<stem>.png; with both sides also
compare.json, and always index.html. Every pixel counts; large images are shown smaller. An image that fails is named,
the others go on, and the exit code is 1.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.cli.evaluate_maps import ignored_values, kind_of, listed, named_values, plain_scores

if TYPE_CHECKING:
    from torchfpn.metrics.confusion import ConfusionMatrix
    from torchfpn.raster.compared import Compared
    from torchfpn.raster.label_classes import LabelClasses
    from torchfpn.raster.label_sides import Side
    from torchfpn.raster.overview import Grid, Sampling
    from torchfpn.raster.sources import Job
    from torchfpn.report.contact import Entry
    from torchfpn.report.run import Scores

LARGEST = 1500  # pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, folders of images, patterns in quotes")
    parser.add_argument("--truth", type=Path, metavar="T", help="label files or polygons: a file or a folder")
    parser.add_argument("--prediction", type=Path, metavar="P", help="the same")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the pictures go")
    parser.add_argument("--bands", metavar="4,3,2", help="bands to show, one or three, by number from 1 or by name")
    parser.add_argument("--window", metavar="R,C,H,W", help="only this part: row, column, height, width in pixels")
    parser.add_argument("--largest", type=int, default=LARGEST, metavar="PIXELS", help="side of a panel")
    parser.add_argument("--worst", type=int, metavar="N", help="only the N with the lowest mean IoU, named by rank")
    parser.add_argument("--classes", metavar="A,B", help="names of the label values 0, 1 ..., or 0=A,255=B")
    parser.add_argument("--background", metavar="NAME", help="the class that is no object, for the differences")
    parser.add_argument("--ignore", metavar="0,255", help='label values that mean "not labelled"; default 255')
    parser.add_argument(
        "--field", metavar="NAME", help='attribute that says the class; default "class", if it is there'
    )
    parser.add_argument("--burn", type=int, metavar="V", help="the label value of polygons without a class")
    parser.add_argument("--layer", metavar="NAME", help="of a GeoPackage with several")
    parser.add_argument("--assume-crs", metavar="EPSG:N", help="coordinate system of files that do not say")
    parser.add_argument("--tiles", metavar="PATTERN", help='how paths of images without a place end: "{z}/{x}/{y}"')
    parser.add_argument("--allow-vrt", action="store_true", help="take VRTs, over files below their own folder")
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that are there already")


@dataclass
class _Work:
    """What is the same for all images, and what came of them."""

    args: argparse.Namespace
    sides: "list[Side]"
    classes: "LabelClasses"
    part: tuple[int, int, int, int] | None
    total: "ConfusionMatrix | None" = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    entries: "list[Entry]" = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    """0 all done; 1 some images failed; 2 all of them did (or bad usage, said before the first image)."""
    from torchfpn.cli.outputs import check_folder

    _check(args)
    jobs = _jobs(args)
    sides = [_side(args, path, len(jobs)) for path in (args.truth, args.prediction) if path is not None]
    _refuse_labels(args, jobs, sides)
    check_folder(args.out)
    work = _Work(args, sides, _classes(args, sides), _window(args.window))
    failed = _rank_all(work, jobs) if args.worst is not None else _draw_all(work, [(job, job.labels) for job in jobs])
    _finish(work, len(jobs) - failed)
    print(f"{len(work.rows)} pictures, {failed} failed")
    return 0 if not failed else 1 if failed < len(jobs) else 2


def _check(args: argparse.Namespace) -> None:
    from torchfpn.errors import ConfigError
    from torchfpn.files.formats import printable

    both = args.truth is not None and args.prediction is not None
    if args.truth is None and args.prediction is None:
        raise ConfigError("neither --truth nor --prediction", hint="give one of them, or both")
    if args.worst is not None and not (both and args.worst >= 1):
        raise ConfigError(f"{args.worst}", field="worst", allowed="from 1, with --truth and --prediction")
    if args.largest < 16:
        raise ConfigError(f"{args.largest}", field="largest", allowed="pixels from 16")
    for name in ("compare.json", "index.html"):
        if (args.out / name).exists() and not args.overwrite:
            raise ConfigError("is there already", file=printable(args.out / name), hint="allow it with --overwrite")


def _jobs(args: argparse.Namespace) -> "list[Job]":
    """Images and the pictures made of them."""
    from dataclasses import replace

    from torchfpn.raster.sources import find_sources, plan, refuse_existing, refuse_own_sources

    jobs = plan(find_sources(args.images), args.out, {}, raster_extras={})
    jobs = [replace(job, labels=job.labels.with_suffix(".png")) for job in jobs]
    refuse_own_sources(jobs)
    if not args.overwrite and args.worst is None:
        refuse_existing(jobs)
    return jobs


def _side(args: argparse.Namespace, path: Path, images: int) -> "Side":
    """The labels at a path: of all images, or by their names."""
    from torchfpn.errors import ConfigError
    from torchfpn.raster.label_maps import label_folder, open_label_map
    from torchfpn.raster.label_sides import Side
    from torchfpn.vectors.objects import read_objects
    from torchfpn.vectors.reading import crs_wkt, label_files
    from torchfpn.vectors.tiles import check_pattern

    crs = crs_wkt(args.assume_crs) if args.assume_crs else None
    side = Side(assume_crs=crs, tiles=check_pattern(args.tiles) if args.tiles is not None else None)
    kind = kind_of(path)
    if kind == "polygons":
        files = label_files(path) if path.is_dir() else {"": path}
        for stem, file in files.items():
            side.layers[stem] = read_objects(file, field=args.field, score="", layer=args.layer, assume_crs=crs)
    elif kind == "labels":
        side.maps = label_folder(path) if path.is_dir() else {"": path}
        if "" in side.maps and images > 1:
            with open_label_map(path) as held:
                if held.geo is None:
                    found = f"one label file without a georeference for {images} images"
                    raise ConfigError(
                        found, file=path, hint="give a folder of label files with the names of the images"
                    )
    else:
        raise ConfigError("neither label files nor polygons", file=path)
    return side


def _refuse_labels(args: argparse.Namespace, jobs: "Sequence[Job]", sides: "Sequence[Side]") -> None:
    """Passes pictures that overwrite none of the label files, whatever `--overwrite` says."""
    from torchfpn.errors import ConfigError
    from torchfpn.files.formats import printable

    labels = {os.path.realpath(path) for side in sides for path in side.maps.values()}
    for job in jobs:
        if os.path.realpath(job.labels) in labels:
            raise ConfigError(
                "a label file would be overwritten", file=printable(job.labels), hint="give another --out"
            )


def _classes(args: argparse.Namespace, sides: "Sequence[Side]") -> "LabelClasses":
    from torchfpn.errors import ConfigError, nearest
    from torchfpn.raster.label_classes import label_classes

    names: dict[int, str] = {}
    colors: dict[int, tuple[int, int, int]] = {}
    for side in sides:
        told, shown = side.legend()
        names, colors = told | names, shown | colors
    found = label_classes(
        named_values(args.classes),
        names,
        [layer for side in sides for layer in side.layers.values()],
        colors,
        ignore=ignored_values(args.ignore),
        burn=args.burn,
        maps=any(side.maps for side in sides),
    )
    if args.background is not None and args.background not in found.names:
        hint = nearest(args.background, found.names)
        raise ConfigError(f'no class "{args.background}"', field="background", hint=hint)
    return found


def _window(text: str | None) -> tuple[int, int, int, int] | None:
    from torchfpn.errors import ConfigError

    if text is None:
        return None
    words = listed(text)
    if len(words) != 4 or not all(word.isdecimal() for word in words):
        raise ConfigError(f'"{text}"', field="window", allowed="row,column,height,width in pixels")
    row, column, height, width = (int(word) for word in words)
    return row, column, height, width


def _rank_all(work: _Work, jobs: "Sequence[Job]") -> int:
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
    failed += _draw_all(work, [(jobs[k], name) for (_, k), name in zip(ranked, names, strict=True)])
    work.total = total
    return failed


def _refuse_pictures(args: argparse.Namespace, pictures: Sequence[Path]) -> None:
    from torchfpn.errors import ConfigError
    from torchfpn.files.formats import printable

    there = [path for path in pictures if path.exists()]
    if there and not args.overwrite:
        raise ConfigError("is there already", file=printable(there[0]), hint="allow it with --overwrite")


def _draw_all(work: _Work, jobs: "Sequence[tuple[Job, Path]]") -> int:
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
    from torchfpn.errors import DataError, FPNError
    from torchfpn.files.formats import printable

    try:
        return do()
    except (FPNError, OSError) as error:
        line = error if isinstance(error, FPNError) else DataError(str(error), file=printable(job.source))
        print(f"fpn: {line}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
        return None


def _looked_at(work: _Work, job: "Job") -> "tuple[Grid, Sampling, Compared]":
    from torchfpn.raster.compared import compared
    from torchfpn.raster.overview import grid_of, sampling

    grid = grid_of(job.source, allow_vrt=work.args.allow_vrt)
    look = sampling(grid, work.args.largest, work.part)
    return grid, look, compared(grid, look, work.sides, work.classes)


def _draw(work: _Work, job: "Job", picture: Path) -> bool:
    """Writes the picture of an image, and keeps what the index says of it."""
    import io

    from torchfpn.files.atomic import write_bytes
    from torchfpn.files.formats import printable
    from torchfpn.raster.overview import view
    from torchfpn.report.comparison import Sheet, drawn, shown
    from torchfpn.report.contact import Entry, small

    _, look, found = _looked_at(work, job)
    words = listed(work.args.bands)
    bands = [int(word) if word.isdecimal() else word for word in words] or None
    seen = view(job.source, look, bands=bands, allow_vrt=work.args.allow_vrt)
    maps: list[Any] = [*found.maps]
    truth = maps.pop(0) if work.args.truth is not None else None
    prediction = maps.pop(0) if work.args.prediction is not None else None
    scores = _scores(found.confusion)
    sheet = Sheet(
        shown(seen.array, seen.valid, seen.names),
        truth,
        prediction,
        work.classes.names,
        work.classes.colors,
        _background(work, found.maps),
        scores["iou"],
        [printable(job.source.name) + _part(look), *([_said(scores)] if found.confusion is not None else [])],
    )
    page, target = drawn(sheet), io.BytesIO()
    page.save(target, "PNG", compress_level=6)
    write_bytes(picture, target.getvalue())
    if found.confusion is not None:
        _add(work, found.confusion)
    known = {n: v for n, v in zip(work.classes.names, scores["iou"], strict=False) if v is not None}
    row = {"file": printable(job.source), "picture": picture.name, **scores, "iou": known}
    work.rows.append(row)
    line = f"{job.source.name}: {_said(scores)}" if found.confusion is not None else job.source.name
    work.entries.append(Entry(picture.name, printable(line), small(page)))
    print(f"{printable(picture)}  {_said(scores) if found.confusion is not None else ''}".rstrip())
    return True


def _add(work: _Work, confusion: "ConfusionMatrix") -> None:
    work.total = confusion if work.total is None else work.total + confusion


def _scores(confusion: "ConfusionMatrix | None") -> dict[str, Any]:
    """Plain numbers, None where there is nothing to score."""
    if confusion is None:
        return {"mean_iou": None, "pixel_accuracy": None, "iou": []}

    def plain(value: float) -> float | None:
        return value if value == value else None

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


def _background(work: _Work, maps: Sequence[Any]) -> int | None:
    """The place of the class that is no object: as asked for, by its name, of two the first, that of no polygon."""
    from torchfpn.raster.legend import BACKGROUND

    names = work.classes.names
    for name in (work.args.background, BACKGROUND):
        if name in names:
            return names.index(name)
    binary = len(names) == 2 if work.classes.told else all(((m <= 1) | (m == 255)).all() for m in maps)
    polygons = any(side.layers for side in work.sides) and 0 in work.classes.values
    return work.classes.values.index(0) if polygons else 0 if binary else None


def _finish(work: _Work, images: int) -> None:
    """compare.json, index.html, and the table over all images."""
    import json

    from torchfpn.cli.progress import console
    from torchfpn.files.atomic import write_text
    from torchfpn.report.contact import MOST, contact_page
    from torchfpn.report.table import class_table

    if not work.rows:
        return
    scores = _over_all(work, images)
    order = list(range(len(work.rows)))
    if scores is not None:
        held = [row["mean_iou"] for row in work.rows]
        order.sort(key=lambda k: 2.0 if held[k] is None else held[k])
        data = {"images": work.rows, "over_all": scores[1]}
        write_text(work.args.out / "compare.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    entries = [work.entries[k] for k in order[:MOST]]
    write_text(work.args.out / "index.html", contact_page(entries, None if scores is None else scores[0], images))
    if scores is not None and not work.args.quiet:
        console().print(class_table(scores[0]))


def _over_all(work: _Work, images: int) -> "tuple[Scores, dict[str, Any]] | None":
    """Scores over the pixels of all images; classes that nobody named and that do not occur are left out."""
    from torchfpn.metrics.confusion import ConfusionMatrix
    from torchfpn.raster.label_pairs import PixelScores
    from torchfpn.report.run import parse_scores

    if work.total is None or not work.total.matrix.any():
        return None
    matrix, classes = work.total.matrix, work.classes
    held = (matrix.sum(0) + matrix.sum(1) > 0).tolist()
    kept = [k for k in range(len(classes.names)) if classes.told or held[k]]
    confusion = ConfusionMatrix(len(kept))
    confusion.matrix = matrix[kept][:, kept]
    picked = [(classes.values[k], classes.names[k], classes.colors[k]) for k in kept]
    values, names, colors = (list(column) for column in zip(*picked, strict=True))
    data = plain_scores(PixelScores([*values], names, colors, confusion, 0, 0), images)
    del data["unlabelled"], data["unanswered"], data["split"], data["boundary_iou"]
    return parse_scores(data), data
