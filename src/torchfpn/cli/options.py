"""Flags that several verbs share, and flags that some kinds of input alone use.

`USED_BY` lists for each verb which flags its kinds of input use; a verb that is not in it uses all of its flags always.
Those of `fpn evaluate` stand in `torchfpn.evaluation.options`.
Flags that say where results go, such as `--json`, `--out` and `--overwrite`, are used always and not listed.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

CLASS_FLAGS = ("field", "without_class")
PLACE_FLAGS = ("layer", "truth_layer", "assume_crs", "tiles")
TILING_FLAGS = ("probabilities", "tile_size", "margin", "blend", "batch_size", "mosaic", "resume", "max_side")

USED_BY: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "predict": {
        "a semantic model": TILING_FLAGS,
        "a detection model": ("min_score",),
        "a panoptic model": (),
    },
    "rasterize": {
        "polygons of one class": ("burn",),
        "polygons with classes of their own": ("without_class",),
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


def listed(text: str | None) -> list[str]:
    """Words between commas."""
    return [word.strip() for word in text.split(",")] if text else []


def named_values(text: str | None) -> dict[int, str]:
    """Value -> name of "land,water" (the values 0, 1, ...) or "0=land,255=water".

    Raises:
        ConfigError: a value that is no number, or twice.
    """
    from torchfpn.errors import ConfigError

    words = listed(text)
    if not any("=" in word for word in words):
        return dict(enumerate(once(words, "--classes")))
    pairs = [word.partition("=")[::2] for word in words]
    if not all(value.strip().isdecimal() and name.strip() for value, name in pairs):
        raise ConfigError(f'"{text}"', field="--classes", allowed="names of 0, 1, ..., or 0=land,255=water")
    named = {int(value): name.strip() for value, name in pairs}
    if len(named) < len(pairs):
        raise ConfigError(f'a value twice in "{text}"', field="--classes")
    once(list(named.values()), "--classes")
    return named


def ignored_values(text: str | None) -> list[int] | None:
    """The numbers of "0,255"; None for None.

    Raises:
        ConfigError: something else.
    """
    from torchfpn.errors import ConfigError

    words = listed(text)
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f'"{text}"', field="--ignore", allowed="whole numbers with commas between them")
    return [int(word) for word in words] if text is not None else None
