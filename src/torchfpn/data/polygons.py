"""`polygons:` of a dataset.yaml: how labels that are polygons become classes of pixels."""

import math
import re
from dataclasses import dataclass
from typing import Any

from torchfpn.data.classes import Class
from torchfpn.data.fields import Fields, is_whole
from torchfpn.errors import nearest

_BACKGROUND = "background"
_OF_PIXELS = ("background", "all_touched", "border", "border_class")
_WIDEST = 1000  # pixels of a border
WITHOUT_CLASS = ("error", "ignore", "skip")


@dataclass(frozen=True)
class Polygons:
    """field: the attribute that gives the class of a feature, by name or value; None: all are of one class.

    burn: that class, its index; None where nobody can tell. background: the class where no polygon lies; None: those
    pixels are not labelled. layer: of files with several. all_touched: every pixel a polygon reaches into, not only
    those whose centre it holds. border: pixels beside outlines that are not labelled, or are of `border_class`: houses
    that touch can then be told apart. buffer: metres around lines and points, which are refused without. max_crossings:
    how often the rings of one polygon may cross. assume_crs: coordinate system of files that do not say, such as
    "EPSG:32633". without_class: what becomes of features whose attribute `field` is empty: "error", "ignore" (their
    pixels are not labelled; of objects, crowds), or "skip" (as if they were not in the file).
    """

    field: str | None = None
    burn: int | None = None
    background: int | None = 0
    layer: str | None = None
    all_touched: bool = False
    border: float = 0.0
    border_class: int | None = None
    buffer: float | None = None
    max_crossings: int = 20_000
    assume_crs: str | None = None
    without_class: str = WITHOUT_CLASS[0]


def parse_polygons(fields: Fields, classes: tuple[Class, ...], *, objects: bool = False) -> Polygons:
    """The mapping under `polygons:`; what is left out, or all of it, by default. objects: each polygon is one.

    Raises:
        ConfigError: an unknown key or class, a number out of range, both `field` and `class`.
    """
    inner = Fields(fields.raw("polygons") or {}, fields.file, "polygons")
    field, given = inner.text("field"), inner.raw("class")
    if field is not None and given is not None:
        raise inner.wrong("class", given, "nothing beside `field`, which gives each feature its class")
    burn = _class(inner, "class", given, classes)
    for key in _OF_PIXELS if objects else ():
        if inner.raw(key) is not None:
            raise inner.wrong(key, inner.raw(key), "nothing where polygons are objects")
    if burn is None and field is None:  # of two classes, the first is the background; objects have none
        burn = min(1, len(classes) - 1) if len(classes) <= (1 if objects else 2) else None
    found = Polygons(
        field=field,
        burn=burn,
        background=_background(inner, classes, field, burn),
        layer=inner.text("layer"),
        all_touched=inner.flag("all_touched"),
        border=_number(inner, "border", 0, _WIDEST, f"0 to {_WIDEST} pixels") or 0.0,
        border_class=_class(inner, "border_class", inner.raw("border_class"), classes),
        buffer=_number(inner, "buffer", math.ulp(0), 1e6, "metres, more than 0"),
        max_crossings=_crossings(inner),
        assume_crs=inner.text("assume_crs"),
        without_class=inner.choice("without_class", WITHOUT_CLASS) or WITHOUT_CLASS[0],
    )
    inner.finish()
    if found.border_class is not None and not found.border:
        raise inner.wrong("border_class", inner.raw("border_class"), "nothing without `border`, the pixels it is of")
    if fields.raw("polygons") is not None and field is None and burn is None:
        hint = "name the attribute that gives the class (field), or the class of all polygons (class)"
        raise inner.wrong("field", None, f"one of them, as there are {len(classes)} classes", hint)
    return found


def parse_tiles(fields: Fields) -> str | None:
    """The pattern under `tiles:`, by which paths of images tell their place on a web map.

    Raises:
        ConfigError: z, x and y are not in it once each.
    """
    pattern = fields.text("tiles")
    if pattern is not None and sorted(re.findall(r"\{(.*?)\}", pattern)) != ["x", "y", "z"]:
        raise fields.wrong("tiles", pattern, "{z}, {x} and {y} once each, such as {z}/{x}/{y} or town-{x}-{y}-{z}")
    return pattern


def _background(inner: Fields, classes: tuple[Class, ...], field: str | None, burn: int | None) -> int | None:
    """As given; else the first of the classes, or with `field` the one called background, if there is one.

    With `field` every class may have polygons: to call the rest by the first of them would teach what is not there.
    """
    given = inner.raw("background")
    if given is False:
        return None
    if given is not None:
        return _class(inner, "background", given, classes)
    if field is None:
        return 0 if burn != 0 else None
    return next((i for i, c in enumerate(classes) if c.name.lower() == _BACKGROUND), None)


def _class(inner: Fields, key: str, given: Any, classes: tuple[Class, ...]) -> int | None:
    """The index of a class that is named, or whose value is given."""
    if given is None:
        return None
    for i, c in enumerate(classes):
        if given == c.name or (is_whole(given) and given == c.id):
            return i
    hint = nearest(given, [c.name for c in classes]) if isinstance(given, str) else None
    also = ", or false: not labelled" if key == "background" else ""
    raise inner.wrong(key, given, f"the name or the value of one of the classes{also}", hint)


def _crossings(inner: Fields) -> int:
    given = inner.raw("max_crossings")
    if given is None:
        return Polygons.max_crossings
    if not is_whole(given) or given < 0:
        raise inner.wrong("max_crossings", given, "a whole number from 0")
    return int(given)


def _number(inner: Fields, key: str, low: float, high: float, allowed: str) -> float | None:
    value = inner.number(key)
    if value is not None and not low <= value <= high:
        raise inner.wrong(key, value, allowed)
    return value
