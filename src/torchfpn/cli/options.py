"""Options that several verbs share, and options that hold for some inputs only.

The images of a split as a model wants to see them, for fpn evaluate.

Flags: those that have no effect on a kind of input are refused by name; deprecated spellings are accepted.

`HOLD` says for every verb which flags its kinds of input read; a verb that is not in it reads all of its flags always.
`--json`, `--out`, `--overwrite` and the like, which say where results go, hold everywhere and are not listed.

What the flags of fpn predict mean, checked as far as that can be done before the first image.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.geo.window import SIDE

if TYPE_CHECKING:
    from torchfpn.inference.semantic import Options
    from torchfpn.inference.windows import Streaming
    from torchfpn.tasks.task import Task


NAMED = ("field", "without_class")  # what tells the class of a feature

PLACED = ("layer", "truth_layer", "assume_crs", "tiles")  # where polygons lie

OF_PIXELS = (
    *("probabilities", "tile_size", "margin", "blend", "batch_size", "mosaic", "resume", "max_side"),
)  # of large rasters

OF_MODELS = ("split", "device", "precision", "accept_dtype")

HOLD: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "predict": {
        "a semantic model": OF_PIXELS,
        "a detection model": ("min_score",),
    },
    "rasterize": {
        "polygons of one class": ("burn",),
        "polygons with classes of their own": ("without_class",),
    },
    "evaluate": {
        "a semantic model on label files": (*OF_MODELS, "no_boundary"),
        "a semantic model on polygons": (*OF_MODELS, "no_boundary", "iou"),
        "a detection model": (*OF_MODELS, "max_detections"),
        "COCO results": ("max_detections",),
        "label files against label files": ("classes", "ignore", "max_side"),
        "label files against polygons": (
            *("classes", "ignore", "iou", "min_area", *NAMED, "truth_field", "max_side", *PLACED),
        ),
        "polygons against polygons": (
            *("classes", "iou", "min_area", *NAMED, "truth_field", "score_field", "within"),
            *("layer", "truth_layer", "assume_crs"),
        ),
        "polygons within an area": (
            *("classes", "iou", "min_area", *NAMED, "truth_field", "score_field", "within", *PLACED),
        ),
    },
    "compare": {
        "label files alone": ("ignore",),
        "label files on both sides": ("ignore", "background", "worst"),
        "polygons on one side alone": ("ignore", *NAMED, "burn", *PLACED),
        "polygons on one of two sides": ("ignore", "background", "worst", *NAMED, "burn", *PLACED),
    },
    "polygons": {
        "a label raster": ("min_pixels", "allow_vrt", "max_side"),
        "a file of polygons": (*NAMED, "layer"),
    },
    "check": {
        "--init": ("init", "palette", "fix"),
        "a dataset of label files": ("sheet", "palette", "max_pixels", "allow_vrt", "json"),
        "a dataset of objects": ("sheet", "fix", "max_pixels", "allow_vrt", "json"),
    },
}


def add_without_class(parser: "argparse._ActionsContainer") -> None:
    """The flag of verbs that read polygons as objects; `fpn rasterize` knows a third way."""
    text = "features without a class: an error, or left out and counted"
    parser.add_argument("--without-class", choices=("error", "skip"), default="error", help=text)


def accept_old_spelling(parser: "argparse._ActionsContainer", old: str, flag: argparse.Action) -> None:
    """Accepts a deprecated spelling of a flag: hidden from the help, with the same effect and a line on stderr.

    Args:
        parser: the parser or group that `flag` was added to.
        old: the deprecated spelling, "--least".
        flag: the flag, which takes one value.
    """

    class Deprecated(argparse.Action):
        def __call__(
            self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
        ) -> None:
            print(f"fpn: `{old}` is deprecated; use `{flag.option_strings[0]}`", file=sys.stderr)
            flag(parser, namespace, values, option)

    parser.add_argument(
        old,
        action=Deprecated,
        dest=flag.dest,
        type=flag.type or str,
        choices=flag.choices,
        default=flag.default,
        help=argparse.SUPPRESS,
    )


def refuse_idle(args: argparse.Namespace, verb: str, kind: str) -> None:
    """Passes arguments in which no flag is given that changes nothing for this kind of input.

    args: as parsed; `args.usual` holds the value that each flag has by itself. kind: one of `HOLD[verb]`.

    Raises:
        ConfigError: the first such flag.
    """
    from torchfpn.errors import ConfigError

    known = {name for names in HOLD[verb].values() for name in names}
    for name in args.usual:
        if name in known and name not in HOLD[verb][kind] and getattr(args, name) != args.usual[name]:
            raise ConfigError(f"has no effect on {kind}", field=f"--{name.replace('_', '-')}", hint="leave it out")


@contextlib.contextmanager
def of_one_layer() -> Iterator[None]:
    """Inside, a file is read in which `--layer`, which is of another file, chooses nothing.

    Raises:
        DataError: it has several layers; what to do, instead of "choose one with --layer".
    """
    from torchfpn.errors import DataError

    try:
        yield
    except DataError as error:
        if "--layer" not in (error.hint or ""):
            raise
        cure = "write the one you mean to a file of its own: ogr2ogr ONE.gpkg FILE LAYER"
        raise DataError(error.found, file=error.file, field=error.field, hint=cure) from error


def once(names: list[str], field: str) -> list[str]:
    """The names of classes that a flag gives, each of them once.

    Raises:
        ConfigError: one is empty, or is there twice.
    """
    from torchfpn.errors import ConfigError

    for name in names:
        if not name:
            raise ConfigError("an empty name", field=field, allowed="names with commas between them")
        if names.count(name) > 1:
            raise ConfigError(f'"{name}" twice', field=field, allowed="each class once")
    return names


def check_flags(args: argparse.Namespace) -> None:
    """Passes flags that can be, alone and together; neither the model nor a source is looked at.

    Raises:
        ConfigError: a flag that cannot be, that says nothing without another, or two that contradict each other.
    """
    from torchfpn.errors import ConfigError, require

    if args.polygons:
        require("raster", "--polygons")
    for name in ("vectorize", "min_pixels", "simplify"):
        if getattr(args, name) and not args.polygons:
            raise ConfigError(
                f"{getattr(args, name)}", field=f"--{name.replace('_', '-')}", allowed="to come with --polygons"
            )
    for name in ("min_pixels", "simplify", "max_pixels", "max_side"):
        if not 0 <= getattr(args, name) < float("inf"):
            raise ConfigError(f"{getattr(args, name)}", field=f"--{name.replace('_', '-')}", allowed="a number from 0")
    _check_windows(args)


def _check_windows(args: argparse.Namespace) -> None:
    """Raises the ConfigError of `check_flags` for flags of large rasters."""
    from torchfpn.errors import ConfigError

    if args.margin != "exact" and not args.margin.isdecimal():
        raise ConfigError(f'"{args.margin}"', field="--margin", allowed='pixels from 0, or "exact"')
    if args.batch_size is not None and args.batch_size < 1:
        raise ConfigError(f"{args.batch_size}", field="--batch-size", allowed="a number from 1")
    if args.tile_size is not None and args.tile_size < 1:
        raise ConfigError(f"{args.tile_size}", field="--tile-size", allowed="pixels from 1")
    if args.resume and args.overwrite:
        raise ConfigError("--resume and --overwrite", allowed="one of them: continue, or start over")
    side = args.tile_size or SIDE
    if args.blend and args.margin != "exact" and not 1 <= int(args.margin) <= side // 2:
        allowed = f"1 to {side // 2}, half a tile, with --blend"
        raise ConfigError(args.margin, field="--margin", allowed=allowed, hint="give --margin, or a larger --tile-size")


def options_of(args: argparse.Namespace) -> "Options":
    """How sources are read, and what is made of each.

    Raises:
        ConfigError: a flag that cannot be, or that says nothing without another.
    """
    words = [word.strip() for word in args.bands.split(",")] if args.bands else []
    classes = None if args.vectorize is None else [word.strip() for word in args.vectorize.split(",")]
    classes = classes and once(classes, "--vectorize")
    crs, tiles = _crs(args.assume_crs) if args.assume_crs else None, _tiles(args)

    from torchfpn.inference.semantic import Options  # imports torch: after everything that can be refused

    return Options(
        probabilities=args.probabilities,
        polygons=args.polygons,
        outlined=classes,
        least=args.min_pixels,
        simplify=args.simplify,
        assume_crs=crs,
        tiles=tiles,
        bands=[int(word) if word.isdigit() else word for word in words] or None,
        accept_dtype=args.accept_dtype,
        allow_vrt=args.allow_vrt,
        max_pixels=args.max_pixels,
        max_side=args.max_side,
        precision=args.precision,
    )


def _tiles(args: argparse.Namespace) -> str | None:
    """How paths of tiles end; as in folders of tiles, where one of those is to become a mosaic."""
    from torchfpn.geo.tiles import check_pattern
    from torchfpn.sources.mosaic import PATTERN, is_tile_map

    if args.tiles is None:
        return PATTERN if args.mosaic and any(is_tile_map(Path(source)) for source in args.sources) else None
    return check_pattern(args.tiles)


def with_model_tiles(options: "Options", task: "Task", sources: Sequence[str]) -> "Options":
    """The options with the pattern of tiles that the model learnt, where `--tiles` is not given; it is said if it fits.

    Raises:
        ConfigError: the model's pattern is none.
    """
    from dataclasses import replace

    from torchfpn.geo.tiles import is_tile
    from torchfpn.inference.jobs import find_sources
    from torchfpn.inference.semantic import tiles_of

    pattern = tiles_of(task)
    if pattern is None or options.tiles is not None:
        return options
    if any(is_tile(source, pattern) for source in find_sources(sources, tiles=True)):
        print(f'files without a georeference are located by their paths, "{pattern}", as in training (--tiles)')
    return replace(options, model_tiles=pattern)


def streaming_of(args: argparse.Namespace) -> "Streaming":
    """How large rasters are cut into windows.

    Raises:
        ConfigError: a flag that cannot be, or two that contradict each other.
    """
    from torchfpn.inference.journal import fingerprint
    from torchfpn.inference.windows import Streaming

    return Streaming(
        fingerprint(args.model) if args.model.is_file() else "",
        side=args.tile_size or SIDE,
        margin=None if args.margin == "exact" else int(args.margin),
        blend=args.blend,
        batch=args.batch_size or 1,
        resume=args.resume,
        anew=args.overwrite,
        always=args.tile_size is not None or args.blend,
    )


def _crs(text: str) -> str:
    """Well-known text of "EPSG:32759" and the like."""
    from torchfpn.errors import ConfigError
    from torchfpn.io.rasters import import_rasterio

    rasterio = import_rasterio()
    try:
        return str(rasterio.crs.CRS.from_user_input(text).to_wkt())
    except rasterio.errors.CRSError as error:
        raise ConfigError(
            f'"{text}"', field="--assume-crs", allowed="a coordinate system, such as EPSG:4326"
        ) from error
