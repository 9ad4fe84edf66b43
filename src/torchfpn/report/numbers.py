"""Numbers and colours out of files that anybody may have written."""

import math
from collections.abc import Sequence
from typing import Any

from torchfpn.recipe import default_colors

Number = float | None  # None: nothing to measure


def number(value: Any) -> Number:
    """A finite float, or None for an empty cell, null, NaN."""
    if value is None or value == "":
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def numbers(values: Sequence[Any], count: int) -> list[Number]:
    """One for each of `count` classes.

    Raises:
        ValueError: another number of them.
    """
    if len(values) != count:
        raise ValueError(f"{len(values)} values for {count} classes")
    return [number(value) for value in values]


def class_colors(given: Sequence[Sequence[int]], count: int) -> list[tuple[int, int, int]]:
    """Red, green, blue of `count` classes; missing ones are made up."""
    colors = [(int(r), int(g), int(b)) for r, g, b in given]
    return [*colors, *default_colors(count)[len(colors) :]][:count]
