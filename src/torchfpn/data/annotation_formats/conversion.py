"""Folders annotated with YOLO, LabelMe or Pascal VOC files: found, read, written as one COCO file for each split."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchfpn.data.annotation_formats.labelled import MARK, BadObject, Format, LabelledObject
from torchfpn.data.annotation_formats.labelme import LabelMe
from torchfpn.data.annotation_formats.pascal_voc import PascalVoc
from torchfpn.data.annotation_formats.yolo import Yolo
from torchfpn.data.files import is_inside
from torchfpn.data.headers import quick_size
from torchfpn.data.layout import IMAGE_FOLDERS, LABEL_FOLDERS, SPLIT_FOLDERS, hold_out, order_splits, split_name
from torchfpn.data.parallel import Watch, map_threads, unwatched
from torchfpn.data.splits import Problem, natural_key, raise_problems
from torchfpn.errors import DataError, amount
from torchfpn.io.formats import SUFFIXES, name_key
from torchfpn.io.images import read_image
from torchfpn.types import Size

_Key = tuple[str, ...]  # what an image and its labels share

_LOOKED = 50  # label files that are looked at to tell the format

_DARKNET = {"obj_train_data": "train", "obj_valid_data": "val", "obj_test_data": "test"}


@dataclass(frozen=True)
class Conversion:
    """texts: COCO files by split. images: of all of them. masks: every object has one. notes: what was decided."""

    texts: dict[str, str]
    images: tuple[Path, ...]
    masks: bool
    notes: tuple[str, ...]


@dataclass
class _Read:
    """One image and what its file says. label: None where nothing is labelled."""

    image: Path
    label: Path | None
    size: Size
    things: list[LabelledObject] = field(default_factory=list)
    bad: list[BadObject] = field(default_factory=list)


def convert_folder(folder: Path, *, fix: bool = False, watch: Watch = unwatched) -> Conversion | None:
    """What the files of a folder say as COCO; None if it is annotated in none of the three formats.

    Splits are the folders that are named so, lists (data.yaml, ImageSets), or 80 to 20 by the hash of the names.

    Args:
        folder: the root of the data set.
        fix: leave out bad objects and count them; no class is emptied.
        watch: shows how far the reading is.

    Raises:
        DataError: bad objects or files, at most 20 by name.
    """
    images, twins, files = _scan(folder)
    for suffix, make in _FORMATS.items():
        labels = {key: path for key, path in files.get(suffix, {}).items() if key in images}
        kind = make(folder, list(labels.values())) if labels else None
        shown = [path for path in sorted(labels.values()) if path.stat().st_size][:_LOOKED]
        if kind is not None and any(map(kind.matches, shown)):
            raise_problems([twin for twin in twins if _key(folder, twin.file) in labels])
            return _converted(folder, kind, images, files[suffix], fix, watch)
    return None


_FORMATS: dict[str, Callable[[Path, list[Path]], Format]] = {
    ".json": lambda folder, labels: LabelMe(),
    ".xml": lambda folder, labels: PascalVoc(labels),
    ".txt": lambda folder, labels: Yolo(folder, sorted({path.parent for path in labels})),
}


def _converted(
    folder: Path,
    kind: Format,
    images: dict[_Key, Path],
    labels: dict[_Key, Path],
    fix: bool,
    watch: Watch,
) -> Conversion:
    alone = [path for key, path in labels.items() if key not in images and kind.matches(path)]
    problems = [Problem(path, f"{kind.name} without an image of its name") for path in alone]
    places = {image.parent for key, image in images.items() if key in labels} if kind.background else set()
    wanted = [(image, labels.get(key)) for key, image in images.items() if key in labels or image.parent in places]

    def read(item: tuple[Path, Path | None]) -> _Read | Problem:
        image, label = item
        try:
            found = _Read(image, label, quick_size(image) or read_image(image).size)
            if label is not None and (label.stat().st_size or not kind.background):
                found.things, found.bad = kind.read(label, found.size)
            return found
        except DataError as error:
            return Problem(Path(error.file or image), error.found)

    done = list(map_threads(read, wanted, watch))
    problems += [one for one in done if isinstance(one, Problem)]
    reads = [one for one in done if isinstance(one, _Read)]
    problems += _bad(reads, fix)
    raise_problems(problems)
    splits, notes = _split(folder, kind, reads)
    bare = sum(one.label is None for one in reads)
    notes += [f"{amount(bare, 'image')} without a {kind.suffix} file, taken for images without objects"] if bare else []
    left = len(images) - len(wanted)
    notes += [f"{amount(left, 'image')} without a {kind.suffix} file left out"] if left else []
    crowds = sum(thing.crowd for one in reads for thing in one.things)
    notes += (
        [f"marked difficult, so not used in training or scores: {crowds:,}; `crowds: objects` reads them"]
        if crowds
        else []
    )
    lost = sum(len(one.bad) for one in reads)
    notes += [f"{amount(lost, 'bad object')} left out, as --fix says"] if lost else []
    every = [thing for one in reads for thing in one.things]
    masked = [bool(thing.rings or thing.runs) for thing in every if not thing.crowd]
    if any(masked) and not all(masked):
        notes.append(
            f"{amount(len(masked) - sum(masked), 'object')} of {len(masked):,} have boxes only: masks are not trained"
        )
    categories = _categories(kind, every)
    texts = {name: _coco(folder, kind, categories, chosen) for name, chosen in splits.items()}
    return Conversion(texts, tuple(one.image for one in reads), bool(masked) and all(masked), (*notes, *kind.notes()))


def _bad(reads: list[_Read], fix: bool) -> list[Problem]:
    """Objects that cannot be used; with `fix` only those without which a class would be empty."""
    if not fix:
        return [
            Problem(one.label or one.image, f"{bad.line} (--init --fix leaves it out)")
            for one in reads
            for bad in one.bad
        ]
    kept = {thing.label for one in reads for thing in one.things}
    lost = Counter(bad.label for one in reads for bad in one.bad if bad.label is not None)
    emptied = [label for label in lost if label not in kept]
    return [
        Problem(
            one.label or one.image,
            f'{bad.line}; --fix would leave nothing of "{bad.label}" ({lost[bad.label]}); repair it',
        )
        for one in reads
        for bad in one.bad
        if bad.label in emptied
    ]


def _scan(folder: Path) -> tuple[dict[_Key, Path], list[Problem], dict[str, dict[_Key, Path]]]:
    """Images, those of them that would have the same labels, and files that may label them by suffix."""
    images: dict[_Key, Path] = {}
    twins: list[Problem] = []
    files: dict[str, dict[_Key, Path]] = {}
    for path in _walk(folder):
        key, suffix = _key(folder, path), path.suffix.lower()
        if suffix in _FORMATS:
            files.setdefault(suffix, {}).setdefault(key, path)
        elif suffix in SUFFIXES and (key not in images or _among_labels(folder, images[key])):
            images[key] = path
        elif suffix in SUFFIXES and not _among_labels(folder, path):  # else a mask
            twins.append(Problem(path, f"has the same name as {images[key].relative_to(folder)}"))
    return images, twins, files


def _among_labels(folder: Path, path: Path) -> bool:
    """Whether an image lies in a folder of labels."""
    return any(part.lower() in LABEL_FOLDERS for part in path.relative_to(folder).parts[:-1])


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder in natural order; hidden ones and links that lead out are left alone."""
    for top, folders, names in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        for name in sorted(names, key=natural_key):
            path = Path(top, name)
            if not name.startswith(".") and (not path.is_symlink() or is_inside(folder, path)) and path.is_file():
                yield path


