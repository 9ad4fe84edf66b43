"""`splits:`, `polygons:` and `tiles:` of a dataset.yaml, and the pairs of files and problems that follow from them."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from torchfpn.classes import Class
from torchfpn.errors import ConfigError, DataError, nearest
from torchfpn.io.formats import on_disk, printable
from torchfpn.io.yaml_json import Fields, is_whole

SHOWN = 20  # bad files that a message names

_BACKGROUND = "background"

_PIXEL_KEYS = ("background", "all_touched", "border", "border_class")  # not allowed for objects

_MAX_BORDER = 1000  # pixels

_OBJECT_FILE_KEYS = ("background", "overlaps", "objects_are", "object_polygons", "labels_are", "ignore_color")

_SHOWN_CLASSES = 6  # classes that a message names

_SINGULAR = {
    "annotations": "annotation",
    "areas": "area",
    "boxes cut": "box cut",
    "categories": "category",
    "images": "image",
    "polygons": "polygon",
    "segments": "segment",
}

_PATH_KEYS = ("images", "labels", "list", "annotations", "panoptic", "objects")

WITHOUT_CLASS = ("error", "ignore", "skip")

Paths = str | tuple[str, ...]  # a folder, a file, map tiles as "folder/{z}/{x}/{y}"; or several files


@dataclass(frozen=True)
class Split:
    """A split as dataset.yaml gives it; paths are relative to the root of the dataset.

    Attributes:
        images: files or folder.
        labels: files or folder; None if nothing is labelled.
        stems: file that lists the stems of the images (`list:`).
        annotations: COCO file that names images of the folder and their objects.
        panoptic: folder of the PNGs of panoptic annotations; None: the folder beside the file with its stem.
        objects: files or folder that tell the things of a panoptic dataset apart, beside `labels`.
    """

    images: Paths
    labels: Paths | None = None
    stems: str | None = None
    annotations: str | None = None
    panoptic: str | None = None
    objects: Paths | None = None


@dataclass(frozen=True)
class Pair:
    """An image and its labels.

    Attributes:
        image: the file.
        label: label image on the same grid, panoptic map, or file of polygons; None without labels.
        tiles: pattern by which the path tells the place of an image without georeference, as "{z}/{x}/{y}".
        annotations: COCO file with its objects.
        number: its index among the images of that file.
        objects: numbered mask, file of polygons or COCO file with the things of a panoptic dataset.
    """

    image: Path
    label: Path | None = None
    tiles: str | None = None
    annotations: Path | None = None
    number: int = 0
    objects: Path | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether there are labels of any kind."""
        return self.label is not None or self.annotations is not None or self.objects is not None


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used, and why in one line. fixable: `fix` would leave the bad part out."""

    file: Path
    line: str
    fixable: bool = False


class BadFilesError(DataError):
    """One or more problems of files."""

    def __init__(self, line: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(line)
        self.problems = tuple(problems)


def raise_problems(problems: list[Problem]) -> None:
    """Raises an error for problems, at most 20 of them by name; does nothing without problems.

    Raises:
        BadFilesError: there is a problem.
    """
    if problems:
        lines = [f"{printable(p.file)}: {p.line}" for p in problems[:SHOWN]]
        rest = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        hint = "; or leave them out with `fix: true` (or check --init --fix): `fpn check` says what would be lost"
        raise BadFilesError("; ".join(lines) + rest + hint * any(p.fixable for p in problems), problems)


def format_lost(lost: Mapping[str, tuple[int, int]]) -> str:
    """``; lost: 3 of 12 annotations of "fish"``; empty if nothing is lost."""
    parts = [f'{n:,} of {format_count(total, "annotations")} of "{name}"' for name, (n, total) in lost.items()]
    more = f" and of {len(parts) - _SHOWN_CLASSES} more" if len(parts) > _SHOWN_CLASSES else ""
    return f"; lost: {', '.join(parts[:_SHOWN_CLASSES])}{more}" if parts else ""


def format_counts(dropped: Mapping[str, int]) -> str:
    """``3 annotations, 1 image, 2 boxes cut``."""
    return ", ".join(format_count(count, what) for what, count in dropped.items())


def format_count(count: int, what: str) -> str:
    """``1 annotation`` or ``3 annotations``; `what` is the plural."""
    return f"{count:,} {_SINGULAR.get(what, what) if count == 1 else what}"


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """A sort key that orders numbers in names by value (a2 before a10)."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], name


def tile_parts(paths: Paths | None) -> tuple[str, str] | None:
    """Folder and pattern of map tiles: "a/{z}/{x}/{y}" -> ("a", "{z}/{x}/{y}"); None for other paths."""
    if not isinstance(paths, str) or not re.search(r"\{[xyz]\}", paths):
        return None
    parts = PurePosixPath(paths).parts
    return "/".join(parts[:-3]) or ".", "/".join(parts[-3:])


