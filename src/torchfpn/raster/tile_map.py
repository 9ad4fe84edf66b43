"""A folder of web map tiles, z/x/y.png and the like, read as one raster: neighbours give each tile its margin."""

from collections.abc import Iterator
from pathlib import Path

from torchfpn.errors import ConfigError, DataError
from torchfpn.files.formats import SUFFIXES, WINDOWED, check_sides, format_of
from torchfpn.files.rasters import open_raster
from torchfpn.raster.mosaic import Mosaic, Part
from torchfpn.raster.scenes import Reading
from torchfpn.vectors.tiles import tile_geo

PATTERN = "{z}/{x}/{y}"


def is_tile_map(folder: Path) -> bool:
    """Whether a folder holds tiles as z/x/y and no images of its own."""
    if not folder.is_dir() or any(_is_image(child) for child in folder.iterdir()):
        return False
    return next(_tiles(folder), None) is not None


def open_tiles(folder: Path, reading: Reading) -> Mosaic:
    """The tiles of a folder as one raster in web Mercator, in the order of columns and rows.

    Raises:
        ConfigError: several zooms. DataError: two tiles of one place, a tile that is no image, or a raster larger than
            `reading.max_side`.
    """
    files, found = list_tiles(folder), dict[tuple[int, int], Path]()
    zooms = sorted({int(file.parent.parent.name) for file in files})
    if len(zooms) > 1:
        what = f"tiles of the zooms {', '.join(map(str, zooms))}"
        raise ConfigError(what, file=folder, allowed="one", hint="move the others away")
    for file in files:
        place = int(file.parent.name), int(file.stem)
        if (other := found.setdefault(place, file)) != file:
            raise DataError(f"lies where {other.name} lies", file=file, hint="remove one of them")
    places = sorted(found)
    first = found[places[0]]
    with open_raster(first, allow_vrt=reading.allow_vrt) as source:
        height, width = source.height, source.width
    left, top = min(x for x, _ in places), min(y for _, y in places)
    parts = tuple(
        Part(found[x, y], (y - top) * height, (x - left) * width, height, width, format_of(found[x, y]) in WINDOWED)
        for x, y in places
    )
    corner = Path(str(zooms[0]), str(left), f"{top}.png")
    mosaic = Mosaic(folder, parts, tile_geo(corner, PATTERN, (height, width)), reading)
    check_sides(folder, (mosaic.height, mosaic.width), reading.max_side)
    return mosaic


def list_tiles(folder: Path) -> list[Path]:
    """The tiles of a folder, by zoom, column and row."""
    return list(_tiles(folder))


def tile_name(file: Path) -> Path:
    """Where the answer of a tile lies below its folder."""
    return Path(file.parent.parent.name, file.parent.name, f"{file.stem}.png")


def _tiles(folder: Path) -> Iterator[Path]:
    for zoom in _numbered(folder):
        for column in _numbered(zoom):
            yield from sorted(child for child in column.iterdir() if _is_image(child) and _is_number(child.stem))


def _numbered(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if _is_number(child.name) and child.is_dir())


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) <= 10


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
