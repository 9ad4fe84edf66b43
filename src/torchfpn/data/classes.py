"""The classes of a dataset, in the three ways a dataset.yaml may list them."""

from dataclasses import dataclass
from typing import Any

from torchfpn.data.colors import Color, class_colors
from torchfpn.data.fields import Fields, is_whole
from torchfpn.errors import ConfigError

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
