"""dataset.yaml -> DatasetConfig: which images, labels and classes a dataset has, read without opening an image.

docs/datasets.md describes the format. Importing this module loads neither numpy nor torch.
"""

import functools
import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torchfpn.classes import Class, parse_classes, parse_color, parse_things
from torchfpn.data.files import is_inside, match_pairs
from torchfpn.data.splits import (
    Pair,
    Polygons,
    Problem,
    Split,
    check_panoptic_splits,
    class_index,
    format_count,
    format_counts,
    format_lost,
    parse_object_polygons,
    parse_polygons,
    parse_splits,
    parse_tiles,
    raise_problems,
)
from torchfpn.errors import ConfigError, DataError, WeightsError, nearest
from torchfpn.io.formats import MAX_PIXELS, is_coco, on_disk
from torchfpn.io.yaml_json import Fields, is_whole, read_yaml
from torchfpn.recipe import IGNORE, Scaling
from torchfpn.types import Color

if TYPE_CHECKING:  # COCO files are read with numpy
    from torchfpn.data.labels.coco_annotations import Annotations, Coco
    from torchfpn.data.labels.coco_records import Category

NAME = "dataset.yaml"

SCALINGS = ("auto", "imagenet", "mean-std", "percentile")

TASKS = ("semantic", "detection", "instance", "panoptic")

_LABELS_ARE = ("values", "colors"), ("values", "components")  # of pixels, of objects

OVERLAPS = ("smaller", "last")  # which of two objects on one pixel is on top

_OF_PANOPTIC = ("things", "stuff", "background", "overlaps", "objects_are", "object_polygons")

SCENE_PIXELS = 2**22  # pixels; a larger TIFF is read by windows, never whole

VARIABLE = re.compile(r"\$\{(TORCHFPN_\w+)\}")  # environment variables in `root`

Band = int | str  # a band of the files: its number from 1, or its name


