"""Objects and labels of pixels of any kind as a panoptic dataset: what `fpn panoptic-from` is given."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torchfpn.classes import Class, class_colors
from torchfpn.data.config import NAME, DatasetConfig, read_dataset, read_object_file
from torchfpn.data.files import list_files
from torchfpn.data.init import mixes_grey_and_color
from torchfpn.data.labels.composed import record_of
from torchfpn.data.layout import find_image_splits
from torchfpn.data.splits import Paths, Polygons, Split
from torchfpn.errors import ConfigError, nearest
from torchfpn.io.formats import is_coco, is_vector
from torchfpn.io.labels import read_legend
from torchfpn.recipe import IGNORE
from torchfpn.types import Color

_ABOVE = 1000  # values of classes that masks do not hold

Values = dict[str, int | None]  # value of each class by name; None: any

Source = Path | tuple[Path, ...]  # a file, a folder, map tiles as folder/{z}/{x}/{y}; or several files


@dataclass(frozen=True)
class PanopticSources:
    """Where the labels of a panoptic dataset come from.

    Attributes:
        input: a folder of images, with or without folders of splits, or a dataset.
        out: where the panoptic dataset will be written.
        instances: path of the objects, with ``{split}``; None: the labels of the dataset `input`.
        semantic: path of the labels of pixels, with ``{split}``; None: those of the dataset `input`, or none.
        things: names of the classes of objects, with their values in masks; None: as the objects say.
        stuff: the same of the labels of pixels; None: as these say.
        background: name of the class of pixels that nothing labels; None: they are void.
        overlaps: see `DatasetConfig`.
        components: each connected area of a numbered mask is an object.
        instance_field: attribute with the class of polygons of objects.
        semantic_field: the same of polygons of stuff.
        ignored: values of masks that are not labelled; None: 255.
        assume_crs: coordinate system of files of polygons without one.
        tiles: pattern of paths of images without a georeference.
        fix: leave out bad annotations.
    """

    input: Path
    out: Path
    instances: str | None = None
    semantic: str | None = None
    things: Values | None = None
    stuff: Values | None = None
    background: str | None = None
    overlaps: str = "smaller"
    components: bool = False
    instance_field: str | None = None
    semantic_field: str | None = None
    ignored: tuple[int, ...] | None = None
    assume_crs: str | None = None
    tiles: str | None = None
    fix: bool = False


@dataclass
class _Files:
    """Files of a split. objects: None: the split is not labelled."""

    images: Source
    labels: Source | None = None
    objects: Source | None = None

    def every(self) -> list[Path]:
        """All paths."""
        return [path for source in (self.images, self.labels, self.objects) for path in _paths(source)]


class _Classes(NamedTuple):
    """Values of things and stuff by name, and the colors that are known."""

    things: Values
    stuff: Values
    colors: dict[str, Color]


def describe(sources: PanopticSources) -> DatasetConfig:
    """The panoptic dataset that the sources make.

    Raises:
        ConfigError: sources that do not go together, or classes that nobody names.
        DataError: files that cannot be used.
    """
    base = _base(sources.input)
    if base is not None and base.is_panoptic:
        return _of_panoptic(sources, base)
    files = _files(sources, base)
    if all(one.objects is None for one in files.values()):
        hint = "name the COCO file, the numbered masks or the polygons of the objects"
        raise ConfigError("no objects", field="--instances", hint=hint)
    named = _named_classes(sources, base, files)
    classes = _classes(named, masks=_has_masks(files))
    background = _index(classes, sources.background) if sources.background else _inherited_background(base, classes)
    if background is None and any(one.objects and not one.labels for one in files.values()):
        hint = "name the class of pixels that no object covers, or labels of pixels: --semantic"
        raise ConfigError("nothing", field="--background", hint=hint)
    root = Path(os.path.commonpath([path.absolute() for one in files.values() for path in one.every()]))
    root = root if root.is_dir() else root.parent
    first = base or DatasetConfig(sources.out / NAME, root, "panoptic", (), {})
    dataset = replace(
        first,
        file=sources.out / NAME,
        root=root,
        task="panoptic",
        classes=classes,
        splits={name: _split(one, root) for name, one in files.items()},
        ignored=_ignored(sources, base, files),
        labels_are=first.labels_are if base is not None and not base.has_objects else "values",
        objects_are="components" if sources.components or first.labels_are == "components" else "numbers",
        background=background,
        overlaps=sources.overlaps,
        tiles=sources.tiles or first.tiles,
        fix=sources.fix or first.fix,
        polygons=_stuff_polygons(sources, base, classes, background),
        object_polygons=_object_polygons(sources, base, classes),
    )
    return _as_recorded(dataset if base is not None else _mixed(dataset), files)


def _base(path: Path) -> DatasetConfig | None:
    """The dataset at a path; None for a folder of images."""
    if path.is_file() or (path / NAME).is_file():
        return read_dataset(path)
    if not path.is_dir():
        raise ConfigError("no such folder", file=path)
    return None


def _of_panoptic(sources: PanopticSources, base: DatasetConfig) -> DatasetConfig:
    """A dataset that is panoptic already: only how it is read may be set."""
    for name in ("instances", "semantic", "things", "stuff", "background", "instance_field", "semantic_field"):
        if getattr(sources, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError("has no effect on a panoptic dataset", field=flag, hint="leave it out")
    return replace(base, overlaps=sources.overlaps, fix=sources.fix or base.fix)


# -- files -------------------------------------------------------------------------------------------------------------
def _files(sources: PanopticSources, base: DatasetConfig | None) -> dict[str, _Files]:
    """The files of each split."""
    if base is not None:
        return {name: _of_base(sources, base, name) for name in base.splits}
    found = {}
    for name, (images, spelt) in find_image_splits(sources.input).items():
        labels, objects = (_given(sources, key, spelt) for key in ("semantic", "instances"))
        found[name] = _Files(_source(images), labels, objects)
    return found


def _of_base(sources: PanopticSources, base: DatasetConfig, name: str) -> _Files:
    """The files of a split of a dataset that is not panoptic, with those that flags give instead."""
    split = base.splits[name]
    images = _source(split.images, base.root)
    own = None if split.labels is None else _source(split.labels, base.root)
    if split.annotations is not None or split.stems is not None:  # some of the images in a folder
        pairs = base.pairs(name)
        images, own = tuple(p.image for p in pairs), tuple(p.label for p in pairs if p.label is not None)
    if split.annotations is not None:
        own = base.root / split.annotations
    semantic, instances = (_given(sources, key, name) for key in ("semantic", "instances"))
    if base.has_objects:
        if base.task == "detection" and instances is None:
            raise ConfigError("a dataset of boxes", file=base.file, field="task", allowed="masks: instance")
        return _Files(images, semantic, instances or own or None)
    labels = semantic or own or None
    polygons = isinstance(labels, Path) and is_vector(labels)  # whose features are the objects
    return _Files(images, labels, instances or (labels if polygons and sources.instances is None else None))


def _given(sources: PanopticSources, key: str, split: str) -> Path | None:
    """The path that a flag gives for a split; None without the flag, or where a pattern finds nothing."""
    pattern: str | None = getattr(sources, key)
    if pattern is None:
        return None
    path = Path(pattern.replace("{split}", split))
    if path.exists() or "{z}" in pattern:
        return path
    if "{split}" not in pattern:
        raise ConfigError("no such file or folder", file=path, field=f"--{key}")
    return None


def _source(paths: Paths, root: Path = Path()) -> Source:
    return root / paths if isinstance(paths, str) else tuple(root / path for path in paths)


def _paths(source: Source | None) -> tuple[Path, ...]:
    return (source,) if isinstance(source, Path) else source or ()


def _each(source: Source | None) -> list[Path]:
    """The files that a source names: of a folder those in it."""
    found = []
    for path in _paths(source):
        inside = sorted(p for p in path.iterdir() if not p.name.startswith(".")) if path.is_dir() else [path]
        found += inside
    return found


def _split(files: _Files, root: Path) -> Split:
    labels = None if files.objects is None else files.labels
    images = _below(files.images, root)
    assert images is not None  # there are images
    return Split(images, _below(labels, root), objects=_below(files.objects, root))


def _below(source: Source | None, root: Path) -> Paths | None:
    """The paths as dataset.yaml has them, relative to its root."""
    found = tuple(path.absolute().relative_to(root).as_posix() for path in _paths(source))
    return None if source is None else found[0] if isinstance(source, Path) else found


def _has_masks(files: dict[str, _Files]) -> bool:
    """Whether labels of pixels are images of values."""
    return any(not is_vector(path) for one in files.values() for path in _each(one.labels))


def _as_recorded(dataset: DatasetConfig, files: dict[str, _Files]) -> DatasetConfig:
    """The dataset, of splits whose objects are in a COCO file with the images in the folder that the file names."""
    splits = dict(dataset.splits)
    for name, one in files.items():
        split = splits[name]
        if not isinstance(one.objects, Path) or not is_coco(one.objects) or not isinstance(split.images, str):
            continue
        names = read_object_file(dataset, one.objects.absolute()).annotations.names
        listed = list_files(dataset.root, split.images).files.values()
        chosen = [path for path in listed if record_of(names, path) is not None]
        if not chosen:
            found = f"none of the images of {one.images}"
            raise ConfigError(found, file=one.objects, field="images[].file_name")
        splits[name] = replace(split, images=tuple(path.relative_to(dataset.root).as_posix() for path in chosen))
    return replace(dataset, splits=splits)


def _mixed(dataset: DatasetConfig) -> DatasetConfig:
    """The same, grey images beside coloured ones read as these."""
    images = [path for s in dataset.splits.values() for path in list_files(dataset.root, s.images).files.values()]
    return replace(dataset, grey_as_color=mixes_grey_and_color(images))


# -- classes -----------------------------------------------------------------------------------------------------------
def _named_classes(sources: PanopticSources, base: DatasetConfig | None, files: dict[str, _Files]) -> _Classes:
    """Things and stuff by name."""
    colors = {c.name: c.color for c in base.classes} if base is not None else {}
    pixels = base is not None and not base.has_objects
    known: Values = {c.name: c.id for c in base.classes} if pixels and base is not None else {}
    things = _things_of_objects(sources, base, files) if sources.things is None else dict(sources.things)
    if known and sources.instances is None:
        for name in things:
            if name not in known:
                hint = nearest(name, known)
                raise ConfigError(f'"{name}"', field="--things", allowed="classes of the dataset", hint=hint)
    stuff = sources.stuff
    if stuff is None:
        stuff = known if known and sources.semantic is None else _stuff_of_labels(sources, files)
    stuff = {name: value for name, value in stuff.items() if name not in things}
    things = {name: known.get(name) if value is None else value for name, value in things.items()}
    if sources.background is not None and sources.background not in things:
        stuff.setdefault(sources.background, None)
    if not stuff:
        raise ConfigError("no stuff", field="--stuff", hint="name the classes of --semantic, or give a --background")
    return _Classes(things, stuff, colors)


def _things_of_objects(sources: PanopticSources, base: DatasetConfig | None, files: dict[str, _Files]) -> Values:
    """The classes of the dataset's objects, the categories of COCO files, or the values of an attribute."""
    if base is not None and base.has_objects and sources.instances is None:
        return dict.fromkeys(base.names)
    paths = [path for one in files.values() for path in _each(one.objects)]
    names: dict[str, None] = {}
    for path in dict.fromkeys(paths):
        if is_coco(path):
            names |= _categories(sources, path)
        elif sources.instance_field is not None and is_vector(path):
            names |= _field_values(path, sources.instance_field)
    if not names:
        raise ConfigError("no things", field="--things", hint="name the classes of the objects: --things building")
    return dict.fromkeys(names)


