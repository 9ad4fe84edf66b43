"""Flags: those that have no effect on a kind of input are refused by name; deprecated spellings are accepted.

`HOLD` says for every verb which flags its kinds of input read; a verb that is not in it reads all of its flags always.
`--json`, `--out`, `--overwrite` and the like, which say where results go, hold everywhere and are not listed.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

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
