"""Reading COCO annotations: every record is checked; good ones become arrays, bad ones are listed by their path.

Nothing of the file reaches compiled code before it has been checked: libraries of run lengths trust what they get.
"""

import functools
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torchfpn.data.annotations import Annotations, Shape, Shapes
from torchfpn.data.coco_files import ImageFiles
from torchfpn.data.coco_shapes import BadValueError, Box, Cut, check_area, check_box, check_shape
from torchfpn.data.strict_json import Flaw, Keys, read_json, shown
from torchfpn.errors import DataError, nearest
from torchfpn.types import Size

_LISTS = ("images", "annotations", "categories")
_ORDER = {"categories": 1, "images": 2, "annotations": 3}
_KEPT = 8  # files whose annotations are kept
_IDS = 2**63
_lock = threading.Lock()


class Category(NamedTuple):
    """A class as the file has it."""

    id: int
    name: str


class Wanted(NamedTuple):
    """What is wanted of a file. root: of the dataset; folder: of the images, below it. masks: as well as boxes.

    files: the images are wanted, too, and have to be there.
    """

    root: Path
    folder: Path
    masks: bool
    files: bool = True


@dataclass(frozen=True)
class Coco:
    """What a file turned out to be: the good annotations, and what is wrong with the others.

    categories: the labels of the annotations are places among them. cuts: places in `flaws` of boxes that only reach
    out of their image; they are among the annotations, cut.
    """

    annotations: Annotations
    categories: tuple[Category, ...]
    flaws: tuple[Flaw, ...]
    cuts: frozenset[int] = frozenset()

    @property
    def dropped(self) -> dict[str, int]:
        """What was left out or cut, counted: {"images": 1, "annotations": 3, "boxes cut": 2}."""
        found = Counter(
            "boxes cut" if i in self.cuts else str(flaw.keys[0]) for i, flaw in enumerate(self.flaws) if flaw.keys
        )
        return dict(sorted(found.items()))


def read_coco(path: Path, wanted: Wanted) -> Coco:
    """The annotations of a file; read once a process.

    Raises:
        DataError: no file, not JSON, or without the lists that make it a COCO file.
    """
    try:
        stamp = path.stat().st_mtime_ns, path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror or error})", file=path) from error
    with _lock:
        found = _kept(path, stamp, wanted)
    if isinstance(found, DataError):
        raise DataError(found.found, file=found.file, field=found.field, allowed=found.allowed, hint=found.hint)
    return found


def in_classes(coco: Coco, classes: Sequence[Category], ignored: Collection[int] = ()) -> Coco:
    """The same with labels that are places among `classes`: of a category the class of its name, else of its id.

    Annotations of categories that are no class are left out; if the category is not `ignored`, that is a flaw.
    """
    names = {each.name: i for i, each in enumerate(classes)}
    ids = {each.id: i for i, each in enumerate(classes)}
    table, flaws = np.full(len(coco.categories), -1), []
    for i, category in enumerate(coco.categories):
        place = names.get(category.name, ids.get(category.id, -1))
        if category.id not in ignored:
            table[i] = place
        if place < 0 and category.id not in ignored:
            hint = f"{nearest(category.name, names)}; or leave it out: ignore_index: {category.id}"
            flaws.append(Flaw(("categories", i), f'"{category.name}" is no class of the dataset; {hint}'))
    annotations = coco.annotations.relabelled(table)
    cuts = frozenset(at + len(flaws) for at in coco.cuts)
    return replace(coco, annotations=annotations, categories=tuple(classes), flaws=(*flaws, *coco.flaws), cuts=cuts)


@functools.lru_cache(_KEPT)
def _kept(path: Path, stamp: tuple[int, int], wanted: Wanted) -> Coco | DataError:
    try:
        value, flaws = _opened(path)
        return _Reader(wanted, flaws).read(path, value)
    except DataError as error:
        return error


def _opened(path: Path) -> tuple[dict[str, list[Any]], list[Flaw]]:
    value, flaws = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{shown(value)}", file=path, allowed="an object with images, annotations and categories")
    for key in _LISTS:
        if not isinstance(value.get(key), list):
            found = f'no list "{key}"' if key not in value else f"{key}: {shown(value[key])}"
            raise DataError(found, file=path, allowed="COCO: lists of images, annotations and categories")
    top = [flaw for flaw in flaws if not flaw.keys]
    if top:
        raise DataError(top[0].line, file=path)
    return value, flaws