def _stuff_of_labels(sources: PanopticSources, files: dict[str, _Files]) -> Values:
    """The values of an attribute, or the names that masks carry; empty where nothing names the stuff."""
    paths = list(dict.fromkeys(path for one in files.values() for path in _each(one.labels)))
    if sources.semantic_field is not None:
        return dict.fromkeys(name for path in paths for name in _field_values(path, sources.semantic_field))
    masks = [path for path in paths if not is_vector(path)]
    return {name: value for value, name in read_legend(masks[0])[0].items()} if masks else {}


def _categories(sources: PanopticSources, path: Path) -> dict[str, None]:
    """The names of the categories of a COCO file."""
    unnamed = DatasetConfig(sources.out / NAME, path.absolute().parent, "panoptic", (), {})
    coco = read_object_file(unnamed, path.absolute(), mapped=False)
    return dict.fromkeys(category.name for category in coco.categories if category not in coco.roots)


def _field_values(path: Path, name: str) -> dict[str, None]:
    from torchfpn.io.vectors import read_vectors

    column = read_vectors(path, field=name).column
    return dict.fromkeys(sorted(str(value) for value in set(column if column is not None else ()) if value is not None))


def _classes(named: _Classes, *, masks: bool) -> tuple[Class, ...]:
    """The classes with the values that are given, and others where none is. masks: values are those of masks."""
    both = {**named.things, **named.stuff}
    plain = masks and all(value is None for value in named.stuff.values())
    taken = {value for value in both.values() if value is not None}
    if plain:  # as in dataset.yaml: names count from 0
        both |= {name: i for i, name in enumerate(named.stuff)}
        taken |= set(range(len(named.stuff)))
    free = (value for value in range(_ABOVE if masks else 0, 10**9) if value not in taken)
    ids = {name: next(free) if value is None else value for name, value in both.items()}
    for name, value in ids.items():
        twin = next(other for other in ids if ids[other] == value)
        if twin != name:
            raise ConfigError(f"{twin} and {name} with the value {value}", field="--stuff", allowed="each value once")
    colors = class_colors(list(both), [named.colors.get(name) for name in both])
    return tuple(Class(name, ids[name], color, name in named.things) for name, color in zip(both, colors, strict=True))


