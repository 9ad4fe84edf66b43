"""A first dataset.yaml for a folder that has none: what can be seen is written down, the names are left to people."""

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.dataset import NAME, SCENE_PIXELS, Dataset, read_dataset, refuse_yolo
from torchfpn.data.each import Watch, each, spread, unwatched
from torchfpn.data.headers import quick_size
from torchfpn.data.init_objects import Annotated, crowd_notes, find_annotated, object_lines
from torchfpn.data.init_polygons import inline, polygon_lines
from torchfpn.data.layout import Layout, find_layout
from torchfpn.data.listing import list_files
from torchfpn.data.reading import COLORS
from torchfpn.data.windows import SIDE
from torchfpn.errors import ConfigError, DataError, FPNError, of_system
from torchfpn.files.atomic import write_bytes, write_text
from torchfpn.files.formats import format_of
from torchfpn.files.geo import Window, tiles
from torchfpn.files.images import read_image
from torchfpn.files.labels import LabelFile, read_labels, read_legend
from torchfpn.files.safe_yaml import read_yaml
from torchfpn.recipe import IGNORE
from torchfpn.vectors.formats import is_vector

_MOST_FILES = 2000  # label files that are scanned for values, evenly spaced
_MOST_VALUES = 255
_HEAD = "# A first description, written by `fpn check --init`: rename the classes, then look at the contact sheet of\n"


def _nobody(line: str) -> None:
    """Hears it."""


def init_dataset(
    folder: str | Path,
    *,
    colors: bool = False,
    overwrite: bool = False,
    fix: bool = False,
    watch: Watch = unwatched,
    tell: Callable[[str], None] = _nobody,
) -> Dataset:
    """Writes dataset.yaml (and train.txt and val.txt, if the images are not split yet) into `folder`, and reads it.

    Classes are the values found in the labels; 255, or a nodata value the files declare, is taken for "not labelled"
    if two others remain. With `colors`, the colours of RGB masks are the classes. Where COCO files annotate the images,
    their categories are. YOLO's, LabelMe's and Pascal VOC's files are written anew as COCO: `instances_train.json`.
    fix: bad annotations are left out. tell: is given what people should know, a line each.

    Nothing is left behind if the dataset cannot be used.

    Raises:
        ConfigError: there is one already and not `overwrite`, it is YOLO's, or the folder cannot be written to.
        DataError: no images and labels found, or files that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError("no such folder", file=folder)
    _refuse_described(folder / NAME)
    files, notes = _files(folder, colors, fix, watch)
    for name in files:
        if (folder / name).exists() and not overwrite:
            raise ConfigError("already exists", file=folder / name, hint="replace it with --overwrite")
    dataset = _written(folder, files)
    for line in notes:
        tell(line)
    return dataset


def _refuse_described(file: Path) -> None:
    """Passes a folder whose dataset.yaml, if there is one, is not YOLO's: it names classes that the labels need."""
    try:
        there = read_yaml(file) if file.is_file() else None
    except ConfigError:  # no YAML, so nothing that YOLO reads
        return
    refuse_yolo(there, file)


def _written(folder: Path, files: dict[str, str]) -> Dataset:
    """The dataset of the files, or the folder as it was."""
    before = {name: (folder / name).read_bytes() for name in files if (folder / name).is_file()}
    try:
        for name in reversed(files):  # the lists before the description that names them
            write_text(folder / name, files[name])
        dataset = read_dataset(folder)
        for name in dataset.splits:
            dataset.pairs(name)
    except FPNError:
        _put_back(folder, files, before)
        raise
    except OSError as error:
        _put_back(folder, files, before)
        raise of_system(error, folder / NAME) from error
    return dataset


def _put_back(folder: Path, files: dict[str, str], before: dict[str, bytes]) -> None:
    """The folder as it was: what cannot be used is not left behind."""
    for name in files:
        if name in before:
            if (folder / name).read_bytes() != before[name]:  # on a full disk nothing can be put back
                write_bytes(folder / name, before[name])
        else:
            (folder / name).unlink(missing_ok=True)


