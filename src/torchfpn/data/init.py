"""`fpn check --init`: writes a first dataset.yaml for a folder: what the files show; users name the classes."""

import contextlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from torchfpn.data.annotation_formats.conversion import convert_folder
from torchfpn.data.annotation_formats.labelled import MARK
from torchfpn.data.config import NAME, SCENE_PIXELS, DatasetConfig, read_dataset, refuse_yolo
from torchfpn.data.files import is_inside, list_files
from torchfpn.data.headers import quick_size
from torchfpn.data.layout import Layout, find_layout, image_folder, label_folder, order_splits, split_name
from torchfpn.data.parallel import Watch, map_threads, spread_evenly, unwatched
from torchfpn.data.reading import COLORS, SIDE, polygon_labels
from torchfpn.data.splits import Pair
from torchfpn.errors import ConfigError, DataError, FPNError, of_system
from torchfpn.geo.window import Window, tiles
from torchfpn.io.atomic import write_bytes, write_text
from torchfpn.io.formats import SUFFIXES, WINDOWED, format_of, is_vector
from torchfpn.io.images import read_image
from torchfpn.io.labels import LabelFile, read_labels, read_legend
from torchfpn.io.yaml_json import read_json, read_yaml
from torchfpn.recipe import IGNORE

_FIELDS = ("class", "classname", "class_name", "label", "landcover", "category", "kind", "type", "classid", "class_id")

_GENERIC = ("labels", "label", "polygons", "masks", "annotations", "train", "val", "test", "gt")  # no class names

_MAX_VECTOR_FILES, _MAX_FIELD_VALUES = 2000, 50

_BACKGROUND = "background"

_KEYS = ("images", "annotations", "categories")

_WORDS = "coco|annotations?|instances?|panoptic"  # in names of files beside the name of a split

_KINDS = re.compile(rf"^({_WORDS}|labels?)(_|$)|[_.]({_WORDS})$")

_FOLDERS = ("annotations", "labels", ".")  # of COCO files of datasets without folders for splits

_MAX_FILES = 2000  # files that are scanned, evenly spaced

_MAX_VALUES = 255

_HEAD = "# A first description, written by `fpn check --init`: rename the classes, then look at the contact sheet of\n"


class CocoSplit(NamedTuple):
    """A split with COCO annotations; paths are relative to the folder.

    Attributes:
        images: folder.
        annotations: file.
        masks: whether all objects have masks.
        crowds: whether all annotations are marked as crowds, so that there would be no object.
        stuff: whether they are panoptic and have classes that are no things.
    """

    images: str
    annotations: str
    masks: bool
    crowds: bool = False
    stuff: bool = False


def _silent(line: str) -> None:
    """Shows nothing."""


