"""Turns a label raster, or a vector file, into clean polygons: merged, with right angles, filtered.

  fpn polygons labels.tif buildings.gpkg --vectorize building --square
  fpn polygons labels.tif fields.geojson --min-pixels 20 --simplify 1
  fpn polygons buildings.gpkg new.gpkg --merge 0.5 --min-area 8 --exclude cadastre.geojson

SOURCE is a label raster of any size (classes and nodata from its tags) or GeoJSON, GeoPackage, FlatGeobuf, Shapefile.
OUT is .gpkg or .fgb, in the coordinate system of SOURCE, or .geojson, in longitude and latitude. Each polygon has
class, class_id, area in square metres on the ground and, where SOURCE has it, score.
"""

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from torchfpn.cli.options import accept_old_spelling, add_without_class, once, refuse_unused
from torchfpn.errors import amount

if TYPE_CHECKING:
    from torchfpn.sources.layers import PolygonLayer
    from torchfpn.vector.regularize import CleanCounts, CleanOptions


KINDS = (".geojson", ".gpkg", ".fgb")

REMOTE = ("/vsi", "http:/", "https:/", "ftp:/", "s3:/", "gs:/")

SHARE = 0.5  # of a polygon that a known layer covers more than

OFF = 1.5, 0.5  # how far walls may be off with --square alone: pixels of a raster, metres of a vector file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a label raster, or a file of polygons")
    parser.add_argument("out", type=Path, metavar="OUT", help=f"output file: {', '.join(KINDS)}")
    vectorize = parser.add_argument("--vectorize", metavar="CLASSES", help="classes to vectorize; default: all")
    pixels = parser.add_argument(
        "--min-pixels", type=float, default=0.0, metavar="N", help="smallest polygon or hole of a raster, in pixels"
    )
    area = parser.add_argument(
        "--min-area", type=float, default=0.0, metavar="M2", help="smallest polygon written, in square metres"
    )
    parser.add_argument(
        "--simplify",
        type=float,
        default=0.0,
        metavar="N",
        help="tolerance of the simplification: pixels of a raster, metres of a vector file",
    )
    parser.add_argument("--square", action="store_true", help="make right angles, for buildings")
    parser.add_argument(
        "--merge", type=float, default=0.0, metavar="METRES", help="merge polygons of a class that lie closer than this"
    )
    exclude = parser.add_argument(
        "--exclude", type=Path, metavar="LAYER", help="leave out polygons that this vector file already covers"
    )
    overlap = parser.add_argument(
        "--exclude-overlap", type=float, metavar="SHARE", help="covered share from which they are left out; default 0.5"
    )
    parser.add_argument("--field", metavar="NAME", help='attribute of a vector file with the class; default "class"')
    add_without_class(parser)
    parser.add_argument("--layer", metavar="NAME", help="layer of a GeoPackage with several")
    parser.add_argument("--assume-crs", metavar="EPSG:N", help="coordinate system of files without one")
    parser.add_argument("--allow-vrt", action="store_true", help="read a VRT whose files lie below its own folder")
    parser.add_argument("--max-side", type=int, default=2**20, metavar="N", help="largest height or width of a raster")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    for old, flag in (
        ("--outlined", vectorize),
        ("--least", pixels),
        ("--least-area", area),
        ("--known", exclude),
        ("--known-overlap", overlap),
    ):
        accept_old_spelling(parser, old, flag)


