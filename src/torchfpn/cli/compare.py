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
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchfpn.cli.compare_sheets import Work, draw_all, draw_worst, finish
from torchfpn.cli.evaluate_maps import UNMET, ignored_values, kind_of, listed, named_values, no_map
from torchfpn.cli.holding import accept_old_spelling, add_without_class, refuse_idle
from torchfpn.errors import amount
from torchfpn.files.formats import printable

if TYPE_CHECKING:
    from torchfpn.files.geo import Window
    from torchfpn.raster.label_classes import LabelClasses
    from torchfpn.raster.label_sides import Side
    from torchfpn.raster.sources import Job

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
    from torchfpn.cli.outputs import check_folder
    from torchfpn.cli.told import tell_passed_over

    _check(args)
    jobs = _jobs(args)
    tell_passed_over(args.images)
    truth_layer = args.layer if args.truth_layer is None else args.truth_layer
    given = ((args.truth, truth_layer), (args.prediction, args.layer))
    sides = [_side(args, path, layer, len(jobs)) for path, layer in given if path is not None]
    refuse_idle(args, "compare", _kind(sides))
    _refuse_labels(args, jobs, sides)
    check_folder(args.out)
    work = Work(args, sides, _classes(args, sides), _window(args.window))
    failed = draw_worst(work, jobs) if args.worst is not None else draw_all(work, [(job, job.labels) for job in jobs])
    finish(work, len(jobs) - failed)
    _tell_unmet(sides)
    print(f"{amount(len(work.rows), 'picture')}, {failed} failed")
    return 0 if not failed else 1 if failed < len(jobs) else 2


def _kind(sides: "Sequence[Side]") -> str:
    """What is compared, as the table of flags calls it."""
    if any(side.layers for side in sides):
        return "polygons on one side alone" if len(sides) == 1 else "polygons on one of two sides"
    return "label files alone" if len(sides) == 1 else "label files on both sides"


def _tell_unmet(sides: "Sequence[Side]") -> None:
    """Warns of polygons that lie on none of the images they were drawn on."""
    for side in sides:
        for layer in side.layers.values():
            if len(layer.shapes) and side.met.get(layer.file) == 0:
                print(f"fpn: {UNMET.format(printable(layer.file), 'an image')}", file=sys.stderr)


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

    from torchfpn.raster.sources import find_sources, plan, refuse_existing, refuse_own_sources

    jobs = plan(find_sources(args.images), args.out, {}, raster_extras={})
    jobs = [replace(job, labels=job.labels.with_suffix(".png")) for job in jobs]
    refuse_own_sources(jobs)
    if not args.overwrite and args.worst is None:
        refuse_existing(jobs)
    return jobs


def _side(args: argparse.Namespace, path: Path, layer: str | None, images: int) -> "Side":
    """The labels at a path: of all images, or by their names. layer: of a GeoPackage with several."""
    from torchfpn.errors import ConfigError
    from torchfpn.raster.label_maps import label_folder, open_label_map
    from torchfpn.raster.label_sides import Side
    from torchfpn.vectors.reading import crs_wkt, label_files
    from torchfpn.vectors.tiles import check_pattern

    crs = crs_wkt(args.assume_crs) if args.assume_crs else None
    tiles = check_pattern(args.tiles) if args.tiles is not None else None
    side = Side(assume_crs=crs, tiles=tiles, max_side=args.max_side)
    kind = kind_of(path)
    if kind == "polygons":
        from torchfpn.vectors.objects import read_objects

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
    elif kind == "labels":
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


def _refuse_labels(args: argparse.Namespace, jobs: "Sequence[Job]", sides: "Sequence[Side]") -> None:
    """Passes pictures that overwrite none of the label files, whatever `--overwrite` says."""
    from torchfpn.errors import ConfigError

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
        told={value for side in sides for value in side.ignored()},
        burn=args.burn,
        maps=any(side.maps for side in sides),
        present=lambda: {value for side in sides for value in side.values()},
    )
    if args.background is not None and args.background not in found.names:
        hint = nearest(args.background, found.names)
        raise ConfigError(f'no class "{args.background}"', field="--background", hint=hint)
    return found


def _window(text: str | None) -> "Window | None":
    from torchfpn.errors import ConfigError
    from torchfpn.files.geo import Window

    if text is None:
        return None
    words = listed(text)
    if len(words) != 4 or not all(word.isdecimal() for word in words):
        raise ConfigError(f'"{text}"', field="--window", allowed="row,column,height,width in pixels")
    return Window(*(int(word) for word in words))