def init_dataset(
    folder: str | Path,
    *,
    colors: bool = False,
    overwrite: bool = False,
    fix: bool = False,
    watch: Watch = unwatched,
    tell: Callable[[str], None] = _silent,
) -> DatasetConfig:
    """Writes dataset.yaml into `folder`, with train.txt and val.txt if the images are not split yet, and reads it.

    Classes are the values in the labels; 255 or a declared nodata value means "not labelled" if two others remain.
    Categories of COCO files are classes. YOLO, LabelMe and Pascal VOC files are converted to COCO
    (`instances_train.json`). Nothing is left behind if the dataset cannot be used.

    Args:
        folder: of the dataset.
        colors: the colors of RGB masks are the classes.
        overwrite: replace existing files.
        fix: leave bad annotations out.
        watch: shows the progress.
        tell: gets notes for users, one line each.

    Raises:
        ConfigError: a dataset.yaml exists and not `overwrite`, or is YOLO's, or the folder cannot be written to.
        DataError: no images and labels, or files that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError("no such folder", file=folder)
    _refuse_described(folder / NAME)
    files, notes = _files(folder, colors, fix, watch)
    for name in files:
        if (folder / name).exists() and not overwrite:
            raise ConfigError("already exists", file=folder / name, hint="replace it with --overwrite")
    dataset = _write(folder, files)
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


def _write(folder: Path, files: dict[str, str]) -> DatasetConfig:
    """Writes the files and reads the dataset; on an error restores the folder."""
    before = {name: (folder / name).read_bytes() for name in files if (folder / name).is_file()}
    try:
        for name in reversed(files):  # lists before the dataset.yaml that names them
            write_text(folder / name, files[name])
        dataset = read_dataset(folder)
        for name in dataset.splits:
            dataset.pairs(name)
    except FPNError:
        _restore(folder, files, before)
        raise
    except OSError as error:
        _restore(folder, files, before)
        raise of_system(error, folder / NAME) from error
    return dataset


def _restore(folder: Path, files: dict[str, str], before: dict[str, bytes]) -> None:
    """Restores the files of the folder, so that nothing unusable is left."""
    for name in files:
        if name in before:
            if (folder / name).read_bytes() != before[name]:  # unchanged files need no write on a full disk
                write_bytes(folder / name, before[name])
        else:
            (folder / name).unlink(missing_ok=True)


def _files(folder: Path, colors: bool, fix: bool, watch: Watch) -> tuple[dict[str, str], tuple[str, ...]]:
    """The files to write, dataset.yaml first, and notes for users."""
    annotated = find_coco_splits(folder, converted=False)
    if annotated:
        return _annotated_files(folder, annotated, fix, watch)
    try:
        layout = find_layout(folder)
        return {NAME: _text(folder, layout, colors, watch), **layout.lists}, ()
    except DataError:
        found = convert_folder(folder, fix=fix, watch=watch)
        if found is None:
            annotated = find_coco_splits(folder)  # converted earlier
            if not annotated:
                raise
            return _annotated_files(folder, annotated, fix, watch)
    splits = {name: CocoSplit(".", f"instances_{name}.json", found.masks) for name in found.texts}
    text = _object_text(folder, splits, list(found.images), False, watch)
    return {NAME: text, **{splits[name].annotations: coco for name, coco in found.texts.items()}}, found.notes


def _annotated_files(
    folder: Path, annotated: dict[str, CocoSplit], fix: bool, watch: Watch
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The same for existing COCO files."""
    images = list[Path]()
    for split in annotated.values():
        with contextlib.suppress(DataError):  # images in subfolders are known to the annotations alone
            images += list_files(folder, split.images).files.values()
    return {NAME: _object_text(folder, annotated, images, fix, watch)}, crowd_warnings(annotated)


def _object_text(folder: Path, annotated: dict[str, CocoSplit], images: list[Path], fix: bool, watch: Watch) -> str:
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
    """The sorted values in label files, and the nodata value that most files declare."""

    def scan(path: Path) -> tuple[list[int], int | None]:
        found, nodata = _values(path, colors)
        if len(found) > _MAX_VALUES:
            raise DataError(f"{len(found)} different values", file=path, allowed="the values of at most 255 classes")
        return [int(v) for v in found], nodata

    values: set[int] = set()
    declared: Counter[Any] = Counter()
    for found, nodata in map_threads(scan, spread_evenly(labels, _MAX_FILES), watch):
        values.update(found)
        declared[nodata] += 1
    if len(values) > _MAX_VALUES:
        raise DataError(f"{len(values)} different values in the labels", file=labels[0].parent, allowed="255 classes")
    nodata = declared.most_common(1)[0][0]
    return sorted(values), nodata