@dataclass(frozen=True)
class DatasetConfig:
    """A dataset.yaml, checked as far as possible without opening an image.

    Attributes:
        file: the dataset.yaml.
        root: the folder that all paths are relative to.
        task: "semantic", "detection", "instance" or "panoptic".
        classes: in the order of the class indices 0..K-1; of panoptic datasets things first.
        splits: by name.
        ignored: values in label files that mean "not labelled".
        bands: names of the bands in the files, in order; empty: as the files name them.
        use_bands: the bands that are read; empty: all.
        nodata: value of missing pixels in files that declare none.
        scaling: if the yaml gives the numbers, else None.
        scaling_method: how to find the scaling otherwise.
        labels_are: "values" or "colors"; for objects also "components".
        ignore_color: the color in label files that means "not labelled".
        max_pixels: limit of an image that is read whole.
        scene_pixels: TIFFs with more pixels are scenes, read by windows.
        polygons: how polygons become labels.
        tiles: pattern by which paths of images tell their place, for files without a georeference.
        fix: leave out bad annotations.
        grey_as_color: read images of one band as three equal bands.
        crowds: how annotations marked `iscrowd: 1` are read: "apart", or as "objects" like others.
        background: of panoptic datasets, index of the class of pixels without label or polygon; None: unknown.
        overlaps: which of two objects on one pixel is on top: the "smaller", or the "last" in the file.
        objects_are: "numbers", or "components": each connected area of a number is an object.
        object_polygons: the same as `polygons` for the files of objects of panoptic datasets.
        allow_vrt: whether VRT files may be opened; set by the caller, never by the yaml.
    """

    file: Path
    root: Path
    task: str
    classes: tuple[Class, ...]
    splits: dict[str, Split]
    ignored: tuple[int, ...] = (IGNORE,)
    bands: tuple[str, ...] = ()
    use_bands: tuple[Band, ...] = ()
    nodata: float | None = None
    scaling: Scaling | None = None
    scaling_method: str = "auto"
    labels_are: str = "values"
    ignore_color: Color | None = None
    max_pixels: int = MAX_PIXELS
    scene_pixels: int = SCENE_PIXELS
    polygons: Polygons = field(default_factory=Polygons)
    tiles: str | None = None
    fix: bool = False
    grey_as_color: bool = False
    crowds: str = "apart"
    background: int | None = None
    overlaps: str = OVERLAPS[0]
    objects_are: str = "numbers"
    object_polygons: Polygons = field(default_factory=Polygons)
    allow_vrt: bool = field(default=False)

    @property
    def has_objects(self) -> bool:
        """Whether objects are labelled; of panoptic datasets pixels are as well."""
        return self.task != "semantic"

    @property
    def is_panoptic(self) -> bool:
        """Whether things are labelled one by one and every pixel has a class."""
        return self.task == "panoptic"

    @property
    def has_masks(self) -> bool:
        """Whether objects have masks."""
        return self.task in ("instance", "panoptic")

    @property
    def of_objects(self) -> "DatasetConfig":
        """The same with the settings of files of objects as those of labels."""
        return replace(self, polygons=self.object_polygons)

    @property
    def things(self) -> tuple[str, ...]:
        """Names of the classes whose objects are told apart, which are the first ones; none in semantic datasets."""
        return tuple(c.name for c in self.classes if self.has_objects and (c.thing or not self.is_panoptic))

    @property
    def stuff(self) -> tuple[str, ...]:
        """Names of the other classes."""
        return self.names[len(self.things) :]

    @property
    def ignore_index(self) -> int:
        """The value in label files that means "not labelled"; the first if there are several."""
        return self.ignored[0] if self.ignored else IGNORE

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the class indices 0..K-1."""
        return tuple(c.name for c in self.classes)

    def list_pairs(self, split: str) -> tuple[list[Pair], list[Problem]]:
        """The pairs of a split in natural order, and what is wrong with its files.

        Raises:
            ConfigError: no such split.
            DataError: no such folder.
        """
        if split not in self.splits:
            raise ConfigError(f'no split "{split}"', file=self.file, field="splits", hint=nearest(split, self.splits))
        if self.splits[split].annotations is not None:
            return annotated_pairs(self, split)
        pairs, problems = match_pairs(self.root, split, self.splits[split], tiles=self.tiles)
        for file in sorted({pair.objects for pair in pairs if pair.objects is not None and is_coco(pair.objects)}):
            problems += _file_problems(self, read_object_file(self, file))
        return pairs, problems

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of a split in natural order.

        Raises:
            ConfigError: no such split.
            DataError: no such folder, or files without a partner, at most 20 by name.
        """
        pairs, problems = self.list_pairs(split)
        raise_problems(problems)
        return pairs


def read_dataset(path: str | Path) -> DatasetConfig:
    """Reads a dataset.yaml.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        ConfigError: no such file, not YAML, or a key or value that is not allowed.
        DataError: the COCO file that names the classes cannot be used.
    """
    path = Path(path)
    file = path / NAME if path.is_dir() else path
    if not file.is_file():
        if path.is_dir():
            raise ConfigError("no such file", file=file, hint=f"make one with: fpn check --init {path}")
        raise ConfigError("no such file", file=file, allowed="a folder or a dataset.yaml")
    value = read_yaml(file)
    refuse_yolo(value, file)
    fields = Fields(value, file)
    task = fields.choice("task", TASKS) or "semantic"
    root = _parse_root(fields)
    splits = parse_splits(fields)
    _check_task(fields, task, splits)
    crowds = _parse_crowds(fields, splits)
    classes = _parse_classes(fields, task, root, splits, crowds == "objects")
    things = [i for i, c in enumerate(classes) if c.thing] if task == "panoptic" else None
    stuff = [i for i, c in enumerate(classes) if not c.thing] if task == "panoptic" else None
    labelled = task == "semantic" or (task == "panoptic" and any(split.labels for split in splits.values()))
    polygons = parse_polygons(fields, classes, objects=task in ("detection", "instance"), among=stuff)
    background = class_index(fields, "background", fields.raw("background"), classes)
    bands = _parse_bands(fields)
    use_bands = _parse_use_bands(fields, bands)
    scaling, method = _parse_scaling(fields, len(use_bands or bands))
    dataset = DatasetConfig(
        file=file,
        root=root,
        task=task,
        classes=classes,
        splits=splits,
        ignored=_parse_ignored(fields, classes, labelled=labelled),
        bands=bands,
        use_bands=use_bands,
        nodata=fields.number("nodata"),
        scaling=scaling,
        scaling_method=method,
        labels_are=fields.choice("labels_are", _LABELS_ARE[task in ("detection", "instance")]) or "values",
        ignore_color=_parse_ignore_color(fields),
        max_pixels=_parse_pixels(fields, "max_pixels", MAX_PIXELS),
        scene_pixels=_parse_pixels(fields, "scene_pixels", SCENE_PIXELS),
        polygons=polygons if stuff is None else replace(polygons, background=background),
        tiles=parse_tiles(fields),
        fix=fields.flag("fix"),
        grey_as_color=fields.flag("grey_as_color"),
        crowds=crowds,
        background=background,
        overlaps=fields.choice("overlaps", OVERLAPS) or OVERLAPS[0],
        objects_are=fields.choice("objects_are", ("numbers", "components")) or "numbers",
        object_polygons=parse_object_polygons(fields, classes, things),
    )
    fields.finish()
    _check_colors(fields, dataset)
    return dataset


