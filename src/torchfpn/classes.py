"""Classes: class index <-> label value <-> name <-> color, read from dataset.yaml; colors for classes without one."""

import colorsys
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.errors import ConfigError, DataError, amount, nearest
from torchfpn.io.formats import printable
from torchfpn.io.yaml_json import Fields, is_whole
from torchfpn.recipe import IGNORE
from torchfpn.types import Color

if TYPE_CHECKING:  # numpy is loaded with the first labels: `data.config` imports this module
    import numpy as np
    from numpy.typing import NDArray

# What people expect of a map or a street scene. The first word found in the name counts.
_MEANINGS: dict[Color, str] = {
    (38, 110, 196): "water river lake sea ocean",
    (34, 120, 60): "forest tree trees wood woodland",
    (122, 176, 72): "vegetation grass grassland meadow herbaceous pasture terrain",
    (226, 190, 90): "crop crops cropland field agriculture farmland",
    (206, 68, 58): "building buildings house roof urban built",
    (110, 106, 120): "road roads street asphalt",
    (176, 148, 126): "bare barren soil sand desert",
    (232, 236, 240): "snow ice glacier cloud clouds",
    (132, 182, 226): "sky",
    (226, 96, 30): "burned burnt fire burn",
    (214, 202, 176): "land unburned background other",
    (188, 92, 168): "pavement sidewalk path",
    (60, 60, 160): "car cars vehicle truck bus",
    (222, 48, 96): "person pedestrian people",
    (96, 200, 190): "bicyclist bicycle bike cyclist rider",
    (250, 200, 60): "sign signsymbol lamp",
}

_PALETTE: tuple[Color, ...] = (
    (78, 121, 167),
    (242, 142, 43),
    (89, 161, 79),
    (225, 87, 89),
    (118, 183, 178),
    (237, 201, 72),
    (176, 122, 161),
    (255, 157, 167),
    (156, 117, 95),
    (186, 176, 172),
    (31, 90, 90),
    (140, 209, 125),
)

MAX_CLASSES = 255  # labels are 0..254 inside torchfpn, 255 is IGNORE
MAX_ID = 2**31 - 1
UNKNOWN = -1  # stands for the class index of what is no class
LISTED = 20  # classes that a message lists


@dataclass(frozen=True)
class Class:
    """One class. id: its value in the label files. color: red, green, blue. thing: it can be counted (a car)."""

    name: str
    id: int
    color: Color
    thing: bool = False


