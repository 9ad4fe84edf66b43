"""Classes of a dataset: names, values in label files, colors; a color for every class that has none."""

import colorsys
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torchfpn.errors import ConfigError, nearest
from torchfpn.io.yaml_json import Fields, is_whole
from torchfpn.types import Color

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


@dataclass(frozen=True)
class Class:
    """One class. id: its value in the label files. color: red, green, blue. thing: it can be counted (a car)."""

    name: str
    id: int
    color: Color
    thing: bool = False


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
