"""Builds a panoptic dataset, COCO panoptic annotations with a dataset.yaml, from objects and labels of pixels.

  fpn panoptic-from town --instances "town/{split}/houses.geojson" --things house --background ground --out new
  fpn panoptic-from images --instances numbers --things cell --semantic masks --stuff 0:plate,1:medium --out new
  fpn panoptic-from instances.yaml --background background --out new

INPUT is a folder of images, a folder with train/images, val/images or images/train, or a dataset with its dataset.yaml,
whose labels are the objects (task: instance), the stuff (task: semantic) or both (task: panoptic). Objects are a COCO
file, numbered masks or polygons; stuff is masks or polygons, on which the objects lie. In paths, {split} is the name of
the split. Images stay where they are.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from torchfpn.cli.console import FileProgress
from torchfpn.errors import ConfigError, amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchfpn.data.annotation_formats.panoptic import WrittenSplit
    from torchfpn.data.config import DatasetConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("input", type=Path, metavar="INPUT", help="a folder of images, or a dataset")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--instances", metavar="PATH", help="objects: a COCO file, a file of polygons, a folder of those or of numbers"
    )
    parser.add_argument("--semantic", metavar="PATH", help="stuff: a folder of masks, a file or folder of polygons")
    parser.add_argument(
        "--things", metavar="NAMES", help="classes of the objects, A,B; VALUE:NAME where masks of --semantic hold them"
    )
    parser.add_argument("--stuff", metavar="NAMES", help="classes of --semantic, VALUE:NAME,...; or A,B of polygons")
    parser.add_argument("--background", metavar="NAME", help="class of all pixels that nothing labels")
    parser.add_argument(
        "--overlaps", choices=("smaller", "last"), default="smaller", help="of two objects, which is on top"
    )
    parser.add_argument("--components", action="store_true", help="each connected area of a numbered mask is an object")
    parser.add_argument("--instance-field", metavar="NAME", help="attribute with the class of polygons of --instances")
    parser.add_argument("--semantic-field", metavar="NAME", help="attribute with the class of polygons of --semantic")
    parser.add_argument("--ignore", metavar="VALUES", help="values of masks that are not labelled; default 255")
    parser.add_argument("--assume-crs", metavar="EPSG:N", help="coordinate system of files without one")
    parser.add_argument(
        "--tiles", metavar="PATTERN", help='pattern of tile paths, for images without a georeference: "{z}/{x}/{y}"'
    )
    parser.add_argument("--fix", action="store_true", help="leave out bad annotations")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(args: argparse.Namespace) -> int:
    """Writes the dataset; 2 if something cannot be used, and then nothing is written."""
    from torchfpn.data.annotation_formats.panoptic import write_panoptic
    from torchfpn.data.annotation_formats.panoptic_sources import PanopticSources, describe
    from torchfpn.io.atomic import check_local
    from torchfpn.io.formats import printable

    check_local(args.out)
    sources = PanopticSources(
        input=args.input,
        out=args.out,
        instances=args.instances,
        semantic=args.semantic,
        things=_names(args.things, "--things"),
        stuff=_names(args.stuff, "--stuff"),
        background=args.background,
        overlaps=args.overlaps,
        components=args.components,
        instance_field=args.instance_field,
        semantic_field=args.semantic_field,
        ignored=_values(args.ignore),
        assume_crs=args.assume_crs,
        tiles=args.tiles,
        fix=args.fix,
    )
    watch = FileProgress("writing", quiet=args.quiet)
    dataset = describe(sources)
    written = write_panoptic(dataset, args.out, overwrite=args.overwrite, watch=watch)
    _print(dataset, written)
    print(f"wrote {printable(args.out)}; next: fpn check {printable(args.out)} --sheet sheet.png")
    return 0


def _names(text: str | None, flag: str) -> dict[str, int | None] | None:
    """Value of each name, None where only the name is given; None without the flag."""
    if text is None:
        return None
    found: dict[str, int | None] = {}
    for part in text.split(","):
        value, colon, name = part.strip().partition(":")
        name = (name if colon else value).strip()
        if not name or (colon and not value.strip().isdecimal()):
            raise ConfigError(f'"{part.strip()}"', field=flag, allowed="names as A,B, or values and names as 1:A,4:B")
        if name in found:
            raise ConfigError(f'"{name}" twice', field=flag, allowed="each class once")
        found[name] = int(value) if colon else None
    return found


def _values(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f'"{text}"', field="--ignore", allowed="whole numbers, as 0,255") from error


def _print(dataset: "DatasetConfig", written: "Sequence[WrittenSplit]") -> None:
    """A table of the classes, and what people should know of the overlaps."""
    from rich.table import Table

    from torchfpn.cli.console import results_console

    table = Table()
    table.add_column("class")
    table.add_column("kind")
    for split in written:
        for head in (f"{split.name} objects", "pixels", "images"):
            table.add_column(head, justify="right")
    for i, c in enumerate(dataset.classes):
        cells = [
            cell
            for split in written
            for cell in (
                f"{split.objects.objects[i]:,}" if c.thing else "",
                f"{split.counts.pixels[i]:,}",
                f"{split.counts.images[i]:,}",
            )
        ]
        table.add_row(c.name, "thing" if c.thing else "stuff", *cells)
    results_console().print(table)
    top = "the smaller one" if dataset.overlaps == "smaller" else "the last one"
    for split in written:
        words = [amount(split.images, "image")]
        seen = split.counts.labelled + split.counts.ignored
        words += [f"{split.counts.ignored / seen:.2%} void"] if split.counts.ignored else []
        over, hidden = split.objects.overlapping, split.objects.hidden
        words += [f"objects overlap on {amount(over, 'pixel')}: {top} is on top"] if over else []
        words += [f"{amount(hidden, 'object')} covered by others, left out"] if hidden else []
        words += [f"{amount(split.objects.crowds, 'crowd')}"] if split.objects.crowds else []
        print(f"{split.name}: {', '.join(words)}")