def refuse_yolo(value: object, file: Path) -> None:
    """Refuses the content of a YAML file that is YOLO's description of a dataset.

    Raises:
        ConfigError: it is; the hint names the command that converts it.
    """
    if not isinstance(value, dict) or not {"names", "nc"} & value.keys() or {"classes", "splits"} & value.keys():
        return
    renamed = "rename it to data.yaml, then: " if file.name == NAME else ""
    hint = f"{renamed}fpn check --init {file.parent}"
    raise ConfigError("a description of YOLO's (path, train, val, names)", file=file, hint=hint)


def _parse_root(fields: Fields) -> Path:
    """The root folder: relative to the yaml, or below a folder that an environment variable names."""
    text = fields.text("root") or "."
    for name in VARIABLE.findall(text):
        value = os.environ.get(name)
        if not value:
            hint = f"set it to the folder that holds the data, for example: export {name}=~/data"
            raise ConfigError(f"the environment variable {name} is not set", file=fields.file, field="root", hint=hint)
        text = text.replace(f"${{{name}}}", str(Path(value).expanduser().absolute()))
    if "${" in text:
        raise fields.wrong("root", text, "a folder, in it variables like ${TORCHFPN_DATA}")
    return (fields.file.parent / text).absolute()


def _check_task(fields: Fields, task: str, splits: dict[str, Split]) -> None:
    """Refuses annotations of objects in a semantic dataset, and keys of another task."""
    for name, split in splits.items() if task == "semantic" else ():
        if split.annotations is not None:
            field = f"splits.{name}.annotations"
            hint = "write `task: detection` or `task: instance`"
            raise ConfigError("annotations of objects", file=fields.file, field=field, allowed="masks", hint=hint)
    annotated = any(split.annotations is not None for split in splits.values())
    unused = ["ignore_color", *(["labels_are"] if annotated else [])] if task in ("detection", "instance") else []
    unused += _OF_PANOPTIC if task != "panoptic" else []
    for key in unused:
        if fields.raw(key) is not None:
            beside = " and annotations" if key == "labels_are" else ""
            raise fields.wrong(key, fields.raw(key), f"nothing with `task: {task}`{beside}")
    if task == "panoptic":
        check_panoptic_splits(fields, splits)
    for name, split in splits.items() if task != "panoptic" else ():
        if split.objects is not None:
            field, allowed = f"splits.{name}.objects", f"nothing with `task: {task}`"
            hint = "name files of objects as `labels`, or write `task: panoptic`"
            raise ConfigError(repr(split.objects), file=fields.file, field=field, allowed=allowed, hint=hint)


def _parse_crowds(fields: Fields, splits: dict[str, Split]) -> str:
    crowds = fields.choice("crowds", ("apart", "objects"))
    if crowds is not None and not any(split.annotations for split in splits.values()):
        raise fields.wrong("crowds", crowds, "nothing without `annotations`, which mark crowds")
    return crowds or "apart"


