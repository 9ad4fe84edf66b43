"""Pictures of images beside their truth, their prediction and where the two differ, with the IoU of each.

  fpn compare images/ --truth labels/ --prediction predicted/ --out sheets           # label files by name
  fpn compare scene.tif --truth roofs.geojson --prediction predicted.tif --out sheets
  fpn compare "flights/*.tif" --prediction roofs.gpkg --out sheets                   # to look at, without scores
  fpn compare images/ --truth labels/ --prediction predicted/ --out sheets --worst 20

Truth and prediction are label files, polygons, folders of them with the names of the images, or one file for all
images: polygons, or a raster that the images are parts of. Every IMAGE gives DIR/<stem>.png; with both sides also
compare.json, and always index.html. Every pixel is scored; large images are drawn at a lower resolution. An image
that fails is reported, the others are processed, and the exit code is 1.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.cli.options import (
    accept_old_spelling,
    add_without_class,
    ignored_values,
    listed,
    named_values,
    refuse_unused,
)
from torchfpn.errors import amount
from torchfpn.evaluation.map_files import UNMET, map_kind, no_map, pixel_values
from torchfpn.io.formats import printable

if TYPE_CHECKING:
    from torchfpn.classes import ClassMap
    from torchfpn.evaluation.maps import MapComparison
    from torchfpn.geo.window import Window
    from torchfpn.inference.jobs import Job
    from torchfpn.metrics.pixel_counts import PixelCounts
    from torchfpn.report.html import Picture
    from torchfpn.report.run import Scores
    from torchfpn.sources.labels import LabelSource
    from torchfpn.sources.raster import Sampling


LARGEST = 1500  # pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, folders of images, patterns in quotes")
    parser.add_argument("--truth", type=Path, metavar="T", help="label files or polygons: a file or a folder")
    parser.add_argument("--prediction", type=Path, metavar="P", help="label files or polygons: a file or a folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--bands", metavar="4,3,2", help="bands to show, one or three, by number from 1 or by name")
    parser.add_argument("--window", metavar="R,C,H,W", help="part of the images: row, column, height, width in pixels")
    size = parser.add_argument(
        "--panel-size", type=int, default=LARGEST, metavar="PIXELS", help="largest side of a panel"
    )
    accept_old_spelling(parser, "--largest", size)
    parser.add_argument("--worst", type=int, metavar="N", help="only the N with the lowest mean IoU, named by rank")
    parser.add_argument("--classes", metavar="A,B", help="names of the label values 0, 1 ..., or 0=A,255=B")
    parser.add_argument("--background", metavar="NAME", help="class that counts as background in the differences")
    parser.add_argument("--ignore", metavar="0,255", help="label values of pixels without a label; default 255")
    parser.add_argument("--field", metavar="NAME", help='attribute with the class; default "class", if it is there')
    add_without_class(parser)
    parser.add_argument("--burn", type=int, metavar="V", help="label value of polygons without a class")
    parser.add_argument("--layer", metavar="NAME", help="layer of a GeoPackage with several")
    parser.add_argument("--truth-layer", metavar="NAME", help="the same for the truth, if its name differs")
    parser.add_argument("--assume-crs", metavar="EPSG:N", help="coordinate system of files without one")
    parser.add_argument(
        "--tiles", metavar="PATTERN", help='pattern of tile paths, for images without a georeference: "{z}/{x}/{y}"'
    )
    parser.add_argument("--allow-vrt", action="store_true", help="read VRTs whose files lie below their own folder")
    parser.add_argument("--max-side", type=int, default=2**20, metavar="N", help="largest height or width of a raster")
    parser.add_argument("--overwrite", action="store_true", help="replace existing pictures")


def run(args: argparse.Namespace) -> int:
    """0 all done; 1 some images failed; 2 all of them did (or bad usage, said before the first image)."""
    from torchfpn.cli.console import exit_code, make_output_folder, warn_of_skipped_files

    _check(args)
    jobs = _jobs(args)
    warn_of_skipped_files(args.images)
    truth_layer = args.layer if args.truth_layer is None else args.truth_layer
    given = ((args.truth, truth_layer), (args.prediction, args.layer))
    sides = [_side(args, path, layer, len(jobs)) for path, layer in given if path is not None]
    refuse_unused(args, "compare", _kind(sides))
    _refuse_labels(args, jobs, sides)
    make_output_folder(args.out)
    comparison = ComparisonRun(args, sides, _classes(args, sides), _window(args.window))
    if args.worst is not None:
        failed = draw_worst(comparison, jobs)
    else:
        failed = draw_all(comparison, [(job, job.labels) for job in jobs])
    write_summary(comparison, len(jobs) - failed)
    _warn_of_unmet(sides)
    print(f"{amount(len(comparison.rows), 'picture')}, {failed} failed")
    return exit_code(len(jobs) - failed, failed)


def _kind(sides: "Sequence[LabelSource]") -> str:
    """What is compared, as the table of flags calls it."""
    if any(side.layers for side in sides):
        return "polygons on one side alone" if len(sides) == 1 else "polygons on one of two sides"
    return "label files alone" if len(sides) == 1 else "label files on both sides"


def _warn_of_unmet(sides: "Sequence[LabelSource]") -> None:
    """Warns of polygons that lie on none of the images they were drawn on."""
    from torchfpn.cli.console import warn

    for side in sides:
        for layer in side.layers.values():
            if len(layer.shapes) and side.met.get(layer.file) == 0:
                warn(UNMET.format(printable(layer.file), "an image"))


def _check(args: argparse.Namespace) -> None:
    from torchfpn.errors import ConfigError

    both = args.truth is not None and args.prediction is not None
    if args.truth is None and args.prediction is None:
        raise ConfigError("neither --truth nor --prediction", hint="give one of them, or both")
    if args.worst is not None and not (both and args.worst >= 1):
        raise ConfigError(f"{args.worst}", field="--worst", allowed="from 1, with --truth and --prediction")
    if args.panel_size < 16:
        raise ConfigError(f"{args.panel_size}", field="--panel-size", allowed="pixels from 16")
    for name in ("compare.json", "index.html"):
        if (args.out / name).exists() and not args.overwrite:
            raise ConfigError("already exists", file=printable(args.out / name), hint="replace it with --overwrite")


def _jobs(args: argparse.Namespace) -> "list[Job]":
    """Images and the pictures made of them."""
    from dataclasses import replace

    from torchfpn.inference.jobs import find_sources, plan, refuse_existing, refuse_own_sources

    jobs = plan(find_sources(args.images), args.out, {}, raster_extras={})
    jobs = [replace(job, labels=job.labels.with_suffix(".png")) for job in jobs]
    refuse_own_sources(jobs)
    if not args.overwrite and args.worst is None:
        refuse_existing(jobs)
    return jobs


def _side(args: argparse.Namespace, path: Path, layer: str | None, images: int) -> "LabelSource":
    """The labels at a path: of all images, or by their names. layer: of a GeoPackage with several."""
    from torchfpn.errors import ConfigError
    from torchfpn.geo.crs import crs_wkt
    from torchfpn.geo.tiles import check_pattern
    from torchfpn.io.vectors import label_files
    from torchfpn.sources.labels import LabelSource, label_folder, open_label_map

    crs = crs_wkt(args.assume_crs) if args.assume_crs else None
    tiles = check_pattern(args.tiles) if args.tiles is not None else None
    side = LabelSource(assume_crs=crs, tiles=tiles, max_side=args.max_side)
    kind = map_kind(path)
    if kind == "polygons":
        from torchfpn.vector.objects import read_objects

        files = label_files(path) if path.is_dir() else {"": path}
        for stem, file in files.items():
            objects = read_objects(
                file,
                field=args.field,
                score="",
                layer=layer,
                assume_crs=crs,
                skip_unclassed=args.without_class == "skip",
            )
            side.layers[stem] = objects
            if objects.unclassed:
                print(f"{printable(file)}  {amount(objects.unclassed, 'feature')} without a class, left out")
    elif kind == "label files":
        side.maps = label_folder(path) if path.is_dir() else {"": path}
        if "" in side.maps and images > 1:
            with open_label_map(path, max_side=args.max_side) as held:
                if held.geo is None:
                    found = f"one label file without a georeference for {images} images"
                    raise ConfigError(
                        found, file=path, hint="give a folder of label files with the names of the images"
                    )
    else:
        raise no_map(path)
    return side


def _refuse_labels(args: argparse.Namespace, jobs: "Sequence[Job]", sides: "Sequence[LabelSource]") -> None:
    """Passes pictures that overwrite none of the label files, whatever `--overwrite` says."""
    from torchfpn.errors import ConfigError

    labels = {os.path.realpath(path) for side in sides for path in side.maps.values()}
    for job in jobs:
        if os.path.realpath(job.labels) in labels:
            raise ConfigError(
                "a label file would be overwritten", file=printable(job.labels), hint="give another --out"
            )


def _classes(args: argparse.Namespace, sides: "Sequence[LabelSource]") -> "ClassMap":
    from torchfpn.errors import ConfigError, nearest
    from torchfpn.sources.label_classes import classes_of_sources

    names: dict[int, str] = {}
    colors: dict[int, tuple[int, int, int]] = {}
    for side in sides:
        tags, shown = side.legend()
        names, colors = tags | names, shown | colors
    found = classes_of_sources(
        named_values(args.classes),
        names,
        [layer for side in sides for layer in side.layers.values()],
        colors,
        ignore=ignored_values(args.ignore),
        nodata={value for side in sides for value in side.ignored()},
        burn_value=args.burn,
        has_label_files=any(side.maps for side in sides),
        read_values=lambda: {value for side in sides for value in side.values()},
    )
    if args.background is not None and args.background not in found.names:
        hint = nearest(args.background, found.names)
        raise ConfigError(f'no class "{args.background}"', field="--background", hint=hint)
    return found


def _window(text: str | None) -> "Window | None":
    from torchfpn.errors import ConfigError
    from torchfpn.geo.window import Window

    if text is None:
        return None
    words = listed(text)
    if len(words) != 4 or not all(word.isdecimal() for word in words):
        raise ConfigError(f'"{text}"', field="--window", allowed="row,column,height,width in pixels")
    return Window(*(int(word) for word in words))


@dataclass
class ComparisonRun:
    """What all images have in common, and the results so far."""

    args: argparse.Namespace
    sides: "list[LabelSource]"
    classes: "ClassMap"
    part: "Window | None"
    total: "PixelCounts | None" = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: "list[Picture]" = field(default_factory=list)

    def count(self, confusion: "PixelCounts") -> None:
        """Adds the pixels of one image."""
        self.total = confusion if self.total is None else self.total + confusion


def draw_worst(run: ComparisonRun, jobs: "Sequence[Job]") -> int:
    """Scores all images and draws the worst; returns how many images failed."""
    from torchfpn.cli.console import for_each

    ranked: list[tuple[float, int]] = []

    def score(number: int, _: Any) -> None:
        confusion = _compare(run, jobs[number])[1].confusion
        assert confusion is not None  # both sides are given
        run.count(confusion)
        mean_iou = confusion.miou()
        ranked.append((mean_iou if mean_iou == mean_iou else 2.0, number))  # nothing to score comes last

    failed = for_each("comparing", range(len(jobs)), score, source=lambda number: jobs[number].source)
    ranked = sorted(ranked)[: run.args.worst]
    digits = max(3, len(str(len(ranked))))
    names = [run.args.out / f"{rank:0{digits}d}-{jobs[k].labels.name}" for rank, (_, k) in enumerate(ranked, start=1)]
    _refuse_pictures(run.args, names)
    total, run.total = run.total, None
    failed += draw_all(run, [(jobs[k], name) for (_, k), name in zip(ranked, names, strict=True)])
    run.total = total
    return failed


def _refuse_pictures(args: argparse.Namespace, pictures: Sequence[Path]) -> None:
    from torchfpn.errors import ConfigError

    there = [path for path in pictures if path.exists()]
    if there and not args.overwrite:
        raise ConfigError("already exists", file=printable(there[0]), hint="replace it with --overwrite")


def draw_all(run: ComparisonRun, pictures: "Sequence[tuple[Job, Path]]") -> int:
    """Draws the picture of each image; returns how many images failed."""
    from torchfpn.cli.console import for_each

    return for_each("drawing", pictures, lambda pair, _: _draw(run, *pair), source=lambda pair: pair[0].source)


def _compare(run: ComparisonRun, job: "Job") -> "tuple[Sampling, MapComparison]":
    from torchfpn.evaluation.maps import compare_maps
    from torchfpn.sources.raster import grid_of, sampling

    grid = grid_of(job.source, allow_vrt=run.args.allow_vrt, max_side=run.args.max_side)
    shown = sampling(grid, run.args.panel_size, run.part)
    return shown, compare_maps(grid, shown, run.sides, run.classes)


def _draw(run: ComparisonRun, job: "Job", picture: Path) -> None:
    """Writes the picture of an image and keeps its row of the index."""
    from torchfpn.io.atomic import write_bytes
    from torchfpn.report.html import linked_picture
    from torchfpn.report.images import png, to_rgb
    from torchfpn.report.sheets import Comparison, draw_comparison
    from torchfpn.sources.raster import thumbnail

    shown, found = _compare(run, job)
    words = listed(run.args.bands)
    bands = [int(word) if word.isdecimal() else word for word in words] or None
    seen = thumbnail(job.source, shown, bands=bands, allow_vrt=run.args.allow_vrt)
    maps: list[Any] = [*found.maps]
    truth = maps.pop(0) if run.args.truth is not None else None
    prediction = maps.pop(0) if run.args.prediction is not None else None
    scores = _scores(found.confusion)
    comparison = Comparison(
        to_rgb(seen.array, seen.names, seen.valid),
        truth,
        prediction,
        run.classes.names,
        run.classes.colors,
        _background(run, found.maps),
        scores["iou"],
        [printable(job.source.name) + _part(shown), *([_score_words(scores)] if found.confusion is not None else [])],
    )
    sheet = draw_comparison(comparison)
    write_bytes(picture, png(sheet))
    if found.confusion is not None:
        run.count(found.confusion)
    known = {n: v for n, v in zip(run.classes.names, scores["iou"], strict=False) if v is not None}
    row = {"file": printable(job.source), "picture": picture.name, **scores, "iou": known}
    run.rows.append(row)
    line = f"{job.source.name}: {_score_words(scores)}" if found.confusion is not None else job.source.name
    run.pictures.append(linked_picture(picture.name, printable(line), sheet))
    print(f"{printable(picture)}  {_score_words(scores) if found.confusion is not None else ''}".rstrip())


def _scores(confusion: "PixelCounts | None") -> dict[str, Any]:
    """Plain numbers, None where there is nothing to score."""
    from torchfpn.metrics.pixel_counts import plain

    if confusion is None:
        return {"mean_iou": None, "pixel_accuracy": None, "iou": []}
    iou = [plain(value) for value in confusion.iou().tolist()]
    return {"mean_iou": plain(confusion.miou()), "pixel_accuracy": plain(confusion.pixel_accuracy()), "iou": iou}


def _score_words(scores: dict[str, Any]) -> str:
    if scores["mean_iou"] is None:
        return "nothing to score"
    return f"mean IoU {100 * scores['mean_iou']:.1f} %, {100 * scores['pixel_accuracy']:.1f} % of the pixels right"


def _part(look: "Sampling") -> str:
    row, column, height, width = look.part
    shown = f", {width} x {height} pixels" + (f" from row {row}, column {column}" if row or column else "")
    return shown + (f", shown at 1 : {look.step}" if look.step > 1 else "")


def _background(run: ComparisonRun, maps: Sequence[Any]) -> int | None:
    """The place of the class that is no object: as asked for, by its name, of two the first, that of no polygon."""
    from torchfpn.sources.label_classes import BACKGROUND

    names = run.classes.names
    for name in (run.args.background, BACKGROUND):
        if name in names:
            return names.index(name)
    binary = len(names) == 2 if run.classes.named else all(((m <= 1) | (m == 255)).all() for m in maps)
    polygons = any(side.layers for side in run.sides) and 0 in run.classes.values
    return run.classes.values.index(0) if polygons else 0 if binary else None


def write_summary(run: ComparisonRun, images: int) -> None:
    """Writes compare.json and index.html, and prints the table over all images."""
    import json

    from torchfpn.cli.console import results_console
    from torchfpn.io.atomic import write_text
    from torchfpn.metrics.pixel_counts import UNIT
    from torchfpn.report.html import MOST_PICTURES, comparison_page
    from torchfpn.report.tables import class_table

    if not run.rows:
        return
    scores = _over_all(run, images)
    order = list(range(len(run.rows)))
    if scores is not None:
        held = [row["mean_iou"] for row in run.rows]
        order.sort(key=lambda k: 2.0 if held[k] is None else held[k])
        data = {"unit": UNIT, "images": run.rows, "over_all": scores[1]}
        write_text(run.args.out / "compare.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    shown = [run.pictures[k] for k in order[:MOST_PICTURES]]
    write_text(run.args.out / "index.html", comparison_page(shown, None if scores is None else scores[0], images))
    if scores is not None and not run.args.quiet:
        results_console().print(class_table(scores[0]))


def _over_all(run: ComparisonRun, images: int) -> "tuple[Scores, dict[str, Any]] | None":
    """Scores over the pixels of all images; classes that nobody named and that do not occur are left out."""
    from torchfpn.evaluation.maps import PixelScores
    from torchfpn.metrics.pixel_counts import PixelCounts
    from torchfpn.report.run import parse_scores

    if run.total is None or not run.total.matrix.any():
        return None
    matrix, classes = run.total.matrix, run.classes
    held = (matrix.sum(0) + matrix.sum(1) > 0).tolist()
    kept = [k for k in range(len(classes.names)) if classes.named or held[k]]
    confusion = PixelCounts(len(kept), matrix[kept][:, kept])
    picked = [(classes.values[k], classes.names[k], classes.colors[k]) for k in kept]
    values, names, colors = (list(column) for column in zip(*picked, strict=True))
    data = pixel_values(PixelScores([*values], names, colors, confusion, 0, 0), images)
    del data["unlabelled"], data["unanswered"], data["split"], data["boundary_iou"]
    return parse_scores(data), data
