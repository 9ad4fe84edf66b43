"""The records that COCO's instances and panoptic annotations share: categories, images, ids; and what is wrong."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torchfpn.data.coco_files import ImageFiles
from torchfpn.data.strict_json import Flaw, Keys, shown
from torchfpn.types import Size

_ORDER = {"categories": 1, "images": 2, "annotations": 3}
_IDS = 2**63


class Category(NamedTuple):
    """A class as the file has it."""

    id: int
    name: str


class Records:
    """Goes through one file. Collects flaws on the way; records that have one are left out.

    odd: records that are bad already. roots: categories without annotations that only group others (`categories`).
    """

    def __init__(self, flaws: list[Flaw]) -> None:
        self.flaws = flaws
        self.odd = {flaw.keys[:2] for flaw in flaws if not _mendable(flaw.keys)}
        self.roots = list[Category]()

    def categories(self, records: Sequence[Any], used: Collection[Any]) -> dict[int, Category]:
        """By their ids. used: the ids that annotations name.

        Of two categories of one name the one without annotations is the bad one; it is no flaw if it is a root, as
        exports of Roboflow have it: a first category without annotations that is the `supercategory` of the others.
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
        """(id, size, file name) of the good ones. files: where they have to be; None: nowhere."""
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
                found[number] = (number, size, name if files is None else files.spelt(name))
        return list(found.values())

    def _size(self, i: int, record: dict[str, Any]) -> Size | None:
        for key in ("height", "width"):
            value = record.get(key)
            if type(value) is not int or not 0 < value < 2**31:
                self.flaw(("images", i, key), f"{shown(value)}; expected a number of pixels{_without_point(value)}")
                return None
        return record["height"], record["width"]

    def number(self, key: str, i: int, record: Any, known: dict[int, Any]) -> int | None:
        """The id of a record that may be used, else None; what is wrong with it is noted."""
        if (key, i) in self.odd:
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
        """Notes what is wrong."""
        self.flaws.append(Flaw(keys, line))

    def order(self) -> list[int]:
        """Places of the flaws as they are told: categories, images, annotations, each in the order of the file."""
        return sorted(range(len(self.flaws)), key=lambda i: _place(self.flaws[i]))


def is_id(value: Any) -> bool:
    """Whether it is a whole number of 64 bits."""
    return type(value) is int and -_IDS <= value < _IDS


def losses_of(named: Iterable[Any], kept: Mapping[int, int], records: Sequence[Any]) -> dict[Category, tuple[int, int]]:
    """Of each category that loses annotations: how many of how many.

    named: the category of every annotation, good or bad. kept: the number of good ones by id. records: the categories
    of the file; bad ones are called by their id.
    """
    names = {number: records[i].get("name") for number, i in places_of(records).items()}
    counts = Counter(number for number in named if is_id(number) and number in names)
    return {
        Category(number, " ".join(str(names[number]).split())): (total - kept.get(number, 0), total)
        for number, total in sorted(counts.items())
        if total > kept.get(number, 0)
    }


def places_of(records: Sequence[Any]) -> dict[int, int]:
    """Of every id, good or bad, the record that has it first."""
    found: dict[int, int] = {}
    for i, record in enumerate(records):
        if isinstance(record, dict) and is_id(record.get("id")):
            found.setdefault(record["id"], i)
    return found


def _without_point(value: Any) -> str:
    return ", written without a point" if isinstance(value, float) and value.is_integer() else ""


def _mendable(keys: Keys) -> bool:
    """Whether it is a number in the area or in one of the polygons of an annotation, which alone is then bad."""
    return keys[:1] == ("annotations",) and (
        keys[2:] == ("area",) or (keys[2:3] == ("segmentation",) and len(keys) > 4)
    )


def _roots(records: Sequence[Any], read: Mapping[int, tuple[int, Category]], used: Collection[Any]) -> list[Category]:
    """Categories without annotations that are the supercategory of another one."""
    above: dict[Any, set[int]] = {}
    for i, _ in read.values():
        text = records[i].get("supercategory")
        above.setdefault(" ".join(text.split()) if isinstance(text, str) else None, set()).add(i)
    return [one for i, one in read.values() if one.id not in used and above.get(one.name, set()) - {i}]


def _place(flaw: Flaw) -> tuple[int, int]:
    number = flaw.keys[1] if len(flaw.keys) > 1 else 0
    return _ORDER.get(str(flaw.keys[0]), 0), number if isinstance(number, int) else 0