def _parse_classes(fields: Fields, task: str, root: Path, splits: dict[str, Split], crowds: bool) -> tuple[Class, ...]:
    """The classes listed; in COCO datasets, names get the ids of the categories, and no list means all categories."""
    first = next((split for split in splits.values() if split.annotations is not None), None)
    given, panoptic = fields.raw("classes"), task == "panoptic"
    if first is None or not (given is None or (isinstance(given, list) and not any(map(_has_id, given)))):
        classes = parse_classes(fields)
        return parse_things(fields, classes) if panoptic else classes

    coco = _open(root, first, task, crowds)
    categories = _categories(coco, roots=given is not None)
    ids = {each.name: each.id for each in categories}
    segments = coco.annotations.segments
    things: list[str] = []
    if panoptic and segments is not None:
        pairs = zip(segments.categories, segments.things, strict=True)
        things = [category.name for category, thing in pairs if thing]
    if given is None:
        rows = [{"name": name, "id": number} for name, number in ids.items()]
        classes = parse_classes(Fields({"classes": rows}, fields.file))
        return parse_things(fields, classes, things) if panoptic else classes
    classes = parse_classes(fields)
    for c in classes:
        if c.name not in ids:
            found = f'"{c.name}" is no category of {first.annotations}'
            raise ConfigError(found, file=fields.file, field="classes", hint=nearest(c.name, ids))
    classes = tuple(replace(c, id=ids[c.name]) for c in classes)
    return parse_things(fields, classes, things) if panoptic else classes


def _has_id(row: object) -> bool:
    return isinstance(row, dict) and "id" in row


def _parse_ignored(fields: Fields, classes: tuple[Class, ...], *, labelled: bool) -> tuple[int, ...]:
    """Values that mean "not labelled". labelled: there are labels of pixels, which have a usual value for it."""
    value = fields.raw("ignore_index")
    ids = [c.id for c in classes]
    if value is None:
        return (IGNORE,) if labelled and IGNORE not in ids else ()
    values = value if isinstance(value, list) else [value]
    for v in values:
        if not is_whole(v):
            raise fields.wrong("ignore_index", v, "a whole number or a list of them")
        if v in ids:
            raise fields.wrong("ignore_index", v, "a value that is no class", f'{v} is "{classes[ids.index(v)].name}"')
    return tuple(values)


def _parse_bands(fields: Fields) -> tuple[str, ...]:
    bands = fields.items("bands")
    for band in bands:
        if not isinstance(band, str) or not band.strip() or bands.count(band) > 1:
            raise fields.wrong("bands", band, "the names of the bands in the files, all different")
    return tuple(bands)


def _parse_use_bands(fields: Fields, bands: tuple[str, ...]) -> tuple[Band, ...]:
    """Band numbers become names if `bands` gives them; otherwise both stay as written."""
    used: list[Band] = []
    for band in fields.items("use_bands"):
        if is_whole(band) and (not bands or 1 <= band <= len(bands)) and band >= 1:
            used.append(bands[band - 1] if bands else band)
        elif isinstance(band, str) and (not bands or band in bands):
            used.append(band)
        else:
            hint = nearest(band, bands) if isinstance(band, str) else None
            raise fields.wrong("use_bands", band, "names of bands, or their numbers from 1", hint)
        if used.count(used[-1]) > 1:
            raise fields.wrong("use_bands", band, "every band once")
    return tuple(used)


def _parse_scaling(fields: Fields, bands: int) -> tuple[Scaling | None, str]:
    if not isinstance(fields.raw("scaling"), dict):
        return None, fields.choice("scaling", SCALINGS) or "auto"
    inner = fields.inner("scaling")
    given = {name: inner.items(name) for name in ("offset", "scale")}
    inner.finish()
    for name, values in given.items():
        if not values or not all(isinstance(v, int | float) and abs(v) < float("inf") for v in values):
            raise inner.wrong(name, values, "a finite number for each band that is used")
    if bands and len(given["offset"]) != bands:
        raise inner.wrong("offset", given["offset"], f"{bands} numbers, one for each band that is used")
    try:
        return Scaling(tuple(map(float, given["offset"])), tuple(map(float, given["scale"]))), "given"
    except WeightsError as error:
        raise ConfigError(error.found, file=fields.file, field="scaling", allowed=error.allowed) from error


def _parse_ignore_color(fields: Fields) -> Color | None:
    value = fields.raw("ignore_color")
    return None if value is None else parse_color(fields, "ignore_color", value)