def _files(folder: Path, colors: bool, fix: bool, watch: Watch) -> tuple[dict[str, str], tuple[str, ...]]:
    """What is to be written, dataset.yaml first, and what people should know of it."""
    annotated = find_annotated(folder, converted=False)
    if annotated:
        return _annotated_files(folder, annotated, fix, watch)
    try:
        layout = find_layout(folder)
        return {NAME: _text(folder, layout, colors, watch), **layout.lists}, ()
    except DataError:
        from torchfpn.data.annotation_formats.conversion import convert_folder

        found = convert_folder(folder, fix=fix, watch=watch)
        if found is None:
            annotated = find_annotated(folder)  # made before of files that are gone
            if not annotated:
                raise
            return _annotated_files(folder, annotated, fix, watch)
    splits = {name: Annotated(".", f"instances_{name}.json", found.masks) for name in found.texts}
    text = _object_text(folder, splits, list(found.images), False, watch)
    return {NAME: text, **{splits[name].annotations: coco for name, coco in found.texts.items()}}, found.notes


def _annotated_files(
    folder: Path, annotated: dict[str, Annotated], fix: bool, watch: Watch
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The same of COCO files that are there."""
    images = list[Path]()
    for split in annotated.values():
        with contextlib.suppress(DataError):  # images in folders below are found by the annotations alone
            images += list_files(folder, split.images).files.values()
    return {NAME: _object_text(folder, annotated, images, fix, watch)}, crowd_notes(annotated)


def _object_text(folder: Path, annotated: dict[str, Annotated], images: list[Path], fix: bool, watch: Watch) -> str:
    head = _HEAD.replace("rename the classes, then look", "look")
    lines = [head + f"#   fpn check {folder.name} --sheet sheet.png", *object_lines(annotated, fix=fix)]
    return "\n".join([*lines, *_grey_lines(_all_names(images, watch))]) + "\n"


def _text(folder: Path, layout: Layout, colors: bool, watch: Watch) -> str:
    pairs = [pair for found in layout.pairs.values() for pair in found]
    labels = [pair.label for pair in pairs if pair.label is not None]
    lines = [_HEAD + f"#   fpn check {folder.name} --sheet sheet.png", "task: semantic"]
    if is_vector(labels[0]):
        lines += polygon_lines(pairs, watch)
    else:
        lines += _color_lines(labels, watch) if colors else _value_lines(labels, watch)
    lines += _band_lines([pair.image for pair in pairs], watch)
    lines.append("splits:")
    for name, split in layout.splits.items():
        parts = {"images": split.images, "labels": split.labels, "list": split.stems}
        lines.append(f"  {inline(name)}: {inline({key: part for key, part in parts.items() if part})}")
    return "\n".join(lines) + "\n"


def _value_lines(labels: list[Path], watch: Watch) -> list[str]:
    values, declared = _scan(labels, False, watch)
    ignored = [v for v in values if v < 0]  # no class has a value below 0
    others = [v for v in values if v >= 0]
    ignored += [v for v in dict.fromkeys((IGNORE, declared)) if v in others and len(others) > 2]
    values = [v for v in values if v not in ignored]
    if not values:
        found = f"labels that are all {', '.join(map(str, ignored))}" if ignored else "labels without a single value"
        raise DataError(found, file=labels[0].parent, allowed="classes have values from 0")
    names, table = read_legend(labels[0])
    called = ["background", "foreground"] if len(values) == 2 else [f"class{v}" for v in values]
    called = [names.get(value, name) for value, name in zip(values, called, strict=True)]
    lines = [f"ignore_index: {inline(ignored[0] if len(ignored) == 1 else ignored)}"] if ignored else []
    if table:
        rows = [
            {"name": name, "id": value, "color": list(table.get(value, (0, 0, 0)))}
            for value, name in zip(values, called, strict=True)
        ]
        return ["classes:", *(f"  - {inline(row)}" for row in rows), *lines]
    plain = values == list(range(len(values)))
    return [f"classes: {inline(called if plain else dict(zip(values, called, strict=True)))}", *lines]


def _color_lines(labels: list[Path], watch: Watch) -> list[str]:
    codes, _ = _scan(labels, True, watch)
    rows = [{"name": f"class{i}", "color": [code >> 16, code >> 8 & 255, code & 255]} for i, code in enumerate(codes)]
    return ["labels_are: colors", "classes:", *(f"  - {inline(row)}" for row in rows)]


def _scan(labels: list[Path], colors: bool, watch: Watch) -> tuple[list[int], int | None]:
    """The values that occur, in order, and the nodata value that most files declare."""

    def scan(path: Path) -> tuple[list[int], int | None]:
        found, nodata = _values(path, colors)
        if len(found) > _MOST_VALUES:
            raise DataError(f"{len(found)} different values", file=path, allowed="the values of at most 255 classes")
        return [int(v) for v in found], nodata

    values: set[int] = set()
    declared: Counter[Any] = Counter()
    for found, nodata in each(scan, spread(labels, _MOST_FILES), watch):
        values.update(found)
        declared[nodata] += 1
    if len(values) > _MOST_VALUES:
        raise DataError(f"{len(values)} different values in the labels", file=labels[0].parent, allowed="255 classes")
    nodata = declared.most_common(1)[0][0]
    return sorted(values), nodata


def _values(path: Path, colors: bool) -> tuple[NDArray[Any], int | None]:
    """The values of a label file, large ones by windows, and the one it declares as nodata.

    The transparent value of a PNG is none: it is mostly the background, made so to be laid over the image.
    """
    size = quick_size(path)
    if size is None or size[0] * size[1] <= SCENE_PIXELS:
        file: LabelFile = read_labels(path, colors=colors)
        return np.unique(_labelled(file, colors)), None if format_of(path) == "png" else file.nodata
    found, nodata = np.zeros(0, np.int64), None
    for window in tiles(size, (SIDE, SIDE)):
        file = read_labels(path, colors=colors, window=window)
        found, nodata = np.union1d(found, _labelled(file, colors)), file.nodata
    return found, nodata


def _labelled(file: LabelFile, colors: bool) -> NDArray[Any]:
    """The values that may be classes; a transparent colour may, as in `class_indices`."""
    return file.values if file.valid is None or colors else file.values[file.valid]


class _Names(NamedTuple):
    """The names of the bands of an image. full: with a band that is marked as alpha and is no mask."""

    plain: tuple[str, ...]
    full: tuple[str, ...]


def _band_lines(images: list[Path], watch: Watch) -> list[str]:
    """The names of the bands, if they are all different, and whether grey images are to be shown in colours."""
    found = _all_names(images, watch)
    if not found:
        return []
    names = [one.full for one in found]
    if len({len(one) for one in names}) > 1:  # what is marked as alpha in some files is none in others
        names = [one.plain for one in found]
    most = Counter(len(one) for one in names).most_common(1)[0][0]
    grey = _grey_lines(found)
    first = next(one for one in names if len(one) == (len(COLORS) if grey else most))
    return [*([f"bands: {inline(list(first))}"] if len(set(first)) == len(first) else []), *grey]


def _grey_lines(found: list[_Names]) -> list[str]:
    """What a dataset says that mixes grey images and images in colours."""
    mixed = {len(one.plain) for one in found} == {1, len(COLORS)}
    return ["grey_as_color: true # some images are grey, others in colours"] if mixed else []


def _all_names(images: list[Path], watch: Watch) -> list[_Names]:
    """Of the images that can be read; `fpn check` tells of the others."""
    found = each(_names_of, spread(images, _MOST_FILES), watch)
    return [names for names in found if names is not None]


def _names_of(path: Path) -> _Names | None:
    """The names of the bands of an image; a band of more than two values is no alpha mask."""
    try:
        size = quick_size(path)
        large = size is not None and size[0] * size[1] > SCENE_PIXELS and min(size) >= 64
        window = Window(0, 0, 64, 64) if large else None
        picture = read_image(path, window=window)
        names = list(picture.band_names)
        if picture.alpha is not None:
            marked = read_image(path, bands=[picture.alpha], window=window).array
            if len(np.unique(marked)) > 2:
                names.insert(picture.alpha - 1, f"band{picture.alpha}")
    except (DataError, OSError):
        return None
    return _Names(picture.band_names, tuple(names))