def _values(path: Path, colors: bool) -> tuple[NDArray[Any], int | None]:
    """The values of a label file, read by windows if large, and its nodata value.

    The transparent value of a PNG does not count as nodata: it is mostly the background.
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
    """The values that may be classes; transparent colors may, as in `class_indices`."""
    return file.values if file.valid is None or colors else file.values[file.valid]


def polygon_lines(pairs: list[Pair], watch: Watch = unwatched) -> list[str]:
    """Lines of classes from polygons: the values of an attribute with a known name, or one class named after the file.

    Raises:
        DataError: a file that cannot be used.
    """
    polygon_labels()  # raises if packages for polygons are missing
    files = list(dict.fromkeys(pair.label for pair in pairs if pair.label is not None))
    field = _field(files)
    values, empty = _field_values(files, field, watch) if field else ([], False)
    if not 1 <= len(values) <= _MAX_FIELD_VALUES:
        name = files[0].stem if len(files) == 1 or len({file.stem for file in files}) == 1 else ""
        class_name = "object" if name.lower() in ("", *_GENERIC) else " ".join(re.split(r"[_\W]+", name))
        return [f"classes: {inline([_BACKGROUND, class_name])}", *_place_lines(pairs)]
    if all(isinstance(value, int) and value > 0 for value in values):
        classes: Any = {0: _BACKGROUND} | {value: f"class{value}" for value in values}
    else:
        classes = [_BACKGROUND, *(str(value) for value in values if value != _BACKGROUND)]
    settings = {"field": field} | ({"without_class": "ignore"} if empty else {})
    comment = " # some features have no class: their pixels are not labelled; skip: they are left out" if empty else ""
    return [f"classes: {inline(classes)}", f"polygons: {inline(settings)}{comment}", *_place_lines(pairs)]


def inline(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False)[1:-2]


def _field(files: list[Path]) -> str | None:
    """The first attribute with a known name in the first file that has attributes."""
    from torchfpn.io.vectors import field_names

    names = next((found for found in map(field_names, files[:20]) if found), [])
    known = {name.lower(): name for name in names}
    return next((known[name] for name in _FIELDS if name in known), None)


def _field_values(files: list[Path], field: str, watch: Watch) -> tuple[list[Any], bool]:
    """The sorted values of the attribute, and whether some feature has none."""
    from torchfpn.io.vectors import read_vectors

    def look(file: Path) -> tuple[set[Any], bool]:
        vectors = read_vectors(file, field=field)
        if vectors.column is None:
            return set(), False
        return set(vectors.column[~vectors.unclassed]), bool(vectors.unclassed.any())

    try:
        looks = list(map_threads(look, spread_evenly(files, _MAX_VECTOR_FILES), watch))
    except DataError:  # not every file has it
        return [], False
    found = set().union(*(values for values, _ in looks))
    if len({isinstance(value, int) for value in found}) > 1:
        return [], False
    return sorted(found), any(empty for _, empty in looks)


def _place_lines(pairs: list[Pair]) -> list[str]:
    """The line `tiles:` for images without georeference whose names are those of tiles: "OAM-{x}-{y}-{z}"."""
    first = pairs[0]
    if first.tiles is not None or _has_georeference(first.image):
        return []
    parts = re.split(r"(\d+)", first.image.stem)
    numbers = [int(part) for part in parts[1::2]]
    if len(numbers) != 3:
        return []
    zooms = [i for i, z in enumerate(numbers) if z <= 24 and all(n < 2**z for n in numbers[:i] + numbers[i + 1 :])]
    if not zooms:
        return []
    names = ["x", "y"]
    names.insert(zooms[0], "z")
    fits = re.compile(r"\d+".join(re.escape(part) for part in parts[::2]))
    if not all(fits.fullmatch(pair.image.stem) for pair in pairs):
        return []
    pattern = "".join(f"{{{names[i // 2]}}}" if i % 2 else part for i, part in enumerate(parts))
    return [f"tiles: {inline(pattern)} # z: zoom, x: column, y: row of a web map; guessed from the names"]


def _has_georeference(image: Path) -> bool:
    window = Window(0, 0, 1, 1) if format_of(image) in WINDOWED else None
    return read_image(image, window=window).geo is not None


def find_coco_splits(folder: Path, *, converted: bool = True) -> dict[str, CocoSplit]:
    """The splits that COCO files annotate, train first; empty without such files.

    Found are a file in the folder of a split (``train/instances.json`` beside ``train/images``, or beside the images),
    and files that name their split (``annotations/instances_train2017.json`` with ``train2017/`` or ``images``).
    Panoptic files are used if there are no others, with the folder of maps of the same name.

    Args:
        folder: of the dataset.
        converted: also files that `--init` has converted from other formats.

    Raises:
        DataError: panoptic annotations without maps, and no other labels.
    """
    found: dict[str, CocoSplit] = {}
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        own, images = _coco_files(child, converted), image_folder(child) or ("." if _has_images(child) else None)
        if len(own) == 1 and images and child.name not in _FOLDERS:
            file = own[0]
            where = child.name if images == "." else f"{child.name}/{images}"
            found[split_name(child.name)] = file.split(where, f"{child.name}/{file.path.name}")
    return order_splits(found or _in_one_folder(folder, converted))


def object_lines(found: dict[str, CocoSplit], *, fix: bool) -> list[str]:
    """Lines of task and splits; the categories are the classes. fix: leave bad annotations out."""
    masks, stuff = (all(getattr(split, key) for split in found.values()) for key in ("masks", "stuff"))
    lines = [f"task: {'panoptic' if stuff else 'instance' if masks else 'detection'}"]
    if fix:
        lines.append("fix: true # bad annotations are left out: `fpn check` counts them")
    if crowd_warnings(found):
        lines.append("crowds: objects # all annotations are marked `iscrowd: 1`, as CVAT marks masks")
    lines.append("splits:")
    for name, split in found.items():
        parts = {"images": split.images, "annotations": split.annotations}
        lines.append(f"  {inline(name)}: {inline(parts)}")
    return lines


def crowd_warnings(found: dict[str, CocoSplit]) -> tuple[str, ...]:
    """A warning if all annotations are crowds."""
    if not all(split.crowds for split in found.values()):
        return ()
    return (
        "all annotations are marked `iscrowd: 1`, as CVAT marks masks; they are read as objects: `crowds: objects`",
    )


def _in_one_folder(folder: Path, converted: bool) -> dict[str, CocoSplit]:
    """COCO files in one folder, each named after its split."""
    for name in _FOLDERS:
        files = _coco_files(folder / name, converted) if (folder / name).is_dir() else []
        prefix = "" if name == "." else f"{name}/"
        found = {}
        for file in files:
            word = _KINDS.sub("", file.path.stem)
            images = _images_of(folder, word, file.first)
            if images is not None:
                split = split_name(re.sub(r"\d+$", "", word)) if len(files) > 1 else "train"
                found[split] = file.split(images, f"{prefix}{file.path.name}")
        if found:
            return found
    return {}


def _images_of(folder: Path, word: str, first: str | None) -> str | None:
    """The folder of images of the split `word`, in which `first`, the first image of the annotations, lies."""
    images = image_folder(folder)
    named = [f"{images}/{word}", word] if word else []
    places = [name for name in [*named, images, "."] if name and (folder / name).is_dir()]
    for name in places if first else []:
        if is_inside(folder, folder / name / str(first)) and (folder / name / str(first)).is_file():
            return name
    return next((name for name in places if _has_images(folder / name)), None)


def _has_images(folder: Path) -> bool:
    return any(path.name.lower().endswith(SUFFIXES) for path in folder.iterdir())


class _CocoFile(NamedTuple):
    """A COCO file. masks, crowds, stuff: see `CocoSplit`. first: name of its first image."""

    path: Path
    masks: bool
    crowds: bool
    first: str | None
    stuff: bool = False

    def split(self, images: str, annotations: str) -> CocoSplit:
        """The split that it annotates; paths as in dataset.yaml."""
        return CocoSplit(images, annotations, self.masks, self.crowds, self.stuff)


def _coco_files(folder: Path, converted: bool) -> list[_CocoFile]:
    """The COCO files of instances in a folder, or else those of panoptic segments with maps.

    Raises:
        DataError: panoptic annotations without maps, and no other labels.
    """
    objects, panoptic = list[_CocoFile](), list[_CocoFile]()
    for path in sorted(folder.glob("*.json")):
        try:
            value: Any = read_json(path)[0]
        except DataError:  # another kind of file
            continue
        if not isinstance(value, dict) or not all(isinstance(value.get(key), list) for key in _KEYS):
            continue
        if not converted and isinstance(value.get("info"), dict) and MARK in value["info"]:
            continue
        records = [record for record in value["annotations"] if isinstance(record, dict)]
        if any("segments_info" in record for record in records):
            panoptic.append(_CocoFile(path, True, False, _first(value["images"]), _has_stuff(value["categories"])))
            continue
        own = [record for record in records if not record.get("iscrowd")]
        masks = bool(records) and all(record.get("segmentation") for record in own or records)
        objects.append(_CocoFile(path, masks, bool(records) and not own, _first(value["images"])))
    if objects:
        return objects
    whole = [file for file in panoptic if file.path.with_suffix("").is_dir()]
    if panoptic and not whole and label_folder(folder) is None:
        allowed = f"PNGs in {panoptic[0].path.stem}/ beside it"
        hint = "or name their folder in a dataset.yaml: panoptic"
        raise DataError("panoptic annotations without maps", file=panoptic[0].path, allowed=allowed, hint=hint)
    return whole


def _has_stuff(categories: list[Any]) -> bool:
    """Whether the categories of panoptic annotations are things and stuff."""
    kinds = {record.get("isthing") for record in categories if isinstance(record, dict)}
    return {0, 1} <= kinds


def _first(images: list[Any]) -> str | None:
    """The name of the first image, with slashes."""
    names = [record.get("file_name") for record in images[:1] if isinstance(record, dict)]
    return names[0].replace("\\", "/") if names and isinstance(names[0], str) and "\0" not in names[0] else None


class _Names(NamedTuple):
    """Names of the bands of an image. full: with a band that is marked as alpha but is no mask."""

    plain: tuple[str, ...]
    full: tuple[str, ...]


def _band_lines(images: list[Path], watch: Watch) -> list[str]:
    """The lines `bands:`, if all names differ, and `grey_as_color:`."""
    found = _all_names(images, watch)
    if not found:
        return []
    names = [one.full for one in found]
    if len({len(one) for one in names}) > 1:  # a band marked as alpha in some files only
        names = [one.plain for one in found]
    usual = Counter(len(one) for one in names).most_common(1)[0][0]
    grey = _grey_lines(found)
    first = next(one for one in names if len(one) == (len(COLORS) if grey else usual))
    return [*([f"bands: {inline(list(first))}"] if len(set(first)) == len(first) else []), *grey]


def _grey_lines(found: list[_Names]) -> list[str]:
    """The line `grey_as_color:` for datasets of grey and colored images."""
    mixed = {len(one.plain) for one in found} == {1, len(COLORS)}
    return ["grey_as_color: true # some images are grey, others in colours"] if mixed else []


def mixes_grey_and_color(images: list[Path], watch: Watch = unwatched) -> bool:
    """Whether some of the images that can be read are grey, and the others have three bands."""
    return bool(_grey_lines(_all_names(images, watch)))


def _all_names(images: list[Path], watch: Watch) -> list[_Names]:
    """Names of the bands of the images that can be read; `fpn check` reports the others."""
    found = map_threads(_names_of, spread_evenly(images, _MAX_FILES), watch)
    return [names for names in found if names is not None]


def _names_of(path: Path) -> _Names | None:
    """Names of the bands of an image; a band of more than two values is no alpha mask."""
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