def _key(folder: Path, path: Path) -> _Key:
    """What an image and its labels share: their path without "images", "labels" and the like, and the suffix."""
    parts = path.relative_to(folder).parts[:-1]
    known = (*IMAGE_FOLDERS, *LABEL_FOLDERS, "xmls", "json", "xml", "txt")
    return (*(part for part in parts if part.lower() not in known), name_key(path.stem))


def _split(folder: Path, kind: Format, reads: list[_Read]) -> tuple[dict[str, list[_Read]], list[str]]:
    """The images of each split, train first, and what people should know of how they were split."""
    listed = _listed(folder, kind)
    places = listed or {one.image: name for one in reads if (name := _named(folder, one.image))}
    splits: dict[str, list[_Read]] = {}
    if places:
        for one in reads:
            if one.image in places:
                splits.setdefault(places[one.image], []).append(one)
        left = sum(one.image not in places for one in reads)
        return order_splits(splits), [f"{amount(left, 'image')} in no split left out"] if left else []
    if len(reads) < 2:
        return {"train": reads}, []
    names = {one.image.relative_to(folder).as_posix(): one for one in reads}
    held = hold_out(list(names))
    parts = {"train": [one for name, one in names.items() if name not in held], "val": [names[name] for name in held]}
    return parts, [f"split 80 to 20 by the hash of the names: {len(parts['train'])} train, {len(parts['val'])} val"]