def run(args: argparse.Namespace) -> int:
    """0 done; 2 bad input."""
    from torchfpn.geo.crs import crs_wkt
    from torchfpn.io.formats import is_vector
    from torchfpn.sources.layers import open_layer
    from torchfpn.vector.regularize import CleanCounts

    _check(args)
    counts, raster = CleanCounts(), not is_vector(args.source)
    with open_layer(
        args.source,
        classes=once([word.strip() for word in args.vectorize.split(",")], "--vectorize") if args.vectorize else None,
        min_pixels=args.min_pixels,
        simplify=0.0 if args.square else args.simplify,  # else neighbours share their borders before some get walls
        field=args.field,
        layer=args.layer,
        assume_crs=crs_wkt(args.assume_crs) if args.assume_crs else None,
        allow_vrt=args.allow_vrt,
        max_side=args.max_side,
        skip_unclassed=args.without_class == "skip",
    ) as layer:
        _write(args, layer, _wishes(args, layer, raster), counts)
    print(_summary(args, layer, counts))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Passes numbers and files that can be.

    Raises:
        ConfigError: what cannot.
    """
    from torchfpn.errors import ConfigError, DataError
    from torchfpn.io.formats import is_vector, printable

    for name in ("min_pixels", "min_area", "simplify", "merge"):
        if not 0 <= getattr(args, name) < math.inf:
            raise ConfigError(f"{getattr(args, name)}", field=f"--{name.replace('_', '-')}", allowed="a number from 0")
    if args.exclude_overlap is not None and not 0 <= args.exclude_overlap < 1:
        raise ConfigError(f"{args.exclude_overlap}", field="--exclude-overlap", allowed="a share from 0, below 1")
    if args.exclude_overlap is not None and args.exclude is None:
        raise ConfigError("a share of no layer", field="--exclude-overlap", hint="give the layer with --exclude")
    if is_vector(args.source) and args.min_pixels:
        raise ConfigError("pixels of a vector file", field="--min-pixels", hint="give --min-area in square metres")
    refuse_unused(args, "polygons", "a file of polygons" if is_vector(args.source) else "a label raster")
    for path in (args.source, args.exclude):
        if path is not None and not path.exists():
            remote = str(path).startswith(REMOTE)
            hint = "remote paths are not read; give a copy on this machine" if remote else None
            raise DataError("no such file", file=printable(path), hint=hint)
    _check_out(args)


def _check_out(args: argparse.Namespace) -> None:
    from torchfpn.cli.console import make_output_folder
    from torchfpn.errors import ConfigError
    from torchfpn.io.formats import printable

    out = printable(args.out)
    if args.out.suffix not in KINDS:
        raise ConfigError("unknown extension of a vector file", file=out, field="OUT", allowed=", ".join(KINDS))
    if os.path.realpath(args.out) in {os.path.realpath(path) for path in (args.source, args.exclude) if path}:
        raise ConfigError("is also an input", file=out, field="OUT")
    if not args.overwrite and (args.out.exists() or args.out.is_symlink()):
        raise ConfigError("already exists", file=out, field="OUT", hint="replace it with --overwrite")
    make_output_folder(args.out.parent)


def _wishes(args: argparse.Namespace, layer: "PolygonLayer", raster: bool) -> "CleanOptions":
    from torchfpn.geo.crs import crs_wkt
    from torchfpn.vector.objects import of_one_layer, read_objects
    from torchfpn.vector.regularize import CleanOptions, Exclusion

    known = None
    if args.exclude is not None:
        assumed = crs_wkt(args.assume_crs) if args.assume_crs else None
        with of_one_layer():
            vectors = read_objects(args.exclude, field="", score="", assume_crs=assumed)
        known = Exclusion(vectors, layer.crs, layer.tolerance)
    return CleanOptions(
        merge=args.merge,
        square=max(args.simplify, OFF[0 if raster else 1]) if args.square else 0.0,
        simplify=args.simplify if args.square or not raster else 0.0,
        pixel=layer.pixel,
        min_area=args.min_area,
        exclude=known,
        share=SHARE if args.exclude_overlap is None else args.exclude_overlap,
    )


def _write(args: argparse.Namespace, layer: "PolygonLayer", wishes: "CleanOptions", counts: "CleanCounts") -> None:
    from torchfpn.inference.outputs import write_features
    from torchfpn.vector.regularize import CleanOptions, clean, features_in_lon_lat

    turned = args.out.suffix == ".geojson"  # also what is in degrees: cut at 180, rounded, within -180..180
    plain = CleanOptions(pixel=wishes.pixel, share=wishes.share)
    at_once = turned and layer.pixel > 0 and wishes == plain  # nothing to be done in between
    given = layer.features("degrees" if at_once else "map", turned)
    features = clean(given, layer.crs, wishes, counts, tolerance=layer.tolerance, file=args.source)
    if turned and not at_once:
        features = features_in_lon_lat(features, layer.crs, layer.decimals, layer.tolerance, args.source)
    multi = layer.multi or wishes.merge > 0
    write_features(args.out, features, crs=layer.crs, scored=layer.scored, multi=multi)


def _summary(args: argparse.Namespace, layer: "PolygonLayer", counts: "CleanCounts") -> str:
    from torchfpn.io.formats import printable

    words = [amount(counts.given, "feature")]
    for count, what in (
        (layer.mended, "with invalid rings, repaired"),
        (layer.lost, "without an area, left out"),
        (layer.unclassed, "without a class, left out"),
        (counts.merged if args.merge else None, "merged into others"),
        (counts.squared if args.square else None, "with right angles"),
        (counts.small if args.min_area else None, f"below {args.min_area:g} m2"),
        (counts.known if args.exclude else None, "known"),
    ):
        if count or (count == 0 and what in ("known", "merged into others", "with right angles")):
            words.append(f"{count:,} {what}")
    return f"{printable(args.out)}  {', '.join(words)}, {counts.left:,} written"