def _parse_pixels(fields: Fields, key: str, default: int) -> int:
    value = fields.number(key)
    if value is not None and not 1 <= value <= 2**40:
        raise fields.wrong(key, value, "a number of pixels")
    return default if value is None else int(value)


def _check_colors(fields: Fields, dataset: DatasetConfig) -> None:
    colors = [c.color for c in dataset.classes]
    for color in colors if dataset.labels_are == "colors" else ():
        if colors.count(color) > 1 or color == dataset.ignore_color:
            raise fields.wrong("classes", list(color), "labels_are: colors, so every class with its own color")


def annotated_pairs(dataset: DatasetConfig, split: str) -> tuple[list[Pair], list[Problem]]:
    """The images of a split in the order of its COCO file, and the problems of the file.

    With `dataset.fix`, bad annotations are a problem only if a class would lose all annotations.

    Raises:
        DataError: the file cannot be used at all.
    """
    coco = _read(dataset, split)
    annotations, file = coco.annotations, coco.annotations.file
    maps: list[Path | None] = [None] * len(annotations.names)
    if annotations.segments is not None:
        maps = [annotations.segments.folder / name for name in annotations.segments.maps]
    pairs = [
        Pair(annotations.folder / name, maps[i], tiles=dataset.tiles, annotations=file, number=i)
        for i, name in enumerate(annotations.names)
    ]
    problems = _file_problems(dataset, coco)
    if not pairs and not problems:
        problems.append(Problem(file, f'no image in the split "{split}"'))
    return pairs, problems


def _file_problems(dataset: DatasetConfig, coco: "Coco") -> list[Problem]:
    """What is wrong with a COCO file; with `fix`, the classes that would lose all annotations."""
    file = coco.annotations.file
    if dataset.fix:
        return [Problem(file, f"`fix` {line}") for line in _emptied(coco)]
    return [Problem(file, str(flaw), fixable=True) for flaw in coco.flaws]


def split_annotations(dataset: DatasetConfig, split: str) -> "Annotations | None":
    """The annotations of a split with class indices of the dataset; None for splits without a COCO file.

    Raises:
        DataError: the file cannot be used at all.
    """
    return None if dataset.splits[split].annotations is None else _read(dataset, split).annotations


def split_dropped(dataset: DatasetConfig, split: str) -> dict[str, int]:
    """Counts of what `dataset.fix` leaves out or repairs: {"images": 1, "annotations": 3, "boxes cut": 2}."""
    found = Counter[str]()
    for coco in _coco_files(dataset, split) if dataset.fix else ():
        found.update(coco.dropped)
    return dict(found)


def annotation_warnings(dataset: DatasetConfig, split: str) -> list[str]:
    """Warnings about the annotations of a split: categories left out, crowds instead of objects."""
    return [line for coco in _coco_files(dataset, split) for line in _coco_warnings(split, coco)]


def _coco_warnings(split: str, coco: "Coco") -> list[str]:
    names = [f'"{root.name}"' for root in coco.roots if root not in coco.categories]
    lines = (
        [f"{split}: without annotations and above other categories, so no class: {', '.join(names)}"] if names else []
    )
    crowd = coco.annotations.crowd
    if crowd.any() and 2 * crowd.sum() >= len(crowd):
        share = f"{crowd.sum():,} of {format_count(len(crowd), 'annotations')}"
        marked = f"{share} marked `iscrowd: 1`, not used in training or scores"
        lines.append(f"{split}: {marked}; CVAT marks every mask so: `crowds: objects` reads them as objects")
    return lines


def fix_previews(dataset: DatasetConfig, split: str) -> list[str]:
    """One line on what `dataset.fix` would do to a COCO file of a split; none if nothing, or if it is on."""
    lines = []
    for coco in _coco_files(dataset, split) if not dataset.fix else ():
        lost = {category.name: counts for category, counts in coco.lost_by_category.items()}
        dropped = f"leaves out or mends {format_counts(coco.dropped)}{format_lost(lost)}"
        lines += [f"{split}: --fix {line}" for line in _emptied(coco) or [dropped]] if coco.flaws else []
    return lines


def split_lost(dataset: DatasetConfig, split: str) -> dict[str, tuple[int, int]]:
    """By class name, how many annotations `dataset.fix` leaves out, and of how many."""
    cocos = _coco_files(dataset, split)
    return {category.name: lost for coco in cocos for category, lost in coco.lost_by_category.items()}