class _Reader:
    """Goes through one file. Collects flaws on the way; records that have one are left out."""

    def __init__(self, wanted: Wanted, flaws: list[Flaw]) -> None:
        self.wanted, self.flaws, self.cuts = wanted, flaws, set[int]()
        self.odd = {flaw.keys[:2] for flaw in flaws}  # records that are bad already

    def read(self, path: Path, value: dict[str, list[Any]]) -> Coco:
        categories = self._categories(value["categories"])
        classes = {number: place for place, number in enumerate(categories)}
        images = self._images(value["images"])
        places = {number: (i, size) for i, (number, size, _) in enumerate(images)}
        known = {record["id"] for record in value["images"] if isinstance(record, dict) and _is_id(record.get("id"))}
        rows = self._objects(value["annotations"], places, known, classes)
        rows.sort(key=lambda row: row[0])
        annotations = Annotations(
            file=path,
            folder=self.wanted.folder,
            names=tuple(name for _, _, name in images),
            sizes=np.array([size for _, size, _ in images], np.int32).reshape(-1, 2),
            ids=np.array([number for number, _, _ in images], np.int64),
            first=np.searchsorted([row[0] for row in rows], np.arange(len(images) + 1)).astype(np.int64),
            boxes=np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
            labels=np.array([row[2] for row in rows], np.int32),
            crowd=np.array([row[3] for row in rows], bool),
            numbers=np.array([row[4] for row in rows], np.int64),
            areas=np.array([row[5] for row in rows], np.float32),
            shapes=Shapes.of([row[6] for row in rows]) if self.wanted.masks else None,
        )
        order = sorted(range(len(self.flaws)), key=lambda i: _place(self.flaws[i]))
        cuts = frozenset(at for at, i in enumerate(order) if i in self.cuts)
        return Coco(annotations, tuple(categories.values()), tuple(self.flaws[i] for i in order), cuts)

    def _categories(self, records: Sequence[Any]) -> dict[int, Category]:
        """By their ids."""
        found: dict[int, Category] = {}
        names: dict[str, int] = {}
        for i, record in enumerate(records):
            number = self._id("categories", i, record, found)
            if number is None:
                continue
            name = record.get("name")
            if not isinstance(name, str) or not name.strip():
                self._flaw(("categories", i, "name"), f"{shown(name)}; text")
            elif name in names:
                self._flaw(("categories", i, "name"), f'"{name}" again, as categories[{names[name]}]')
            else:
                names[name] = i
                found[number] = Category(number, " ".join(name.split()))
        return found

    def _images(self, records: Sequence[Any]) -> list[tuple[int, Size, str]]:
        """(id, size, file name) of the good ones."""
        files = ImageFiles(self.wanted.root, self.wanted.folder)
        found: dict[int, tuple[int, Size, str]] = {}
        for i, record in enumerate(records):
            number = self._id("images", i, record, found)
            if number is None:
                continue
            size = self._size(i, record)
            flaw = files.flaw(record.get("file_name"), i) if self.wanted.files else None
            if flaw is not None:
                self._flaw(("images", i, "file_name"), flaw)
            elif size is not None:
                found[number] = (number, size, str(record.get("file_name", number)))
        return list(found.values())

    def _size(self, i: int, record: dict[str, Any]) -> Size | None:
        for key in ("height", "width"):
            value = record.get(key)
            if type(value) is not int or not 0 < value < 2**31:
                self._flaw(("images", i, key), f"{shown(value)}; a number of pixels")
                return None
        return record["height"], record["width"]

    def _objects(
        self,
        records: Sequence[Any],
        images: dict[int, tuple[int, Size]],
        known: set[Any],
        classes: dict[int, int],
    ) -> list[tuple[int, Box, int, bool, int, float, Shape]]:
        """(place of the image, box, class, crowd, id, area, shape) of the good ones."""
        found = []
        numbers: dict[int, int] = {}
        for i, record in enumerate(records):
            number = self._id("annotations", i, record, numbers)
            if number is None:
                continue
            numbers[number] = i
            try:
                row = self._object(i, record, images, known, classes)
            except BadValueError as bad:
                self._flaw(("annotations", i, *bad.keys), bad.line)
                continue
            if row is not None:
                at, box, label, crowd, area, shape = row
                found.append((at, box, label, crowd, number, area, shape))
        return found

    def _object(
        self,
        i: int,
        record: dict[str, Any],
        images: dict[int, tuple[int, Size]],
        known: set[Any],
        classes: dict[int, int],
    ) -> tuple[int, Box, int, bool, float, Shape] | None:
        image, category = record.get("image_id"), record.get("category_id")
        if not _is_id(image) or image not in known:
            raise BadValueError(("image_id",), f"{shown(image)}; the id of one of the images")
        if not _is_id(category) or category not in classes:
            raise BadValueError(("category_id",), f"{shown(category)}; the id of one of the categories")
        if image not in images:  # it is bad itself
            return None
        at, size = images[image]
        crowd = record.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise BadValueError(("iscrowd",), f"{shown(crowd)}; 0 or 1")
        found = check_box(record.get("bbox"), size)
        cut, box = (found, found.box) if isinstance(found, Cut) else (None, found)
        area = check_area(record.get("area"), box) if cut is None else (box[2] - box[0]) * (box[3] - box[1])
        wanted = self.wanted.masks and not crowd
        shape = check_shape(record.get("segmentation"), size, box) if wanted else None
        if cut is not None:
            self.cuts.add(len(self.flaws))
            self._flaw(("annotations", i, "bbox"), cut.line)
        return at, box, classes[category], bool(crowd), area, shape

    def _id(self, key: str, i: int, record: Any, known: dict[int, Any]) -> int | None:
        """The id of a record that may be used, else None; what is wrong with it is noted."""
        if (key, i) in self.odd:
            return None
        if not isinstance(record, dict):
            self._flaw((key, i), f"{shown(record)}; an object")
            return None
        number: Any = record.get("id")
        if not _is_id(number):
            self._flaw((key, i, "id"), f"{shown(number)}; a whole number")
        elif number in known:
            self._flaw((key, i, "id"), f"{number} again")
        else:
            return int(number)
        return None

    def _flaw(self, keys: Keys, line: str) -> None:
        self.flaws.append(Flaw(keys, line))


def _is_id(value: Any) -> bool:
    return type(value) is int and -_IDS <= value < _IDS


def _place(flaw: Flaw) -> tuple[int, int]:
    """The order in which flaws are told: categories, images, annotations, each in the order of the file."""
    number = flaw.keys[1] if len(flaw.keys) > 1 else 0
    return _ORDER.get(str(flaw.keys[0]), 0), number if isinstance(number, int) else 0