def parse_splits(fields: Fields) -> dict[str, Split]:
    """The splits under `splits:`, or those that ``{split}`` in `images:` and `labels:` finds.

    Raises:
        ConfigError: none, unknown keys, or a path that is absolute or leads upwards.
    """
    images, labels, objects = (_paths(fields, key) for key in ("images", "labels", "objects"))
    every = Split(images or "", labels, None, fields.text("annotations"), fields.text("panoptic"), objects)
    if fields.raw("splits") is None:
        if images is None:
            raise ConfigError(
                "no splits", file=fields.file, field="splits", allowed="train: {images: ..., labels: ...}"
            )
        return _pattern_splits(fields, every)
    splits = {}
    for name in fields.inner("splits").values:
        splits[str(name)] = _parse_split(fields.inner("splits"), name, every)
    if not splits:
        raise fields.wrong("splits", {}, "at least one, as train: {images: ..., labels: ...}")
    return splits


def _parse_split(parent: Fields, name: str, every: Split) -> Split:
    """One split. every: what the keys for all splits say, with ``{split}``."""
    value = parent.raw(name)
    fields = Fields({} if value is None else value, parent.file, parent.path(str(name)))
    split = Split(
        _paths(fields, "images") or _filled(every.images, str(name)),
        _paths(fields, "labels") or (every.labels and _filled(every.labels, str(name))),
        fields.text("list"),
        fields.text("annotations") or (every.annotations and every.annotations.replace("{split}", str(name))),
        fields.text("panoptic") or (every.panoptic and every.panoptic.replace("{split}", str(name))),
        _paths(fields, "objects") or (every.objects and _filled(every.objects, str(name))),
    )
    fields.finish()
    if not split.images:
        raise fields.wrong("images", None, "a folder below the root of the dataset")
    for key in _PATH_KEYS:
        _check_inside(fields, key, getattr(split, "stems" if key == "list" else key))
    _check_annotated(fields, split)
    if split.stems and isinstance(split.images, tuple):
        raise fields.wrong("list", split.stems, "a folder to choose from; these images are listed already")
    return split


def _paths(fields: Fields, key: str) -> Paths | None:
    """A text, or a list of at least one."""
    value = fields.raw(key)
    if not isinstance(value, list):
        return fields.text(key)
    if not value or not all(isinstance(item, str) and item.strip() for item in value):
        raise fields.wrong(key, value, "a path, or a list of files")
    return tuple(value)


def _filled(paths: Paths, name: str) -> Paths:
    if isinstance(paths, tuple):
        return tuple(path.replace("{split}", name) for path in paths)
    return paths.replace("{split}", name)


def _check_annotated(fields: Fields, split: Split) -> None:
    """Refuses keys that contradict a COCO file, which names the images and their objects."""
    if split.annotations is None:
        if split.panoptic is not None:
            raise fields.wrong("panoptic", split.panoptic, "a folder of PNGs beside `annotations`, which explains them")
        return
    for key, value in (("labels", split.labels), ("list", split.stems), ("objects", split.objects)):
        if value is not None:
            raise fields.wrong(key, value, "nothing beside `annotations`, which names the images and labels them")
    if not isinstance(split.images, str) or tile_parts(split.images) is not None:
        raise fields.wrong("images", split.images, "a folder, where the files lie that `annotations` names")


def _pattern_splits(fields: Fields, every: Split) -> dict[str, Split]:
    """The splits that a pattern such as ``{split}/images`` finds on disk; one named "all" without ``{split}``.

    A split without labels on disk is unlabelled.
    """
    images, panoptic = every.images, every.panoptic
    for key in _PATH_KEYS:
        _check_inside(fields, key, getattr(every, "stems" if key == "list" else key))
    _check_annotated(fields, every)
    if "{split}" not in str(images):
        return {"all": every}
    parts = PurePosixPath(images).parts if isinstance(images, str) else ()
    if parts.count("{split}") != 1:
        raise fields.wrong("images", images, "{split} once, in place of a whole folder name")
    root = fields.file.parent / (fields.text("root") or ".")
    found = {}
    for folder in sorted(root.joinpath(*parts[: parts.index("{split}")]).glob("*")):
        given = (images, every.labels, every.annotations, every.objects)
        filled = [text and _filled(text, folder.name) for text in given]
        if not folder.name.startswith(".") and _is_there(root, filled[0] or ""):
            there = [text if text and _is_there(root, text) else None for text in filled[1:]]
            named = None if there[1] is None else str(there[1])
            maps = panoptic.replace("{split}", folder.name) if panoptic and named else None
            found[folder.name] = Split(filled[0] or "", there[0], None, named, maps, there[2])
    if not found:
        raise fields.wrong("images", images, "a pattern that fits folders on the disk")
    return found


