"""dataset.yaml: which images, labels and classes a dataset has, read without opening an image.

dataset.yaml: what a dataset is, said once. Reading it imports nothing heavy; docs/datasets.md has the format.

Splits whose images and objects a COCO file names: which files, which objects, and what is wrong with them.
"""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from torchfpn.classes import Class, parse_classes, parse_color
from torchfpn.data.files import is_inside, match_pairs
from torchfpn.data.labels.coco import in_classes, read_coco
from torchfpn.data.labels.coco_annotations import Annotations, Coco, Wanted
from torchfpn.data.labels.coco_records import Category
from torchfpn.data.splits import Pair, Polygons, Problem, Split, parse_polygons, parse_splits, parse_tiles, refuse
from torchfpn.errors import ConfigError, DataError, WeightsError, nearest
from torchfpn.io.formats import MAX_PIXELS, on_disk
from torchfpn.io.yaml_json import Fields, is_whole, read_yaml
from torchfpn.recipe import IGNORE, Scaling
from torchfpn.types import Color

NAME = "dataset.yaml"

SCALINGS = ("auto", "imagenet", "mean-std", "percentile")

TASKS = ("semantic", "detection", "instance")

_LABELS_ARE = ("values", "colors"), ("values", "components")  # of pixels, of objects

SCENE_PIXELS = 2**22  # height times width; a larger TIFF is read by windows, never whole

VARIABLE = re.compile(r"\$\{(TORCHFPN_\w+)\}")  # what `root` may take from the environment

Band = int | str  # a band of the files: its number from 1, or its name


@dataclass(frozen=True)
class DatasetConfig:
    """A dataset.yaml, checked for what can be known without opening an image.

    file: the yaml. root: the folder all paths are below. ignored: values in label files that mean "not labelled".
    bands: names of the bands in the files, in order; empty: as the files say. use_bands: those to be used; empty: all.
    nodata: the value of missing pixels where the files do not say. scaling: if the yaml gives the numbers, else None;
    scaling_method: how else to find it. labels_are: "values" or "colors"; of objects "components".
    ignore_color: as `ignored`, for colours.
    scene_pixels: TIFFs with more pixels are scenes, read by windows. polygons: how labels that are polygons are drawn.
    tiles: how the paths of images tell their place, where the files do not say. fix: leave out bad annotations.
    grey_as_color: images of one band are read as three equal ones. crowds: of annotations marked `iscrowd: 1`, "apart"
    or "objects", if they are objects like others.
    allow_vrt: never from the yaml; whoever runs the program says so.
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
    allow_vrt: bool = field(default=False)

    @property
    def has_objects(self) -> bool:
        """Whether the labels tell objects, not classes of pixels."""
        return self.task != "semantic"

    @property
    def ignore_index(self) -> int:
        """The value in label files that means "not labelled"; the first if there are several."""
        return self.ignored[0] if self.ignored else IGNORE

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in the order of the labels 0..K-1."""
        return tuple(c.name for c in self.classes)

    def list_pairs(self, split: str) -> tuple[list[Pair], list[Problem]]:
        """The pairs of a split in natural order, and what is wrong with its files.

        Raises:
            ConfigError: no such split. DataError: no such folder.
        """
        if split not in self.splits:
            raise ConfigError(f'no split "{split}"', file=self.file, field="splits", hint=nearest(split, self.splits))
        if self.splits[split].annotations is not None:
            return annotated_pairs(self, split)
        return match_pairs(self.root, split, self.splits[split], tiles=self.tiles)

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of a split in natural order.

        Raises:
            ConfigError: no such split. DataError: no such folder, or files without a partner, at most 20 by name.
        """
        pairs, problems = self.list_pairs(split)
        refuse(problems)
        return pairs


def read_dataset(path: str | Path) -> DatasetConfig:
    """The dataset described by `path`: a dataset.yaml, or a folder with one.

    Raises:
        ConfigError: no such file, not YAML, or something in it that cannot be, by its key.
        DataError: annotations that say what the classes are, and cannot be used.
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
    bands = _parse_bands(fields)
    use_bands = _parse_use_bands(fields, bands)
    scaling, method = _parse_scaling(fields, len(use_bands or bands))
    dataset = DatasetConfig(
        file=file,
        root=root,
        task=task,
        classes=classes,
        splits=splits,
        ignored=_parse_ignored(fields, classes, task),
        bands=bands,
        use_bands=use_bands,
        nodata=fields.number("nodata"),
        scaling=scaling,
        scaling_method=method,
        labels_are=fields.choice("labels_are", _LABELS_ARE[task != "semantic"]) or "values",
        ignore_color=_parse_ignore_color(fields),
        max_pixels=_parse_pixels(fields, "max_pixels", MAX_PIXELS),
        scene_pixels=_parse_pixels(fields, "scene_pixels", SCENE_PIXELS),
        polygons=parse_polygons(fields, classes, objects=task != "semantic"),
        tiles=parse_tiles(fields),
        fix=fields.flag("fix"),
        grey_as_color=fields.flag("grey_as_color"),
        crowds=crowds,
    )
    fields.finish()
    _check_colors(fields, dataset)
    return dataset


