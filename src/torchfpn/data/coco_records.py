"""The records that COCO's instances and panoptic annotations share: categories, images, ids; and what is wrong."""

from collections.abc import Sequence
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
    """Goes through one file. Collects flaws on the way; records that have one are left out."""

    def __init__(self, flaws: list[Flaw]) -> None:
        self.flaws = flaws
        self.odd = {flaw.keys[:2] for flaw in flaws}  # records that are bad already

    def categories(self, records: Sequence[Any]) -> dict[int, Category]:
        """By their ids."""
        found: dict[int, Category] = {}
        names: dict[str, int] = {}
        for i, record in enumerate(records):
            number = self.number("categories", i, record, found)
            if number is None:
                continue
            name = record.get("name")
            if not isinstance(name, str) or not name.strip():
                self.flaw(("categories", i, "name"), f"{shown(name)}; expected text")
            elif name in names:
                self.flaw(("categories", i, "name"), f'"{name}" again, as categories[{names[name]}]')
            else:
                names[name] = i
                found[number] = Category(number, " ".join(name.split()))
        return found

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
                self.flaw(("images", i, key), f"{shown(value)}; expected a number of pixels")
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
            self.flaw((key, i, "id"), f"{shown(number)}; expected a whole number")
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


def places_of(records: Sequence[Any]) -> dict[int, int]:
    """Of every id, good or bad, the record that has it first."""
    found: dict[int, int] = {}
    for i, record in enumerate(records):
        if isinstance(record, dict) and is_id(record.get("id")):
            found.setdefault(record["id"], i)
    return found


def _place(flaw: Flaw) -> tuple[int, int]:
    number = flaw.keys[1] if len(flaw.keys) > 1 else 0
    return _ORDER.get(str(flaw.keys[0]), 0), number if isinstance(number, int) else 0