def _is_there(root: Path, paths: Paths) -> bool:
    tiles = tile_parts(paths)
    if tiles is not None:
        return (root / tiles[0]).is_dir()
    return all(on_disk(root, path).exists() for path in ((paths,) if isinstance(paths, str) else paths))


def _check_inside(fields: Fields, key: str, paths: Paths | None) -> None:
    for path in (paths,) if isinstance(paths, str) else paths or ():
        pure = PurePosixPath(path.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", path):
            raise fields.wrong(key, path, "a path below the root of the dataset", "set `root:` to where the files lie")
        tiles = tile_parts(path)
        if tiles is not None and sorted(tiles[1].split("/")) != ["{x}", "{y}", "{z}"]:
            raise fields.wrong(
                key, path, "{z}, {x} and {y} once each as the last three folders, such as map/{z}/{x}/{y}"
            )


def check_panoptic_splits(fields: Fields, splits: dict[str, Split]) -> None:
    """Refuses splits in which things or stuff are not labelled, and keys of files of objects without such files.

    Raises:
        ConfigError: there is one.
    """
    for name, split in splits.items():
        if split.labels is not None and split.objects is None:
            field, hint = f"splits.{name}.objects", "name the numbered masks, polygons or COCO file of the things"
            raise ConfigError("nothing", file=fields.file, field=field, allowed="objects beside `labels`", hint=hint)
        if split.objects is not None and split.labels is None and fields.raw("background") is None:
            field, hint = f"splits.{name}.labels", "name masks or polygons of the stuff, or write `background: CLASS`"
            raise ConfigError("nothing", file=fields.file, field=field, allowed="labels beside `objects`", hint=hint)
    if any(split.objects is not None for split in splits.values()):
        return
    for key in _OBJECT_FILE_KEYS:
        if fields.raw(key) is not None:
            raise fields.wrong(key, fields.raw(key), "nothing without `objects`")


@dataclass(frozen=True)
class Polygons:
    """How polygons become labels (`polygons:`).

    Attributes:
        field: attribute with the class of a feature, by name or value; None: all features have one class.
        burn: index of that class; None if it is not known.
        background: index of the class of pixels without polygon; None: those pixels are not labelled.
        layer: of files with several layers.
        all_touched: label every pixel that a polygon touches, not only those whose centre lies in it.
        border: pixels beside outlines that are not labelled, or get `border_class`, to separate touching houses.
        border_class: index of the class of the border.
        buffer: metres around lines and points, which are refused without it.
        max_crossings: limit of the self-intersections of a polygon.
        assume_crs: coordinate system of files that declare none, such as "EPSG:32633".
        without_class: treatment of features whose `field` is empty: "error", "ignore" (pixels are not labelled,
            objects are crowds), or "skip" (as if they were not in the file).
    """

    field: str | None = None
    burn: int | None = None
    background: int | None = 0
    layer: str | None = None
    all_touched: bool = False
    border: float = 0.0
    border_class: int | None = None
    buffer: float | None = None
    max_crossings: int = 20_000
    assume_crs: str | None = None
    without_class: str = WITHOUT_CLASS[0]


def parse_polygons(
    fields: Fields,
    classes: tuple[Class, ...],
    *,
    objects: bool = False,
    key: str = "polygons",
    among: Sequence[int] | None = None,
) -> Polygons:
    """Parses `polygons:`, with defaults for missing keys.

    Args:
        fields: of the dataset.
        classes: of the dataset.
        objects: polygons are objects, not classes of pixels.
        key: where the settings stand.
        among: of panoptic datasets, the indices of the things or of the stuff: polygons without `field` are of the only
            one. Pixels without polygon are left to `background:` of the dataset.

    Raises:
        ConfigError: an unknown key or class, a number out of range, both `field` and `class`.
    """
    inner = Fields(fields.raw(key) or {}, fields.file, key)
    field, given = inner.text("field"), inner.raw("class")
    if field is not None and given is not None:
        raise inner.wrong("class", given, "nothing beside `field`, which gives each feature its class")
    burn = class_index(inner, "class", given, classes)
    if burn is None and field is None:
        burn = _only_class(len(classes), among, objects=objects)
    for name in _PIXEL_KEYS if objects else ():
        if inner.raw(name) is not None:
            raise inner.wrong(name, inner.raw(name), "nothing where polygons are objects")
    found = Polygons(
        field=field,
        burn=burn,
        background=_background(inner, classes, field, burn, panoptic=among is not None),
        layer=inner.text("layer"),
        all_touched=inner.flag("all_touched"),
        border=_number(inner, "border", 0, _MAX_BORDER, f"0 to {_MAX_BORDER} pixels") or 0.0,
        border_class=class_index(inner, "border_class", inner.raw("border_class"), classes),
        buffer=_number(inner, "buffer", math.ulp(0), 1e6, "metres, more than 0"),
        max_crossings=_crossings(inner),
        assume_crs=inner.text("assume_crs"),
        without_class=inner.choice("without_class", WITHOUT_CLASS) or WITHOUT_CLASS[0],
    )
    inner.finish()
    if found.border_class is not None and not found.border:
        raise inner.wrong("border_class", inner.raw("border_class"), "nothing without `border`, the pixels it is of")
    if fields.raw(key) is not None and field is None and burn is None:
        hint = "name the attribute that gives the class (field), or the class of all polygons (class)"
        raise inner.wrong("field", None, f"one of them, as there are {len(classes)} classes", hint)
    return found


def _only_class(classes: int, among: Sequence[int] | None, *, objects: bool) -> int | None:
    """The class of polygons of which nothing says it; None where it may be one of several.

    The first of two classes is the background; objects have no background.
    """
    if among is not None:
        return among[0] if len(among) == 1 else None
    return min(1, classes - 1) if classes <= (1 if objects else 2) else None


def parse_object_polygons(fields: Fields, classes: tuple[Class, ...], things: list[int] | None) -> Polygons:
    """Parses `object_polygons:` of a panoptic dataset; by default it is `polygons:`, if that has a `field`.

    Args:
        fields: of the dataset.
        classes: of the dataset.
        things: indices of those whose objects are told apart; None: no panoptic dataset.

    Raises:
        ConfigError: see `parse_polygons`.
    """
    if things is None:
        return Polygons()
    shared = fields.raw("polygons")
    if fields.raw("object_polygons") is None and isinstance(shared, dict) and shared.get("field") is not None:
        shown = {key: value for key, value in shared.items() if key not in _PIXEL_KEYS}
        return parse_polygons(Fields({"polygons": shown}, fields.file), classes, objects=True, among=things)
    return parse_polygons(fields, classes, objects=True, key="object_polygons", among=things)


def parse_tiles(fields: Fields) -> str | None:
    """Parses `tiles:`, the pattern by which paths of images tell their place on a web map.

    Raises:
        ConfigError: it does not contain z, x and y once each.
    """
    pattern = fields.text("tiles")
    if pattern is not None and sorted(re.findall(r"\{(.*?)\}", pattern)) != ["x", "y", "z"]:
        raise fields.wrong("tiles", pattern, "{z}, {x} and {y} once each, such as {z}/{x}/{y} or town-{x}-{y}-{z}")
    return pattern


def _background(
    inner: Fields, classes: tuple[Class, ...], field: str | None, burn: int | None, *, panoptic: bool
) -> int | None:
    """The background class as given; else the first class, or with `field` the class named background, if any.

    With `field` every class may have polygons, so the first need not be the background. In panoptic datasets
    `background:` of the dataset is for all labels.
    """
    given = inner.raw("background")
    if given is not None and panoptic:
        raise inner.wrong("background", given, "nothing with `task: panoptic`", "write it without indentation")
    if given is False or panoptic:
        return None
    if given is not None:
        return class_index(inner, "background", given, classes)
    if field is None:
        return 0 if burn != 0 else None
    return next((i for i, c in enumerate(classes) if c.name.lower() == _BACKGROUND), None)


def class_index(inner: Fields, key: str, given: Any, classes: tuple[Class, ...]) -> int | None:
    """The index of a class given by its name or its value."""
    if given is None:
        return None
    for i, c in enumerate(classes):
        if given == c.name or (is_whole(given) and given == c.id):
            return i
    hint = nearest(given, [c.name for c in classes]) if isinstance(given, str) else None
    also = ", or false: not labelled" if key == "background" else ""
    raise inner.wrong(key, given, f"the name or the value of one of the classes{also}", hint)


def _crossings(inner: Fields) -> int:
    given = inner.raw("max_crossings")
    if given is None:
        return Polygons.max_crossings
    if not is_whole(given) or given < 0:
        raise inner.wrong("max_crossings", given, "a whole number from 0")
    return int(given)


def _number(inner: Fields, key: str, low: float, high: float, allowed: str) -> float | None:
    value = inner.number(key)
    if value is not None and not low <= value <= high:
        raise inner.wrong(key, value, allowed)
    return value
