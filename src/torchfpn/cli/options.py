"""Flags that several verbs share, and flags that some kinds of input alone use.

`USED_BY` lists for each verb which flags its kinds of input use; a verb that is not in it uses all of its flags always.
Flags that say where results go, such as `--json`, `--out` and `--overwrite`, are used always and not listed.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

CLASS_FLAGS = ("field", "without_class")
PLACE_FLAGS = ("layer", "truth_layer", "assume_crs", "tiles")
TILING_FLAGS = ("probabilities", "tile_size", "margin", "blend", "batch_size", "mosaic", "resume", "max_side")
MODEL_FLAGS = ("split", "device", "precision", "accept_dtype")

USED_BY: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "predict": {
        "a semantic model": TILING_FLAGS,
        "a detection model": ("min_score",),
    },
    "rasterize": {
        "polygons of one class": ("burn",),
        "polygons with classes of their own": ("without_class",),
    },
    "evaluate": {
        "a semantic model on label files": (*MODEL_FLAGS, "no_boundary"),
        "a semantic model on polygons": (*MODEL_FLAGS, "no_boundary", "iou"),
        "a detection model": (*MODEL_FLAGS, "max_detections"),
        "COCO results": ("max_detections",),
        "label files against label files": ("classes", "ignore", "max_side"),
        "label files against polygons": (
            *("classes", "ignore", "iou", "min_area", *CLASS_FLAGS, "truth_field", "max_side", *PLACE_FLAGS),
        ),
        "polygons against polygons": (
            *("classes", "iou", "min_area", *CLASS_FLAGS, "truth_field", "score_field", "within"),
            *("layer", "truth_layer", "assume_crs"),
        ),
        "polygons within an area": (
            *("classes", "iou", "min_area", *CLASS_FLAGS, "truth_field", "score_field", "within", *PLACE_FLAGS),
        ),
    },
    "compare": {
        "label files alone": ("ignore",),
        "label files on both sides": ("ignore", "background", "worst"),
        "polygons on one side alone": ("ignore", *CLASS_FLAGS, "burn", *PLACE_FLAGS),
        "polygons on one of two sides": ("ignore", "background", "worst", *CLASS_FLAGS, "burn", *PLACE_FLAGS),
    },
    "polygons": {
        "a label raster": ("min_pixels", "allow_vrt", "max_side"),
        "a file of polygons": (*CLASS_FLAGS, "layer"),
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


def refuse_unused(args: argparse.Namespace, verb: str, kind: str) -> None:
    """Refuses flags that have no effect on a kind of input.

    args: as parsed; `args.usual` holds the defaults. kind: one of `USED_BY[verb]`.

    Raises:
        ConfigError: the first such flag.
    """
    from torchfpn.errors import ConfigError

    known = {name for names in USED_BY[verb].values() for name in names}
    for name in args.usual:
        if name in known and name not in USED_BY[verb][kind] and getattr(args, name) != args.usual[name]:
            raise ConfigError(f"has no effect on {kind}", field=f"--{name.replace('_', '-')}", hint="leave it out")


@contextlib.contextmanager
def of_one_layer() -> Iterator[None]:
    """Inside, a file is read to which `--layer` does not apply: errors about several layers get another hint."""
    from torchfpn.errors import DataError

    try:
        yield
    except DataError as error:
        if "--layer" not in (error.hint or ""):
            raise
        cure = "write the one you mean to a file of its own: ogr2ogr ONE.gpkg FILE LAYER"
        raise DataError(error.found, file=error.file, field=error.field, hint=cure) from error


def once(names: list[str], field: str) -> list[str]:
    """The names of classes that a flag gives.

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
