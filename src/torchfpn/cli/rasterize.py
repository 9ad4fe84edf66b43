"""Polygons to label masks on the grid of images.

  fpn rasterize buildings.geojson images/ --out labels --classes background,building
  fpn rasterize landcover.gpkg "scenes/*.tif" --out labels --field class
  fpn rasterize polygons/ images/ --out labels        # polygons/a.geojson for images/a.tif

LABELS is GeoJSON, GeoPackage, FlatGeobuf or Shapefile in any coordinate system, or a folder of such files, one for
each image by name. Every IMAGE gives DIR/<stem>.tif on its own grid. A pixel belongs to the polygon that holds its
centre; of several, to the one that comes last in the file. An image that fails is reported, the others are processed,
and the exit code is 1.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.cli.options import refuse_unused
from torchfpn.errors import amount

if TYPE_CHECKING:
    from torchfpn.errors import FPNError
    from torchfpn.inference.jobs import Job
    from torchfpn.io.vectors import Vectors
    from torchfpn.sources.polygon_classes import PolygonClasses
    from torchfpn.sources.polygons import RasterizeOptions, RasterizeOutcome, RasterizeTally
    from torchfpn.vector.rasterize import LabelledPolygons


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("labels", type=Path, metavar="LABELS", help="a file of polygons, or a folder of such files")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="GeoTIFFs, folders of them, patterns in quotes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--classes", metavar="A,B", help="names of the classes, the background first")
    parser.add_argument("--field", metavar="NAME", help="attribute with the class, a name or a number")
    parser.add_argument(
        "--without-class",
        choices=("error", "ignore", "skip"),
        default="error",
        help="features without a class: an error, pixels to ignore, or left out",
    )
    parser.add_argument("--layer", metavar="NAME", help="layer of a GeoPackage with several")
    parser.add_argument("--burn", type=int, metavar="V", help="without --field: label value of all polygons; default 1")
    parser.add_argument("--all-touched", action="store_true", help="label every pixel that a polygon touches")
    parser.add_argument("--buffer", type=float, metavar="METRES", help="also draw lines and points, with this buffer")
    parser.add_argument(
        "--max-crossings", type=int, default=20_000, metavar="N", help="most crossings of the rings of a polygon"
    )
    parser.add_argument("--max-side", type=int, default=2**20, metavar="N", help="largest height or width of an image")
    parser.add_argument(
        "--ignore-border", type=float, default=0.0, metavar="PIXELS", help="width of the border of polygons to ignore"
    )
    parser.add_argument("--assume-crs", metavar="EPSG:N", help="coordinate system of files without one")
    parser.add_argument(
        "--tiles", metavar="PATTERN", help='pattern of tile paths, for images without a georeference: "{z}/{x}/{y}"'
    )
    parser.add_argument("--allow-vrt", action="store_true", help="read VRTs whose files lie below their own folder")
    parser.add_argument("--overwrite", action="store_true", help="replace existing masks")


def run(args: argparse.Namespace) -> int:
    """0 all done; 1 some images failed; 2 all of them did (or bad usage, said before the first image)."""
    from torchfpn.cli.console import exit_code, make_output_folder, warn_of_skipped_files
    from torchfpn.inference.jobs import refuse_existing, refuse_own_sources
    from torchfpn.sources.polygons import RasterizeTally

    options = _options(args)
    refuse_unused(
        args, "rasterize", f"polygons {'of one class' if args.field is None else 'with classes of their own'}"
    )
    jobs = _jobs(args)
    refuse_own_sources(jobs)
    warn_of_skipped_files(args.images)
    if not args.overwrite:
        refuse_existing(jobs)
    make_output_folder(args.out)
    vectors = _vectors(args, options)
    classes = _classes(args, [held for held in vectors.values() if not isinstance(held, Exception)])
    labels = {stem: _labels(held, classes, args) for stem, held in vectors.items()}
    if not args.labels.is_dir() and isinstance(error := labels[""], Exception):
        raise error
    tally = RasterizeTally(classes, {stem: held for stem, held in labels.items() if not isinstance(held, Exception)})
    failed = _draw_all(jobs, labels, tally, options, folder=args.labels if args.labels.is_dir() else None)
    _print(tally, len(jobs) - failed, failed)
    return exit_code(len(jobs) - failed, failed)


def _options(args: argparse.Namespace) -> "RasterizeOptions":
    from torchfpn.errors import ConfigError
    from torchfpn.geo.crs import crs_wkt
    from torchfpn.geo.tiles import check_pattern
    from torchfpn.sources.polygons import RasterizeOptions

    if args.buffer is not None and not 0 < args.buffer < math.inf:
        raise ConfigError(f"{args.buffer}", field="--buffer", allowed="metres, more than 0")
    if args.max_crossings < 0:
        raise ConfigError(f"{args.max_crossings}", field="--max-crossings", allowed="a number from 0")
    if not 0 <= args.ignore_border <= 1000:
        raise ConfigError(f"{args.ignore_border}", field="--ignore-border", allowed="0..1000 pixels")
    if args.field is not None and args.burn is not None:
        raise ConfigError("both --field and --burn", allowed="one: --field draws the value of each feature")
    return RasterizeOptions(
        all_touched=args.all_touched,
        border=args.ignore_border,
        assume_crs=crs_wkt(args.assume_crs) if args.assume_crs else None,
        allow_vrt=args.allow_vrt,
        max_side=args.max_side,
        tiles=check_pattern(args.tiles) if args.tiles is not None else None,
    )


def _jobs(args: argparse.Namespace) -> "list[Job]":
    from torchfpn.inference.jobs import find_sources, plan

    jobs = plan(find_sources(args.images), args.out, {}, raster_extras={})
    return [replace(job, labels=job.labels.with_suffix(".tif")) for job in jobs]  # pictures too, with a world file


def _vectors(args: argparse.Namespace, options: "RasterizeOptions") -> "dict[str, Vectors | FPNError]":
    """What each label file holds, or why not, by its stem; the one file for all images under ""."""
    from torchfpn.errors import FPNError
    from torchfpn.io.vectors import label_files, read_vectors

    files = label_files(args.labels) if args.labels.is_dir() else {"": args.labels}
    held: dict[str, Vectors | FPNError] = {}
    for stem, path in files.items():
        try:
            held[stem] = read_vectors(path, field=args.field, layer=args.layer, assume_crs=options.assume_crs)
        except FPNError as error:
            if not stem:
                raise
            held[stem] = error
    return held


def _classes(args: argparse.Namespace, vectors: "Sequence[Vectors]") -> "PolygonClasses":
    from torchfpn.sources.polygon_classes import classes_of_attribute, single_class

    names = [name.strip() for name in args.classes.split(",")] if args.classes is not None else []
    if args.field is not None:
        return classes_of_attribute(args.field, vectors, names)
    return single_class(names, 1 if args.burn is None else args.burn)


def _labels(
    vectors: "Vectors | FPNError", classes: "PolygonClasses", args: argparse.Namespace
) -> "LabelledPolygons | FPNError":
    """The features of a file ready to be drawn, and a line about what was found; or what is wrong with them."""
    from torchfpn.errors import FPNError
    from torchfpn.vector.geometry import repair
    from torchfpn.vector.rasterize import LabelledPolygons

    if isinstance(vectors, FPNError):
        return vectors
    try:
        values = classes.label_values(vectors, allow_unclassed=args.without_class != "error")
        empty = vectors.unclassed if args.without_class != "error" else vectors.unclassed[:0]
        wanted = vectors.without(empty) if args.without_class == "skip" else vectors
        drawn = repair(wanted, buffer=args.buffer, crossings=args.max_crossings)
        if args.without_class == "skip":
            drawn = replace(drawn, lost=drawn.lost - int(empty.sum()))
        labels = LabelledPolygons(vectors.file, drawn, values, vectors.crs)
    except FPNError as error:
        return error
    if not args.quiet:
        _tell(len(vectors.shapes), labels, int(empty.sum()), skipped=args.without_class == "skip")
    return labels


def _tell(features: int, labels: "LabelledPolygons", unclassed: int, *, skipped: bool) -> None:
    """One line about a label file: how many features, and what was not as it should be."""
    from torchfpn.io.formats import printable

    found = labels.areas
    words = [amount(features, "feature") if features else "no feature, so all is background"]
    if found.invalid:
        words.append(f"{found.invalid:,} with invalid rings, repaired")
    if found.lost:
        words.append(f"{found.lost:,} without an area, left out")
    if unclassed:
        words.append(f"{unclassed:,} without a class, {'left out' if skipped else 'not labelled'}")
    if found.widened:
        words.append(f"{found.widened:,} lines and points widened")
    print(f"{printable(labels.file)}  {', '.join(words)}")


def _draw_all(
    jobs: "list[Job]",
    labels: "dict[str, LabelledPolygons | FPNError]",
    tally: "RasterizeTally",
    options: "RasterizeOptions",
    folder: Path | None,
) -> int:
    """Draws the masks; returns how many images failed. folder: of label files by image name; None: one file for all."""
    from torchfpn.cli.console import for_each
    from torchfpn.errors import DataError, FPNError
    from torchfpn.io.formats import name_key, printable
    from torchfpn.sources.polygons import rasterize_file

    def draw(job: "Job", _: Any) -> "tuple[str, Job, RasterizeOutcome]":
        stem = "" if folder is None else name_key(job.source.stem)
        polygons = labels.get(stem) or DataError(f"no labels for it in {folder}", file=printable(job.source))
        if isinstance(polygons, FPNError):
            raise polygons
        return stem, job, rasterize_file(job.source, job.labels, polygons, tally.classes, options)

    def report(drawn: "tuple[str, Job, RasterizeOutcome]") -> None:
        stem, job, outcome = drawn
        tally.add(stem, outcome)
        _report(job, outcome)

    return for_each("rasterizing", jobs, draw, report, source=lambda job: job.source)


def _report(job: "Job", outcome: "RasterizeOutcome") -> None:
    from torchfpn.io.formats import printable

    (height, width), met = outcome.size, int(outcome.features.sum())
    words = amount(met, "feature") if met else "no feature overlaps it, so all is background"
    print(f"{printable(job.labels)}  {width} x {height}, {words}")


def _print(tally: "RasterizeTally", done: int, failed: int) -> None:
    """Prints the table of classes, warnings about the labels, and the summary."""
    from torchfpn.cli.console import warn
    from torchfpn.io.formats import printable

    if done:
        _print_table(tally)
        for file in tally.unmet():
            warn(f"{printable(file)}: its features overlap no image; check its coordinate system and axis order")
        if tally.doubled:
            what = amount(tally.doubled, "pixel is", "pixels are")
            print(f"{what} covered by features of several classes; the last in the file counts")
    print(f"{done} rasterized, {failed} failed")


def _print_table(tally: "RasterizeTally") -> None:
    from rich.table import Table

    from torchfpn.cli.console import results_console

    table = Table()
    columns: list[tuple[str, Any]] = [("class", "left"), ("label", "right"), ("features", "right"), ("pixels", "right")]
    if tally.classes.attribute is not None:
        columns.insert(0, (tally.classes.attribute, "left"))
    for name, justify in columns:
        table.add_column(name, justify=justify)
    for value, name, label, features, pixels in tally.rows():
        cells = [name, str(label), f"{features:,}", f"{pixels:,}"]
        table.add_row(*cells if tally.classes.attribute is None else [value, *cells])
    results_console().print(table)