@dataclass(frozen=True)
class ClassMap:
    """The classes of label files and polygons, by class index 0..K-1.

    Attributes:
        values: label value of each class.
        names: of each class.
        colors: of each class.
        ignored: label values that mean "not labelled"; none of them is a class.
        burn_value: label value of polygons without a class of their own.
        named: whether the names were given; else each label value is a class, named by its number.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ignored: frozenset[int] = frozenset({IGNORE})
    burn_value: int = 1
    named: bool = True

    @classmethod
    def of(
        cls,
        names: Mapping[int, str],
        colors: Mapping[int, Color] | None = None,
        *,
        ignored: Collection[int] = (),
        burn_value: int = 1,
        named: bool = True,
    ) -> "ClassMap":
        """A map of the classes in `names`, label value -> name; those without a color get one."""
        given = colors or {}
        chosen = class_colors(list(names.values()), [given.get(value) for value in names])
        return cls(tuple(names), tuple(names.values()), tuple(chosen), frozenset(ignored), burn_value, named)

    @cached_property
    def index(self) -> dict[int, int]:
        """Class index of each label value."""
        return {value: i for i, value in enumerate(self.values)}

    @property
    def name_of(self) -> dict[int, str]:
        """Name of each label value."""
        return dict(zip(self.values, self.names, strict=True))

    @property
    def color_of(self) -> dict[int, Color]:
        """Color of each label value."""
        return dict(zip(self.values, self.colors, strict=True))

    def indices(self, labels: "NDArray[Any]", nodata: int | None = None) -> "NDArray[np.int16]":
        """Class indices of label values.

        Args:
            labels: whole numbers of any shape.
            nodata: a value that means "not labelled" unless it is a class.

        Returns:
            Class indices of the same shape; `IGNORE` where nothing is labelled, `UNKNOWN` for all other values.
        """
        import numpy as np

        ignored = self.ignored if nodata is None else {*self.ignored, nodata}
        table = dict.fromkeys(ignored, IGNORE) | self.index
        if labels.dtype.kind == "u" and labels.dtype.itemsize <= 2:
            lookup = np.full(np.iinfo(labels.dtype).max + 1, UNKNOWN, np.int16)
            for value, index in table.items():
                if 0 <= value < len(lookup):
                    lookup[value] = index
            return np.asarray(lookup[labels])
        found, places = np.unique(labels, return_inverse=True)
        lookup = np.array([table.get(value, UNKNOWN) for value in found.tolist()], np.int16)
        return np.asarray(lookup[places].reshape(labels.shape))

    def indices_of_words(self, words: Iterable[Any]) -> "NDArray[np.int64]":
        """[N]: class indices of attribute values, which are names or label values; `UNKNOWN` for all others."""
        import numpy as np

        known = {str(value): i for i, value in enumerate(self.values)} | {name: i for i, name in enumerate(self.names)}
        return np.array([known.get(str(word), UNKNOWN) for word in words], np.int64)

    def listed(self, shown: Callable[[int], str] = str) -> str:
        """Label values and names for a message. shown: a label value as people write it."""
        pairs = list(zip(self.values, self.names, strict=True))
        return ", ".join(f"{shown(v)} {name}" for v, name in pairs[:LISTED]) + (" ..." if len(pairs) > LISTED else "")

    def unknown_value(self, value: int, pixels: int, file: Path | None = None) -> DataError:
        """The error about a label value that is neither a class nor ignored."""
        return DataError(
            f"the value {value} in {amount(pixels, 'pixel')}",
            file=None if file is None else printable(file),
            allowed=self.listed() if self.named else f"0..{IGNORE - 1} where the values have no names",
            hint=f"name it with --classes, or leave it out with --ignore {value}",
        )


def parse_classes(fields: Fields) -> tuple[Class, ...]:
    """The classes under `classes:`: names in a list, ``{value: name}``, or mappings of name, id, color and thing.

    Raises:
        ConfigError: none, too many, twice the same name or value, a value or colour that cannot be.
    """
    value = fields.raw("classes")
    if isinstance(value, dict):
        rows = [{"id": key, "name": name} for key, name in value.items()]
    elif isinstance(value, list):
        rows = [row if isinstance(row, dict) else {"name": row} for row in value]
    else:
        rows = []
    if not 1 <= len(rows) <= MAX_CLASSES:
        count = value if not rows else f"{len(rows)} classes"
        raise fields.wrong("classes", count, f"1 to {MAX_CLASSES} classes", "write them as [sky, road] or {1: forest}")
    parsed = [_parse_class(Fields(row, fields.file, f"classes[{i}]"), i) for i, row in enumerate(rows)]
    names, ids = [str(row["name"]) for row in parsed], [int(row["id"]) for row in parsed]
    _once(fields, names, "name")
    _once(fields, ids, "value")
    colors = class_colors(names, [row["color"] for row in parsed])
    things = [bool(row["thing"]) for row in parsed]
    return tuple(Class(*row) for row in zip(names, ids, colors, things, strict=True))


def parse_things(fields: Fields, classes: Sequence[Class], known: Collection[str] = ()) -> tuple[Class, ...]:
    """The classes of a panoptic dataset with things first, as `things:`, `stuff:` or `thing` of the classes say.

    Args:
        fields: of the dataset.
        classes: in the order of the file.
        known: names of the things that the labels declare, if neither key says anything.

    Returns:
        Things, then stuff, each in the order of the file, with `thing` set.

    Raises:
        ConfigError: no things, no stuff, an unknown name, or a class in both lists or in neither.
    """
    names = [c.name for c in classes]
    given = {key: _class_names(fields, key, names) for key in ("things", "stuff")}
    things, stuff = given["things"], given["stuff"]
    if things is None and stuff is not None:
        things = [name for name in names if name not in stuff]
    elif things is None:
        things = [c.name for c in classes if c.thing] or [name for name in names if name in known]
    if stuff is not None:
        for name in names:
            if (name in things) == (name in stuff):
                found = f'"{name}" in {"things and in stuff" if name in stuff else "neither things nor stuff"}'
                raise ConfigError(found, file=fields.file, field="stuff", allowed="the classes that are not in things")
    if not things:
        hint = "name the classes whose objects are told apart, as things: [car, person]"
        raise ConfigError("no things", file=fields.file, field="things", hint=f"{hint}; without any: task: semantic")
    if len(things) == len(names):
        found = "things that are all classes, so no stuff"
        hint = "add a class for what is no object, such as background; or write task: instance"
        raise ConfigError(found, file=fields.file, field="things", hint=hint)
    marked = [replace(c, thing=c.name in things) for c in classes]
    return tuple(sorted(marked, key=lambda c: not c.thing))


def _class_names(fields: Fields, key: str, names: Sequence[str]) -> list[str] | None:
    """The names of classes in a list; None if nothing stands there."""
    if fields.raw(key) is None:
        return None
    given = fields.items(key)
    for name in given:
        if name not in names:
            raise fields.wrong(key, name, "names of classes", nearest(name, names))
    return [str(name) for name in given]


def _parse_class(row: Fields, index: int) -> dict[str, Any]:
    name, number, color, thing = row.text("name"), row.raw("id"), row.raw("color"), row.raw("thing")
    row.finish()
    if name is None:
        raise row.wrong("name", None, "text")
    if number is not None and (not is_whole(number) or not 0 <= number <= MAX_ID):
        raise row.wrong("id", number, "the value of the class in the label files, a whole number from 0")
    if thing not in (None, True, False):
        raise row.wrong("thing", thing, "true or false")
    return {
        "name": " ".join(name.split()),
        "id": index if number is None else number,
        "color": None if color is None else parse_color(row, "color", color),
        "thing": thing,
    }


def pack_color(color: Color) -> int:
    """A color as one number, 65536 r + 256 g + b, as `io.labels.read_labels` gives those of label files."""
    return color[0] << 16 | color[1] << 8 | color[2]


def unpack_color(value: int) -> Color:
    """The inverse of `pack_color`."""
    return value >> 16, value >> 8 & 255, value & 255


def parse_color(fields: Fields, name: str, value: Any) -> Color:
    """Red, green, blue from ``[255, 0, 0]`` or ``"#ff0000"``.

    Raises:
        ConfigError: neither of them.
    """
    if isinstance(value, str) and len(value) == 7 and value[0] == "#":
        try:
            value = list(bytes.fromhex(value[1:]))
        except ValueError:
            value = [value]
    if not isinstance(value, list) or len(value) != 3 or not all(is_whole(v) and 0 <= v <= 255 for v in value):
        raise fields.wrong(name, value, 'red, green, blue as [255, 0, 0] or "#ff0000"')
    return value[0], value[1], value[2]


def _once(fields: Fields, values: list[Any], what: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"several classes with the {what} {value}", file=fields.file, field="classes")


def class_colors(names: Sequence[str], given: Sequence[Color | None]) -> list[Color]:
    """One colour for each name: the one given, else its habitual one, else the one least like the others."""
    colors: list[Color | None] = list(given)
    for i, name in enumerate(names):
        habitual = _habitual_color(name)
        if colors[i] is None and habitual not in colors:
            colors[i] = habitual
    taken = [color for color in colors if color is not None]
    free = _Free([*_PALETTE, *(_hue(i) for i in range(len(names)))], taken)
    return [free.take() if color is None else color for color in colors]


class _Free:
    """Colours not taken yet, each with its distance from the nearest one that is."""

    def __init__(self, colors: Sequence[Color], taken: Sequence[Color]) -> None:
        self.apart = dict.fromkeys(colors, float("inf"))
        for color in taken:
            self._reduce(color)

    def take(self) -> Color:
        """The one that is farthest from all taken, the first of equals."""
        best = max(self.apart, key=self.apart.__getitem__)
        del self.apart[best]
        self._reduce(best)
        return best

    def _reduce(self, taken: Color) -> None:
        """Takes in one more colour that is taken.

        How different two colours look, roughly: the "redmean" formula (Riemersma). In one expression, without a call
        for each pair: there are 35,000 pairs of 255 classes.
        """
        red, green, blue = taken
        self.apart = {
            (r, g, b): min(
                apart,
                (2 + (r + red) / 512) * (r - red) ** 2 + 4 * (g - green) ** 2 + (3 - (r + red) / 512) * (b - blue) ** 2,
            )
            for (r, g, b), apart in self.apart.items()
        }


def _habitual_color(name: str) -> Color | None:
    words = re.findall(r"[a-z]+", name.lower())
    return next((color for color, known in _MEANINGS.items() if set(words) & set(known.split())), None)


def _hue(i: int) -> Color:
    """Colours without end: the hue turned by the golden angle each time."""
    red, green, blue = colorsys.hsv_to_rgb((i * 0.381966) % 1, 0.55 + 0.3 * (i % 2), 0.9 - 0.25 * (i % 3) / 2)
    return round(255 * red), round(255 * green), round(255 * blue)