def _named(folder: Path, image: Path) -> str | None:
    """The split that a folder above an image is named after."""
    for part in image.relative_to(folder).parts[:-1]:
        if part.lower() in SPLIT_FOLDERS:
            return split_name(part)
        if part.lower() in _DARKNET:
            return _DARKNET[part.lower()]
    return None


def _listed(folder: Path, kind: Format) -> dict[Path, str]:
    """The splits that lists name: ImageSets of Pascal VOC, or train, val and test of a data.yaml."""
    images = {path: _key(folder, path) for path in _walk(folder) if path.suffix.lower() in SUFFIXES}
    found: dict[Path, str] = {}
    if isinstance(kind, PascalVoc):
        for path in sorted(folder.glob("ImageSets/Main/*.txt")):
            if path.stem in ("train", "val", "test"):
                stems = {
                    name_key(line.split()[0])
                    for line in path.read_text("utf-8", "replace").splitlines()
                    if line.split()
                }
                found |= {image: path.stem for image, key in images.items() if key[-1] in stems}
    description = kind.description if isinstance(kind, Yolo) and isinstance(kind.description, dict) else {}
    for word in ("train", "val", "valid", "test"):
        entries = description.get(word)
        for entry in entries if isinstance(entries, list) else [entries]:
            where = _place(folder, str(entry), description.get("path")) if entry else None
            if where is None:
                continue
            chosen = set(_lines(folder, where)) if where.is_file() else {p for p in images if p.is_relative_to(where)}
            found = {path: split_name(word) for path in images if path in chosen} | found
    return found


def _place(folder: Path, entry: str, start: Any = None) -> Path | None:
    """A file or folder below the root that a path ends in, whatever it begins with on the machine that wrote it."""
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for i in range(len(parts)):
        path = folder.joinpath(*parts[i:])
        if path.exists() and is_inside(folder, path):
            return path
    return None


def _lines(folder: Path, path: Path) -> Iterator[Path]:
    for line in path.read_text("utf-8", "replace").splitlines():
        found = _place(folder, line.strip()) if line.strip() else None
        if found is not None:
            yield found


def _categories(kind: Format, things: list[LabelledObject]) -> dict[str, int]:
    """Names and ids: YOLO's numbers, else from 1 in the order of the names."""
    names = kind.names()
    if names is not None:
        return {name: i for i, name in enumerate(names)}
    return {name: i + 1 for i, name in enumerate(sorted({thing.label for thing in things}, key=natural_key))}


def _coco(folder: Path, kind: Format, categories: dict[str, int], reads: list[_Read]) -> str:
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for i, one in enumerate(reads, start=1):
        name = one.image.relative_to(folder).as_posix()
        images.append({"id": i, "file_name": name, "height": one.size[0], "width": one.size[1]})
        for thing in one.things:
            head = {"id": len(annotations) + 1, "image_id": i, "category_id": categories[thing.label]}
            annotations.append(head | thing.record())
    value = {
        "info": {MARK: kind.name},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }
    return json.dumps(value, ensure_ascii=False) + "\n"
