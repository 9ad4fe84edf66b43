"""Checking what COCO files say of one object before anything trusts it: box, area, polygons, run lengths."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from torchfpn.data.annotations import Rings, Shape
from torchfpn.data.strict_json import Keys, shown
from torchfpn.errors import DataError
from torchfpn.ops.rle import run_lengths, spelled
from torchfpn.types import Size

BEYOND = 1.0  # pixels that a box may reach out of its image: tools round differently
Box = tuple[float, float, float, float]
_LARGE = 1.01  # times its box (a pixel wider) that the area of an object may be


class BadValueError(Exception):
    """keys: from the record to the value; line: what is wrong."""

    def __init__(self, keys: Keys, line: str) -> None:
        super().__init__(line)
        self.keys, self.line = keys, line


class Cut(NamedTuple):
    """What the image holds of a box that reaches out of it, and the line that says so."""

    box: Box
    line: str


class Kept(NamedTuple):
    """The good polygons of an object, and what is wrong with the others."""

    rings: Rings
    bad: tuple[BadValueError, ...]


def check_box(value: Any, size: Size) -> Box | Cut:
    """[x, y, width, height] -> (x1, y1, x2, y2), cut to the image of (height, width) `size`.

    A `Cut` if that takes more than `BEYOND` pixels away.

    Raises:
        BadValueError: no four finite numbers, no area, or all of it outside of the image.
    """
    if not is_box(value):
        raise BadValueError(("bbox",), f"{shown(value)}; expected [x, y, width, height]")
    x, y, w, h = map(_float, value)
    if not math.isfinite(x + y + w + h):
        raise BadValueError(("bbox",), f"{shown(value)}; expected finite numbers")
    if w <= 0 or h <= 0:
        raise BadValueError(("bbox",), f"{shown(value)}; expected width and height above 0")
    height, width = size
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    text = f"{shown(value)} %s the image of {width} x {height}"
    if x2 <= x1 or y2 <= y1:
        raise BadValueError(("bbox",), text % "lies outside of")
    if min(x, y) < -BEYOND or x + w > width + BEYOND or y + h > height + BEYOND:
        return Cut((x1, y1, x2, y2), text % "reaches out of")
    return x1, y1, x2, y2


def is_box(value: Any) -> bool:
    """Whether it is a list of four numbers, whichever they are."""
    return isinstance(value, list) and len(value) == 4 and set(map(type, value)) <= {int, float}


def check_area(value: Any, box: Box) -> float:
    """The area in square pixels; that of the box where nothing is said.

    Raises:
        BadValueError: no number from 0, or more than the box holds.
    """
    w, h = box[2] - box[0], box[3] - box[1]
    if value is None:
        return w * h
    if type(value) not in (int, float) or not 0 <= _float(value) < math.inf:
        raise BadValueError(("area",), f"{shown(value)}; expected a number from 0")
    if value > _LARGE * (w + 1 + BEYOND) * (h + 1 + BEYOND):
        raise BadValueError(("area",), f"{shown(value)} in a box of {w:.6g} x {h:.6g}")
    return float(value)


def check_shape(value: Any, size: Size, box: Box) -> Shape | Kept:
    """Polygons as arrays of points, or run lengths as a string. `Kept` if some of several polygons are bad.

    Raises:
        BadValueError: neither, run lengths that cannot be, or no good polygon.
    """
    if isinstance(value, Mapping):
        return _runs(value, size)
    if not isinstance(value, list) or not value:
        raise BadValueError(("segmentation",), f"{shown(value)}; expected polygons or run lengths")
    if not isinstance(value[0], list):
        raise BadValueError(
            ("segmentation",), f"{shown(value)}; expected a list of polygons: [[x, y, x, y, x, y, ...], ...]"
        )
    return _rings(value, size, box)


def fractions(boxes: Sequence[Sequence[float]]) -> bool:
    """Whether boxes (x, y, width, height) are shares of their image, not pixels: all of them lie within 0..1."""
    inside = all(min(x, y) >= 0 and x + w <= 1 and y + h <= 1 for x, y, w, h in boxes)
    return inside and any(not float(value).is_integer() for box in boxes for value in box)


def _rings(value: list[Any], size: Size, box: Box) -> Rings | Kept:
    rings: Rings = []
    bad: list[BadValueError] = []
    far = [math.inf, math.inf, -math.inf, -math.inf]
    for i, ring in enumerate(value):
        try:
            low_x, low_y, high_x, high_y = _bounds(ring, i, size)
        except BadValueError as error:
            bad.append(error)
            continue
        far = [min(far[0], low_x), min(far[1], low_y), max(far[2], high_x), max(far[3], high_y)]
        rings.append(np.array(ring, np.float32).reshape(-1, 2))
    if not rings:
        raise bad[0]
    if far[0] > box[2] or far[1] > box[3] or far[2] < box[0] or far[3] < box[1]:
        raise BadValueError(("segmentation",), f"lies outside of its bbox {[round(v, 3) for v in box]}")
    return Kept(rings, tuple(bad)) if bad else rings


def _bounds(ring: Any, number: int, size: Size) -> Box:
    """Those of a polygon's points. In plain Python: numpy is slow on ten numbers.

    Raises:
        BadValueError: no list of pairs of numbers, fewer than 3 points, or one far outside of the image.
    """
    keys: Keys = ("segmentation", number)
    if not isinstance(ring, list) or not set(map(type, ring)) <= {int, float}:
        raise BadValueError(keys, f"{shown(ring)}; expected a list of numbers")
    if len(ring) % 2:
        raise BadValueError(keys, f"{len(ring)} numbers; expected pairs of x and y")
    if len(ring) < 6:
        raise BadValueError(keys, f"{len(ring) // 2} points; expected 3 at least")
    if any(map(_is_nan, ring)):
        raise BadValueError(keys, "a coordinate that is no number (NaN)")
    xs, ys = ring[::2], ring[1::2]
    bounds = min(xs), min(ys), max(xs), max(ys)
    height, width = size
    if bounds[0] < -width or bounds[1] < -height or bounds[2] > 2 * width or bounds[3] > 2 * height:
        line = f"the coordinate {_float(max(bounds, key=abs)):.6g} in an image of {width} x {height}"
        raise BadValueError(keys, line)
    return bounds


def _is_nan(value: float) -> bool:
    return value != value


def _runs(value: Mapping[str, Any], size: Size) -> str:
    try:
        lengths = run_lengths(value, size)
    except DataError as error:
        keys: Keys = ("segmentation", error.field) if error.field else ("segmentation",)
        line = error.said
        raise BadValueError(keys, line) from None
    if not lengths[1::2].any():
        raise BadValueError(("segmentation", "counts"), "a mask without a pixel")
    counts = value["counts"]
    return counts if isinstance(counts, str) else spelled(value)


def _float(value: float) -> float:
    """Infinity for whole numbers that are too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
