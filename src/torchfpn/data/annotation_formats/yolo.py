"""YOLO's text files: a line for each object, its class by number, boxes or polygons as shares of the image.

``class x y width height`` is a box by its centre, ``class x y x y x y ...`` a polygon. The names of the classes are in
a data.yaml (`names`), or one on each line of classes.txt, obj.names and the like.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torchfpn.data.annotation_formats.labelled import (
    BadObject,
    LabelledObject,
    box_object,
    polygon_object,
    read_small_file,
)
from torchfpn.errors import ConfigError, DataError
from torchfpn.io.yaml_json import read_yaml
from torchfpn.types import Size

_LISTS = ("classes.txt", "obj.names", "classes.names", "names.txt")

_BEYOND = 0.01  # of the image, that rounding may take a share out of 0..1


class Yolo:
    """folder: of the data set. places: the folders where its labels lie."""

    name, suffix, background = "YOLO", ".txt", True

    def __init__(self, folder: Path, places: Iterable[Path]) -> None:
        self.description = _description(folder)
        self._names = _names(self.description) or _listed([folder, *places])

    def names(self) -> list[str] | None:
        """The classes in their order."""
        return self._names

    def matches(self, path: Path) -> bool:
        """Whether the first line is numbers."""
        try:
            with path.open("rb") as handle:
                first = handle.read(4096).decode("utf-8-sig").strip().splitlines()[:1]
            return bool(first) and len([float(word) for word in first[0].split()[:5]]) == 5
        except (OSError, ValueError):
            return False

    def read(self, path: Path, size: Size) -> tuple[list[LabelledObject], list[BadObject]]:
        """The objects of an image of (height, width) `size`.

        Raises:
            DataError: no text, or keypoints.
        """
        if isinstance(self.description, dict) and "kpt_shape" in self.description:
            raise DataError("keypoints (kpt_shape)", file=path, allowed="boxes or polygons")
        things, bad = list[LabelledObject](), list[BadObject]()
        try:
            lines = read_small_file(path).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 (byte {error.start})", file=path) from error
        for number, line in enumerate(lines, start=1):
            words = line.split()
            label = None
            try:
                if words:
                    label = self._label(words[0])
                    things.append(_thing(label, words[1:], size))
            except (DataError, ValueError) as error:
                found = error.found if isinstance(error, DataError) else f"{line[:40]!r}; numbers"
                bad.append(BadObject(f"line {number}: {found}", label))
        return things, bad

    def notes(self) -> list[str]:
        """What people should know of how the files were read."""
        if self._names is not None:
            return []
        return ["no data.yaml or classes.txt names the classes: they are called class0, class1, ..."]

    def _label(self, word: str) -> str:
        number = float(word)
        if not number.is_integer() or not 0 <= number < 2**16:
            raise DataError(f"the class {word}; a whole number from 0")
        if self._names is None:
            return f"class{int(number)}"
        if number >= len(self._names):
            raise DataError(f"the class {int(number)}; 0 to {len(self._names) - 1}, as named")
        return self._names[int(number)]


def _thing(label: str, words: Sequence[str], size: Size) -> LabelledObject:
    values = [float(word) for word in words]
    wrong = [value for value in values if not -_BEYOND <= value <= 1 + _BEYOND]
    if wrong:
        raise DataError(f"the value {wrong[0]:.6g}; shares of the image, 0 to 1, not pixels")
    height, width = size
    if len(values) == 4:
        x, y, w, h = values
        if w <= 0 or h <= 0:
            raise DataError("a box without an area")
        return box_object(label, _clipped([x - w / 2, y - h / 2, x + w / 2, y + h / 2], size), size)
    if len(values) < 6 or len(values) % 2:
        allowed = "4 of a box, or pairs of a polygon; scores and keypoints are not read"
        raise DataError(f"{len(values)} values after the class; {allowed}")
    ring = [value * (height if i % 2 else width) for i, value in enumerate(values)]
    return polygon_object(label, [ring], size)


def _clipped(shares: Sequence[float], size: Size) -> list[float]:
    height, width = size
    return [min(max(value, 0.0), 1.0) * (height if i % 2 else width) for i, value in enumerate(shares)]


def _description(folder: Path) -> Any:
    """The first YAML file with `names`, as data.yaml has them."""
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            value = read_yaml(path)
        except ConfigError:  # whatever it is
            continue
        if isinstance(value, dict) and isinstance(value.get("names"), list | dict):
            return value
    return None


def _names(description: Any) -> list[str] | None:
    if description is None:
        return None
    names = description["names"]
    rows = names if isinstance(names, list) else [names.get(i) for i in range(len(names))]
    return None if None in rows else [" ".join(str(name).split()) for name in rows]


def _listed(folders: Iterable[Path]) -> list[str] | None:
    for folder in folders:
        for name in _LISTS:
            if (folder / name).is_file():
                try:
                    lines = read_small_file(folder / name).decode("utf-8-sig").splitlines()
                except UnicodeDecodeError as error:
                    raise DataError(f"not UTF-8 (byte {error.start})", file=folder / name) from error
                return [" ".join(line.split()) for line in lines if line.strip()]
    return None
