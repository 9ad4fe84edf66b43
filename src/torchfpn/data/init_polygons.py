"""The lines of a first dataset.yaml about labels that are polygons: classes, attribute, and where the images lie."""

import re
from pathlib import Path
from typing import Any

import yaml

from torchfpn.data.each import Watch, each, spread, unwatched
from torchfpn.data.splits import Pair
from torchfpn.errors import DataError
from torchfpn.files.geo import Window
from torchfpn.files.images import read_image

_FIELDS = ("class", "classname", "class_name", "label", "landcover", "category", "kind", "type", "classid", "class_id")
_ANY = ("labels", "label", "polygons", "masks", "annotations", "train", "val", "test", "gt")  # names that say nothing
_MOST_FILES, _MOST_VALUES = 2000, 50
_BACKGROUND = "background"


def polygon_lines(pairs: list[Pair], watch: Watch = unwatched) -> list[str]:
    """Classes from an attribute with a telling name and few values, or else one class called like the file.

    Raises:
        DataError: a file that cannot be used.
    """
    from torchfpn.data.reading import burning

    burning()  # says so if what reads polygons is not installed
    files = list(dict.fromkeys(pair.label for pair in pairs if pair.label is not None))
    field = _field(files)
    values, empty = _values(files, field, watch) if field else ([], False)
    if not 1 <= len(values) <= _MOST_VALUES:
        name = files[0].stem if len(files) == 1 or len({file.stem for file in files}) == 1 else ""
        called = "object" if name.lower() in ("", *_ANY) else " ".join(re.split(r"[_\W]+", name))
        return [f"classes: {inline([_BACKGROUND, called])}", *_place_lines(pairs)]
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
    """The attribute of the first file whose name promises classes."""
    from torchfpn.vectors.reading import field_names

    names = next((found for found in map(field_names, files[:20]) if found), [])
    known = {name.lower(): name for name in names}
    return next((known[name] for name in _FIELDS if name in known), None)


def _values(files: list[Path], field: str, watch: Watch) -> tuple[list[Any], bool]:
    """What the attribute says, in order, and whether some feature has no value."""
    from torchfpn.vectors.reading import read_vectors

    def look(file: Path) -> tuple[set[Any], bool]:
        vectors = read_vectors(file, field=field)
        if vectors.column is None:
            return set(), False
        return set(vectors.column[~vectors.unclassed]), bool(vectors.unclassed.any())

    try:
        looks = list(each(look, spread(files, _MOST_FILES), watch))
    except DataError:  # not every file has it
        return [], False
    found = set().union(*(values for values, _ in looks))
    if len({isinstance(value, int) for value in found}) > 1:
        return [], False
    return sorted(found), any(empty for _, empty in looks)


def _place_lines(pairs: list[Pair]) -> list[str]:
    """`tiles:`, where images do not say where they lie and all have names of tiles: "OAM-{x}-{y}-{z}"."""
    first = pairs[0]
    if first.tiles is not None or _has_place(first.image):
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


def _has_place(image: Path) -> bool:
    from torchfpn.files.formats import WINDOWED, format_of

    window = Window(0, 0, 1, 1) if format_of(image) in WINDOWED else None
    return read_image(image, window=window).geo is not None