def _index(classes: Sequence[Class], name: str) -> int:
    return [c.name for c in classes].index(name)


def _again(base: DatasetConfig, classes: Sequence[Class], index: int | None) -> int | None:
    """The index of a class of the dataset among `classes`; None if it is not there."""
    names = [c.name for c in classes]
    return None if index is None or base.names[index] not in names else names.index(base.names[index])


def _inherited_background(base: DatasetConfig | None, classes: Sequence[Class]) -> int | None:
    """The class of pixels without a polygon, in a semantic dataset of polygons."""
    return None if base is None or base.has_objects else _again(base, classes, base.polygons.background)


def _ignored(sources: PanopticSources, base: DatasetConfig | None, files: dict[str, _Files]) -> tuple[int, ...]:
    if sources.ignored is not None:
        return sources.ignored
    if base is not None and (base.ignored or not _has_masks(files)):
        return base.ignored
    return (IGNORE,) if _has_masks(files) else ()


def _stuff_polygons(
    sources: PanopticSources, base: DatasetConfig | None, classes: Sequence[Class], background: int | None
) -> Polygons:
    """How polygons of stuff are drawn: as the dataset says, or by the attribute, or as the only stuff."""
    inherited = base is not None and not base.has_objects and sources.semantic is None
    stuff = [i for i, c in enumerate(classes) if not c.thing and i != background]
    burn = stuff[0] if len(stuff) == 1 else None
    found = Polygons(field=sources.semantic_field, burn=None if sources.semantic_field else burn)
    if inherited and base is not None:
        burn, border = (_again(base, classes, index) for index in (base.polygons.burn, base.polygons.border_class))
        found = replace(base.polygons, burn=burn, border_class=border)
    return replace(found, background=background, assume_crs=sources.assume_crs or found.assume_crs)


def _object_polygons(sources: PanopticSources, base: DatasetConfig | None, classes: Sequence[Class]) -> Polygons:
    """The same of things; features of stuff are left out."""
    things = [i for i, c in enumerate(classes) if c.thing]
    burn = things[0] if len(things) == 1 else None
    found = Polygons(field=sources.instance_field, burn=None if sources.instance_field else burn)
    if base is not None and sources.instances is None and sources.instance_field is None:
        found = replace(base.polygons, burn=_again(base, classes, base.polygons.burn))
    return replace(found, assume_crs=sources.assume_crs or found.assume_crs)
