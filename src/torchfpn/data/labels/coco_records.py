"""Records that COCO instances and panoptic annotations share: categories, images, ids, files; panoptic segments."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.files import is_inside
from torchfpn.io.formats import name_key
from torchfpn.io.yaml_json import Flaw, Keys, shown
from torchfpn.types import Size


class ImageFiles:
    """Checks the files that a COCO file names: they exist, once each, below the root of the dataset.

    Args:
        root: of the dataset.
        folder: that names are relative to.
        key: of the records with the names.
        what: kind of the files, for messages.
    """

    def __init__(self, root: Path, folder: Path, *, key: str = "images", what: str = "images") -> None:
        self.root, self.folder, self.key, self.what = root, folder, key, what
        self._named: dict[str, int] = {}
        self._folders: dict[str, bool] = {}
        self._spellings: dict[Path, dict[str, str]] = {}

    def flaw(self, name: Any, number: int) -> str | None:
        """What is wrong with a name or its file; None if nothing. number: index of the record with the name."""
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            return f"{shown(name)}; expected the name of a file"
        pure = PurePosixPath(name.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", name):
            return f"{shown(name)} leads out of the folder of the {self.what}; a path below it"
        first = self._named.setdefault(str(pure), number)
        if first != number:
            return f"{shown(name)} again, as {self.key}[{first}]"
        try:
            return self._missing(name)
        except (OSError, ValueError) as error:  # too long, or not encodable
            return f"{shown(name)} cannot be opened ({getattr(error, 'strerror', None) or 'no name of a file'})"

    def name_on_disk(self, name: str) -> str:
        """The name on disk: the record may have other Unicode composition or backslashes."""
        if "\\" in name and not (self.folder / name).exists():
            name = name.replace("\\", "/")
        if name.isascii() or (self.folder / name).exists():
            return name
        folder = PurePosixPath(name).parent
        where = self.folder / folder
        if where not in self._spellings:  # each folder is listed once
            self._spellings[where] = {name_key(own.name): own.name for own in where.iterdir()} if where.is_dir() else {}
        own = self._spellings[where].get(name_key(PurePosixPath(name).name))
        return name if own is None else str(folder / own)

    def _missing(self, name: str) -> str | None:
        path = self.folder / self.name_on_disk(name)
        safe = self._is_inside(path.parent) and not path.is_symlink()
        if not safe and not is_inside(self.root, path):
            return f"{shown(name)} is a link that leads out of the root of the dataset"
        return None if path.is_file() else f"{shown(name)}: no such file in {self.folder}"

    def _is_inside(self, folder: Path) -> bool:
        """Whether a folder is below the root, resolved once: following links is slow."""
        key = str(folder)
        if key not in self._folders:
            self._folders[key] = is_inside(self.root, folder)
        return self._folders[key]


_ORDER = {"categories": 1, "images": 2, "annotations": 3}

_IDS = 2**63


class Category(NamedTuple):
    """A category of a COCO file."""

    id: int
    name: str


class RecordReader:
    """Reads the records of one file and collects flaws; records with a flaw are left out.

    Attributes:
        flaws: of the file.
        bad: keys of records with flaws of the JSON itself.
        roots: categories without annotations that only group others.
    """

    def __init__(self, flaws: list[Flaw]) -> None:
        self.flaws = flaws
        self.bad = {flaw.keys[:2] for flaw in flaws if not _repairable(flaw.keys)}
        self.roots = list[Category]()

    def categories(self, records: Sequence[Any], used: Collection[Any]) -> dict[int, Category]:
        """Reads categories, by id. used: ids that annotations name.

        Of two categories with one name, that without annotations is bad, unless it is a root: exports of Roboflow have
        a first category without annotations that is the `supercategory` of the others.
        """
        read: dict[int, tuple[int, Category]] = {}
        for i, record in enumerate(records):
            number = self.number("categories", i, record, read)
            if number is None:
                continue
            name = record.get("name")
            if isinstance(name, str) and name.strip():
                read[number] = i, Category(number, " ".join(name.split()))
            else:
                self.flaw(("categories", i, "name"), f"{shown(name)}; expected text")
        self.roots = _roots(records, read, used)
        owners: dict[str, int] = {}
        for i, category in sorted(read.values(), key=lambda one: one[1].id not in used):
            first = owners.setdefault(category.name, i)
            if first != i:
                del read[category.id]
                if category not in self.roots:
                    self.flaw(("categories", i, "name"), f'"{category.name}" again, as categories[{first}]')
        return {number: category for number, (_, category) in read.items()}

    def images(self, records: Sequence[Any], files: ImageFiles | None) -> list[tuple[int, Size, str]]:
        """(id, size, file name) of the good images. files: checks that they exist; None: no check."""
        found: dict[int, tuple[int, Size, str]] = {}
        for i, record in enumerate(records):
            number = self.number("images", i, record, found)
            if number is None:
                continue
            size = self._size(i, record)
            flaw = None if files is None else files.flaw(record.get("file_name"), i)
            if flaw is not None:
                self.flaw(("images", i, "file_name"), flaw)
            elif size is not None:
                name = str(record.get("file_name", number))
                found[number] = (number, size, name if files is None else files.name_on_disk(name))
        return list(found.values())

    def _size(self, i: int, record: dict[str, Any]) -> Size | None:
        for key in ("height", "width"):
            value = record.get(key)
            if type(value) is not int or not 0 < value < 2**31:
                self.flaw(("images", i, key), f"{shown(value)}; expected a number of pixels{_without_point(value)}")
                return None
        return record["height"], record["width"]

    def number(self, key: str, i: int, record: Any, known: dict[int, Any]) -> int | None:
        """The id of a good record, else None and a flaw."""
        if (key, i) in self.bad:
            return None
        if not isinstance(record, dict):
            self.flaw((key, i), f"{shown(record)}; expected an object")
            return None
        number: Any = record.get("id")
        if not is_id(number):
            self.flaw((key, i, "id"), f"{shown(number)}; expected a whole number{_without_point(number)}")
        elif number in known:
            self.flaw((key, i, "id"), f"{number} again")
        else:
            return int(number)
        return None

    def flaw(self, keys: Keys, line: str) -> None:
        """Adds a flaw."""
        self.flaws.append(Flaw(keys, line))

    def order(self) -> list[int]:
        """Indices of the flaws in order of report: categories, images, annotations, each in the order of the file."""
        return sorted(range(len(self.flaws)), key=lambda i: _place(self.flaws[i]))


def is_id(value: Any) -> bool:
    """Whether a value is an integer of 64 bits."""
    return type(value) is int and -_IDS <= value < _IDS


def count_lost(
    named: Iterable[Any], kept: Mapping[int, int], records: Sequence[Any]
) -> dict[Category, tuple[int, int]]:
    """The number of lost and of all annotations of each category that loses some.

    Args:
        named: category ids of all annotations, good or bad.
        kept: number of good annotations, by category id.
        records: of the categories in the file.
    """
    names = {number: records[i].get("name") for number, i in index_by_id(records).items()}
    counts = Counter(number for number in named if is_id(number) and number in names)
    return {
        Category(number, " ".join(str(names[number]).split())): (total - kept.get(number, 0), total)
        for number, total in sorted(counts.items())
        if total > kept.get(number, 0)
    }


def index_by_id(records: Sequence[Any]) -> dict[int, int]:
    """The first record with each id, by id."""
    found: dict[int, int] = {}
    for i, record in enumerate(records):
        if isinstance(record, dict) and is_id(record.get("id")):
            found.setdefault(record["id"], i)
    return found


def _without_point(value: Any) -> str:
    return ", written without a point" if isinstance(value, float) and value.is_integer() else ""


def _repairable(keys: Keys) -> bool:
    """Whether a flaw is in the area or one polygon of an annotation, which can be left out alone."""
    return keys[:1] == ("annotations",) and (
        keys[2:] == ("area",) or (keys[2:3] == ("segmentation",) and len(keys) > 4)
    )


def _roots(records: Sequence[Any], read: Mapping[int, tuple[int, Category]], used: Collection[Any]) -> list[Category]:
    """Categories without annotations that are the supercategory of others."""
    above: dict[Any, set[int]] = {}
    for i, _ in read.values():
        text = records[i].get("supercategory")
        above.setdefault(" ".join(text.split()) if isinstance(text, str) else None, set()).add(i)
    return [one for i, one in read.values() if one.id not in used and above.get(one.name, set()) - {i}]


def _place(flaw: Flaw) -> tuple[int, int]:
    number = flaw.keys[1] if len(flaw.keys) > 1 else 0
    return _ORDER.get(str(flaw.keys[0]), 0), number if isinstance(number, int) else 0


class Segment(NamedTuple):
    """One record of `segments_info`.

    Attributes:
        id: in the PNG.
        category: index among all categories; -1 of a bad record, whose id explains its pixels in the PNG.
        crowd: whether objects are not told apart.
        area: in pixels.
        box: (x1, y1, x2, y2) in pixels.
        place: index in `segments_info`.
    """

    id: int
    category: int
    crowd: bool
    area: float
    box: tuple[float, float, float, float]
    place: int


@dataclass(frozen=True)
class Segments:
    """The S segments of I images as arrays, those of an image in a row, in the order of the file.

    Attributes:
        folder: of the PNGs.
        maps: names of the PNGs of the images.
        records: int64 [I] index of the annotation of each image in the file.
        categories: all, things and stuff.
        things: which categories are things.
        first: int64 [I + 1] first segment of each image.
        ids: int64 [S] in the PNG.
        category: int32 [S] indices of `categories`, -1 of bad segments.
        crowd: bool [S].
        areas: float64 [S] in pixels.
        boxes: float32 [S, 4] (x1, y1, x2, y2) in pixels.
        places: int32 [S] index in `segments_info`.
        labels: int64 [S] classes, -1 of no class; None where stuff is no class.
    """

    folder: Path
    maps: tuple[str, ...]
    records: NDArray[np.int64]
    categories: tuple[Category, ...]
    things: tuple[bool, ...]
    first: NDArray[np.int64]
    ids: NDArray[np.int64]
    category: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    boxes: NDArray[np.float32]
    places: NDArray[np.int32]
    labels: NDArray[np.int64] | None = None

    def rows(self, image: int) -> NDArray[np.int64]:
        """Indices of the segments of an image in the arrays."""
        return np.arange(self.first[image], self.first[image + 1])


def stack_segments(
    folder: Path,
    images: Sequence[tuple[str, int, Sequence[Segment]]],
    categories: Sequence[Category],
    things: Sequence[bool],
) -> Segments:
    """Segments as arrays. images: name of the PNG, index of the annotation and segments of each image."""
    every = [segment for _, _, segments in images for segment in segments]
    return Segments(
        folder=folder,
        maps=tuple(name for name, _, _ in images),
        records=np.array([record for _, record, _ in images], np.int64),
        categories=tuple(categories),
        things=tuple(things),
        first=np.concatenate([[0], np.cumsum([len(segments) for _, _, segments in images])]).astype(np.int64),
        ids=np.array([one.id for one in every], np.int64),
        category=np.array([one.category for one in every], np.int32),
        crowd=np.array([one.crowd for one in every], bool),
        areas=np.array([one.area for one in every], np.float64),
        boxes=np.array([one.box for one in every], np.float32).reshape(-1, 4),
        places=np.array([one.place for one in every], np.int32),
    )