def refuse_yolo(value: object, file: Path) -> None:
    """Passes what a YAML file holds, unless it is YOLO's description of a data set.

    Raises:
        ConfigError: it is, with the commands that make a dataset of it.
    """
    if not isinstance(value, dict) or not {"names", "nc"} & value.keys() or {"classes", "splits"} & value.keys():
        return
    renamed = "rename it to data.yaml, then: " if file.name == NAME else ""
    hint = f"{renamed}fpn check --init {file.parent}"
    raise ConfigError("a description of YOLO's (path, train, val, names)", file=file, hint=hint)


def _parse_root(fields: Fields) -> Path:
    """The folder of the data: relative to the yaml, or below the folder that an environment variable names."""
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
    """Annotations tell objects; keys that speak of pixels do not go with them."""
    for name, split in splits.items() if task == "semantic" else ():
        if split.annotations is not None:
            field = f"splits.{name}.annotations"
            hint = "write `task: detection` or `task: instance`"
            raise ConfigError("annotations of objects", file=fields.file, field=field, allowed="masks", hint=hint)
    annotated = any(split.annotations is not None for split in splits.values())
    for key in ["ignore_color", *(["labels_are"] if annotated else [])] if task != "semantic" else ():
        if fields.raw(key) is not None:
            beside = " and annotations" if key == "labels_are" else ""
            raise fields.wrong(key, fields.raw(key), f"nothing with `task: {task}`{beside}")


def _parse_crowds(fields: Fields, splits: dict[str, Split]) -> str:
    crowds = fields.choice("crowds", ("apart", "objects"))
    if crowds is not None and not any(split.annotations for split in splits.values()):
        raise fields.wrong("crowds", crowds, "nothing without `annotations`, which mark crowds")
    return crowds or "apart"


def _parse_classes(fields: Fields, task: str, root: Path, splits: dict[str, Split], crowds: bool) -> tuple[Class, ...]:
    """As listed; with annotations, names alone get the ids of those categories, and nothing gets all categories."""
    first = next((split for split in splits.values() if split.annotations is not None), None)
    given = fields.raw("classes")
    if first is None or not (given is None or (isinstance(given, list) and not any(map(_has_id, given)))):
        return parse_classes(fields)

    masks, named = task == "instance", given is not None
    categories = read_categories(root, first, masks=masks, crowds=crowds, roots=named)
    ids = {each.name: each.id for each in categories}
    if given is None:
        rows = [{"name": name, "id": number} for name, number in ids.items()]
        return parse_classes(Fields({"classes": rows}, fields.file))
    classes = parse_classes(fields)
    for c in classes:
        if c.name not in ids:
            found = f'"{c.name}" is no category of {first.annotations}'
            raise ConfigError(found, file=fields.file, field="classes", hint=nearest(c.name, ids))
    return tuple(replace(c, id=ids[c.name]) for c in classes)


def _has_id(row: object) -> bool:
    return isinstance(row, dict) and "id" in row


def _parse_ignored(fields: Fields, classes: tuple[Class, ...], task: str) -> tuple[int, ...]:
    value = fields.raw("ignore_index")
    ids = [c.id for c in classes]
    if value is None:
        return () if IGNORE in ids or task != "semantic" else (IGNORE,)
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
    """Names are kept as names where the files alone know them; else everything becomes a name of `bands`."""
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


_SHOWN = 6  # classes that a line names

_SINGULAR = {
    "annotations": "annotation",
    "areas": "area",
    "boxes cut": "box cut",
    "categories": "category",
    "images": "image",
    "polygons": "polygon",
    "segments": "segment",
}


def annotated_pairs(dataset: DatasetConfig, split: str) -> tuple[list[Pair], list[Problem]]:
    """The images of a split in the order of its file, and what is wrong with it.

    With `dataset.fix`, bad annotations are no problem, unless a class would lose all it has.

    Raises:
        DataError: the file cannot be used at all.
    """
    coco = _read(dataset, split)
    file, found = coco.annotations.file, coco.annotations
    maps: list[Path | None] = [None] * len(found.names)
    if found.segments is not None:
        maps = [found.segments.folder / name for name in found.segments.maps]
    pairs = [
        Pair(found.folder / name, maps[i], tiles=dataset.tiles, annotations=file, number=i)
        for i, name in enumerate(found.names)
    ]
    problems = [Problem(file, str(flaw), fixable=True) for flaw in coco.flaws]
    if dataset.fix:
        problems = [Problem(file, f"`fix` {line}") for line in _emptied(coco)]
    if not pairs and not problems:
        problems.append(Problem(file, f'no image in the split "{split}"'))
    return pairs, problems


def split_annotations(dataset: DatasetConfig, split: str) -> Annotations | None:
    """The annotations of a split, labels as classes of the dataset; None where they are no COCO file.

    Raises:
        DataError: the file cannot be used at all.
    """
    return None if dataset.splits[split].annotations is None else _read(dataset, split).annotations


