"""Header of a TIFF, read without a pixel: size, georeference, blocks, pages."""

import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchfpn.data.config import DatasetConfig
from torchfpn.geo.georef import Geo
from torchfpn.io.formats import WINDOWED, format_of
from torchfpn.io.images import SEVERAL, frame_count
from torchfpn.io.rasters import block_bytes, geo_of, open_raster

_SIZES = (257, 256)  # the TIFF tags of height and width

_SUBFILE_TYPE, _REDUCED, _MASK = 254, 1, 4  # a TIFF tag and two of its bits

_MAX_DIRECTORIES = 2**16

_INTEGERS = {3: "H", 4: "I", 16: "Q"}  # TIFF types of integers


@dataclass(frozen=True)
class Header:
    """Header of a raster.

    Attributes:
        size: (height, width) in pixels.
        geo: where it lies, if the file says.
        blocks: (height, width) of a stored block.
        block_bytes: of a decoded block.
    """

    size: tuple[int, int]
    geo: Geo | None
    blocks: tuple[int, int]
    block_bytes: int

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.size[0] * self.size[1]

    @property
    def striped(self) -> bool:
        """Whether blocks are as wide as the raster, so that reading a window costs whole rows."""
        return self.blocks[1] >= self.size[1]


def quick_size(path: Path) -> tuple[int, int] | None:
    """(height, width) from the first directory of a TIFF, or None; a hundred times faster than GDAL.

    Decides which of up to 10^5 files of a folder have to be opened.
    """
    tags = next(_directories(path), {})
    return (tags[_SIZES[0]], tags[_SIZES[1]]) if len(tags.keys() & set(_SIZES)) == 2 else None


def page_count(path: Path) -> int:
    """Pages of a TIFF (directories that are no overview or mask), or frames of an APNG or MPO; 1 for other files."""
    if path.suffix.lower() in SEVERAL:
        return frame_count(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        return 1
    kinds = (tags.get(_SUBFILE_TYPE, 0) for tags in _directories(path))
    return max(1, sum(1 for kind in kinds if not kind & (_REDUCED | _MASK)))


def _directories(path: Path) -> Iterator[dict[int, int]]:
    """Size and subfile type, by tag, of each directory of a TIFF that can be read."""
    try:
        with path.open("rb") as handle:
            order = {b"II": "<", b"MM": ">"}[handle.read(2)]
            (version,) = struct.unpack(order + "H", handle.read(2))
            offset, count, entry = ("I", "H", 12) if version == 42 else ("Q", "Q", 20)
            handle.seek(4 if version == 42 else 8)
            (start,) = struct.unpack(order + offset, handle.read(struct.calcsize(order + offset)))
            known = set[int]()
            while start and start not in known and len(known) < _MAX_DIRECTORIES:
                known.add(start)
                handle.seek(start)
                (n,) = struct.unpack(order + count, handle.read(struct.calcsize(order + count)))
                table = handle.read(entry * min(n, 64))
                yield _integer_tags(table, order, entry)
                handle.seek(start + struct.calcsize(order + count) + entry * n)
                (start,) = struct.unpack(order + offset, handle.read(struct.calcsize(order + offset)))
    except (OSError, KeyError, ValueError, struct.error):  # or an offset beyond the file
        return


def _integer_tags(table: bytes, order: str, entry: int) -> dict[int, int]:
    found = {}
    for at in range(0, len(table) - entry + 1, entry):
        tag, kind = struct.unpack_from(order + "HH", table, at)
        if tag in (*_SIZES, _SUBFILE_TYPE) and kind in _INTEGERS:
            (found[tag],) = struct.unpack_from(order + _INTEGERS[kind], table, at + entry - (4 if entry == 12 else 8))
    return found


def read_header(dataset: DatasetConfig, path: Path) -> Header | None:
    """The header of a TIFF, JPEG 2000 or allowed VRT; None for photographs, which are always read whole.

    Raises:
        DataError: missing or damaged.
    """
    if format_of(path) not in WINDOWED:
        return None
    stat = path.stat()
    return _read(path, (stat.st_mtime_ns, stat.st_size), dataset.allow_vrt, dataset.root)


@functools.lru_cache(2**16)  # splits are listed several times before training starts
def _read(path: Path, stamp: tuple[int, int], allow_vrt: bool, root: Path) -> Header:
    with open_raster(path, allow_vrt=allow_vrt, root=root) as source:
        size = source.height, source.width
        return Header(size, geo_of(source), source.block_shapes[0], block_bytes(source))
