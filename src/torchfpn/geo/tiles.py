"""Tiles of a web map: where a picture lies, told by its path alone (z: zoom, x: column, y: row from the north)."""

import math
import re
from pathlib import Path

from torchfpn.errors import ConfigError, RasterError
from torchfpn.geo.crs import AXIS, crs_wkt
from torchfpn.geo.georef import Geo

HALF = math.pi * AXIS  # metres; the map reaches so far from its middle, in all four directions

DEEPEST = 30


def check_pattern(pattern: str) -> str:
    """Passes a pattern such as "{z}/{x}/{y}" or "town-{x}-{y}-{z}".

    Raises:
        ConfigError: z, x and y are not there once each.
    """
    if sorted(re.findall(r"\{(.*?)\}", pattern)) != ["x", "y", "z"]:
        raise ConfigError(f'"{pattern}"', field="tiles", allowed="{z}, {x} and {y} once each, such as {z}/{x}/{y}")
    return pattern


def is_tile(path: str | Path, pattern: str) -> bool:
    """Whether a path ends as `pattern` says, with the numbers of a tile that there is."""
    place = _place(path, pattern)
    return place is not None and place[2] <= DEEPEST and max(place[:2]) < 2 ** place[2]


def tile_geo(path: str | Path, pattern: str, size: tuple[int, int]) -> Geo:
    """Web Mercator (EPSG:3857) place of a tile. pattern: how its path ends, without suffix. size: height and width.

    Raises:
        RasterError: the path does not end so, or there is no such tile.
    """
    place = _place(path, pattern)
    if place is None:
        raise RasterError("its path is not that of a tile", file=path, field="tiles", allowed=f"a path like {pattern}")
    x, y, z = place
    if z > DEEPEST or max(x, y) >= 2**z:
        raise RasterError(f"there is no tile {z}/{x}/{y}", file=path, allowed=f"z up to {DEEPEST}, x and y below 2^z")
    side = 2 * HALF / 2**z
    height, width = size
    return Geo(crs_wkt("EPSG:3857"), (side / width, 0.0, x * side - HALF, 0.0, -side / height, HALF - y * side))


def _place(path: str | Path, pattern: str) -> tuple[int, int, int] | None:
    """x, y and z of a path that ends as `pattern` says; None for others."""
    parts = re.split(r"\{([xyz])\}", pattern)  # text, name, text, name, text, name, text
    wanted = "".join(re.escape(part) if i % 2 == 0 else rf"(?P<{part}>\d{{1,10}})" for i, part in enumerate(parts))
    found = re.search(rf"(?:^|/){wanted}$", Path(path).with_suffix("").absolute().as_posix())
    return None if found is None else (int(found["x"]), int(found["y"]), int(found["z"]))