def split_dropped(dataset: DatasetConfig, split: str) -> dict[str, int]:
    """What `dataset.fix` leaves out or cuts: {"images": 1, "annotations": 3, "boxes cut": 2}."""
    return {} if dataset.splits[split].annotations is None or not dataset.fix else _read(dataset, split).dropped


def annotation_notes(dataset: DatasetConfig, split: str) -> list[str]:
    """What is odd about the annotations of a split and no error: categories left out, crowds instead of objects."""
    if dataset.splits[split].annotations is None:
        return []
    coco = _read(dataset, split)
    names = [f'"{root.name}"' for root in coco.roots if root not in coco.categories]
    lines = (
        [f"{split}: without annotations and above other categories, so no class: {', '.join(names)}"] if names else []
    )
    crowd = coco.annotations.crowd
    if crowd.any() and 2 * crowd.sum() >= len(crowd):
        share = f"{crowd.sum():,} of {counted(len(crowd), 'annotations')}"
        marked = f"{share} marked `iscrowd: 1`, not used in training or scores"
        lines.append(f"{split}: {marked}; CVAT marks every mask so: `crowds: objects` reads them as objects")
    return lines


def fix_lines(dataset: DatasetConfig, split: str) -> list[str]:
    """What `dataset.fix` would do to the annotations of a split, before it does."""
    if dataset.splits[split].annotations is None or dataset.fix:
        return []
    coco = _read(dataset, split)
    if not coco.flaws:
        return []
    return [f"{split}: --fix {line}" for line in _emptied(coco)] or [
        f"{split}: --fix leaves out or mends {listed(coco.dropped)}{lost_line(split_losses(dataset, split))}"
    ]


def split_losses(dataset: DatasetConfig, split: str) -> dict[str, tuple[int, int]]:
    """By class, how many annotations of how many are bad and lost with `dataset.fix`."""
    return {category.name: lost for category, lost in _read(dataset, split).losses.items()}


def lost_line(losses: Mapping[str, tuple[int, int]]) -> str:
    """``: 3 of 12 annotations of "fish" are lost``; empty without losses."""
    parts = [f'{lost:,} of {counted(total, "annotations")} of "{name}"' for name, (lost, total) in losses.items()]
    more = f" and of {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return f"; lost: {', '.join(parts[:_SHOWN])}{more}" if parts else ""


def listed(dropped: Mapping[str, int]) -> str:
    """``3 annotations, 1 image, 2 boxes cut``."""
    return ", ".join(counted(count, what) for what, count in dropped.items())


def counted(count: int, what: str) -> str:
    """``1 annotation``, ``3 annotations``. what: the plural."""
    return f"{count:,} {_SINGULAR.get(what, what) if count == 1 else what}"


def _emptied(coco: Coco) -> list[str]:
    """The classes that would lose all they have."""
    return [
        f'would leave nothing of "{category.name}" ({counted(total, "annotations")}); repair them, or leave out the'
        f" class: name the others in `classes`, and `ignore_index: {category.id}`"
        for category, (lost, total) in coco.losses.items()
        if lost == total
    ]


def read_categories(root: Path, split: Split, *, masks: bool, crowds: bool, roots: bool) -> tuple[Category, ...]:
    """Those of the annotations of a split. masks, crowds: see `Wanted`. roots: also those that only group others.

    Raises:
        DataError: the file cannot be used, or has no categories.
    """
    coco = _open(root, split, masks, crowds)
    if not coco.categories:
        raise DataError("no categories, so no classes", file=coco.annotations.file, field="categories")
    return tuple(each for each in coco.categories if roots or each not in coco.roots) or coco.categories


def _read(dataset: DatasetConfig, split: str) -> Coco:
    found = dataset.splits[split]
    coco = _open(dataset.root, found, dataset.task == "instance", dataset.crowds == "objects")
    classes = tuple(Category(c.id, c.name) for c in dataset.classes)
    return _fitted(_Same(coco), classes, dataset.ignored)


class _Same(NamedTuple):
    """A file as it was read, equal to itself alone."""

    coco: Coco

    def __hash__(self) -> int:
        return id(self.coco)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.coco is self.coco


@functools.lru_cache(8)
def _fitted(same: _Same, classes: tuple[Category, ...], ignored: tuple[int, ...]) -> Coco:
    """Every image of a check asks for it."""
    return in_classes(same.coco, classes, ignored)


def _open(root: Path, split: Split, masks: bool, crowds: bool) -> Coco:
    path, folder = on_disk(root, str(split.annotations)), on_disk(root, str(split.images))
    for one in (path, folder):
        if not is_inside(root, one):
            raise DataError("leads out of the root of the dataset", file=one)
    if not folder.is_dir():
        raise DataError("no such folder", file=folder)
    maps = path.with_suffix("") if split.panoptic is None else on_disk(root, split.panoptic)
    panoptic = split.panoptic is not None
    return read_coco(path, Wanted(root, folder, masks, maps=maps, panoptic=panoptic, crowds=crowds))