def _categories(coco: "Coco", *, roots: bool) -> "tuple[Category, ...]":
    """The categories of a COCO file. roots: also those that only group others.

    Raises:
        DataError: the file has no categories.
    """
    if not coco.categories:
        raise DataError("no categories, so no classes", file=coco.annotations.file, field="categories")
    return tuple(each for each in coco.categories if roots or each not in coco.roots) or coco.categories


def _emptied(coco: "Coco") -> list[str]:
    """The classes that `fix` would leave without annotations, one line each."""
    return [
        f'would leave nothing of "{category.name}" ({format_count(total, "annotations")}); repair them, or leave out'
        f" the class: name the others in `classes`, and `ignore_index: {category.id}`"
        for category, (lost, total) in coco.lost_by_category.items()
        if lost == total
    ]


def _read(dataset: DatasetConfig, split: str) -> "Coco":
    """The COCO file of a split with class indices of the dataset."""
    found = dataset.splits[split]
    coco = _open(dataset.root, found, dataset.task, dataset.crowds == "objects")
    things = len(dataset.things) if dataset.is_panoptic else None
    return _in_classes(_ById(coco), tuple((c.id, c.name) for c in dataset.classes), dataset.ignored, things)


def _coco_files(dataset: DatasetConfig, split: str) -> "list[Coco]":
    """The COCO file with the annotations of a split, or those with its objects."""
    found = dataset.splits[split]
    if found.annotations is not None:
        return [_read(dataset, split)]
    paths = (found.objects,) if isinstance(found.objects, str) else found.objects or ()
    files = [on_disk(dataset.root, path) for path in paths if path.lower().endswith(".json")]
    return [read_object_file(dataset, file) for file in files if is_coco(file)]


def read_object_file(dataset: DatasetConfig, path: Path, *, mapped: bool = True) -> "Coco":
    """The COCO file of the things of a panoptic dataset; crowds have masks.

    Args:
        dataset: with the classes.
        path: of the file.
        mapped: with class indices; else with its own categories.

    Raises:
        DataError: the file cannot be used at all.
    """
    from torchfpn.data.labels.coco import read_coco  # numpy is loaded for COCO files alone
    from torchfpn.data.labels.coco_annotations import CocoOptions

    crowds = dataset.crowds == "objects"
    coco = read_coco(path, CocoOptions(dataset.root, path.parent, True, files=False, crowds=crowds, crowd_masks=True))
    named = tuple((c.id, c.name) for c in dataset.classes)
    return _in_classes(_ById(coco), named, dataset.ignored, None) if mapped else coco


class _ById(NamedTuple):
    """A file as it was read, hashed and compared by identity to be a key of a cache."""

    coco: "Coco"

    def __hash__(self) -> int:
        return id(self.coco)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.coco is self.coco


@functools.lru_cache(8)  # a check asks for it once per image
def _in_classes(
    key: _ById, classes: tuple[tuple[int, str], ...], ignored: tuple[int, ...], things: int | None
) -> "Coco":
    from torchfpn.data.labels.coco import map_to_classes  # numpy is loaded for COCO files alone
    from torchfpn.data.labels.coco_records import Category

    return map_to_classes(key.coco, tuple(Category(*one) for one in classes), ignored, things)


def _open(root: Path, split: Split, task: str, crowds: bool) -> "Coco":
    from torchfpn.data.labels.coco import read_coco  # numpy is loaded for COCO files alone
    from torchfpn.data.labels.coco_annotations import CocoOptions

    path, folder = on_disk(root, str(split.annotations)), on_disk(root, str(split.images))
    for one in (path, folder):
        if not is_inside(root, one):
            raise DataError("leads out of the root of the dataset", file=one)
    if not folder.is_dir():
        raise DataError("no such folder", file=folder)
    maps = path.with_suffix("") if split.panoptic is None else on_disk(root, split.panoptic)
    whole = task == "panoptic"
    panoptic = whole or split.panoptic is not None
    options = CocoOptions(root, folder, task == "instance", maps=maps, panoptic=panoptic, crowds=crowds, stuff=whole)
    return read_coco(path, options)
