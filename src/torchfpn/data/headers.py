"""What a TIFF says of itself before a pixel is read: how large it is, where it lies, in which blocks it is stored."""

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

_KIND, _REDUCED, _MASK = 254, 1, 4  # the tag that says what a directory is for, and two of its bits

_MOST_DIRECTORIES = 2**16

_WHOLE = {3: "H", 4: "I", 16: "Q"}  # TIFF types of whole numbers


@dataclass(frozen=True)
class Header:
    """size: (height, width). blocks: height and width of those it is stored in. block_bytes: of one when decoded."""

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
        """Whether its blocks are as wide as it is, so that a window costs whole rows."""
        return self.blocks[1] >= self.size[1]


def quick_size(path: Path) -> tuple[int, int] | None:
    """(height, width) as the first directory of a TIFF says, a hundred times faster than GDAL; None if it does not.

    It decides only whether a file is worth a closer look: folders may hold 10^5 of them.
    """
    tags = next(_directories(path), {})
    return (tags[_SIZES[0]], tags[_SIZES[1]]) if len(tags.keys() & set(_SIZES)) == 2 else None


def page_count(path: Path) -> int:
    """The pages of a TIFF, as GDAL counts them: its directories without overviews and masks; 1 of other files.

    And the pictures of a PNG or JPEG: frames of an animation (APNG), views of a camera (MPO).
    """
    if path.suffix.lower() in SEVERAL:
        return frame_count(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        return 1
    kinds = (tags.get(_KIND, 0) for tags in _directories(path))
    return max(1, sum(1 for kind in kinds if not kind & (_REDUCED | _MASK)))


def _directories(path: Path) -> Iterator[dict[int, int]]:
    """Tag -> value of the size and the kind in each directory of a TIFF, as far as they can be read."""
    try:
        with path.open("rb") as handle:
            order = {b"II": "<", b"MM": ">"}[handle.read(2)]
            (version,) = struct.unpack(order + "H", handle.read(2))
            offset, count, entry = ("I", "H", 12) if version == 42 else ("Q", "Q", 20)
            handle.seek(4 if version == 42 else 8)
            (start,) = struct.unpack(order + offset, handle.read(struct.calcsize(order + offset)))
            known = set[int]()
            while start and start not in known and len(known) < _MOST_DIRECTORIES:
                known.add(start)
                handle.seek(start)
                (n,) = struct.unpack(order + count, handle.read(struct.calcsize(order + count)))
                table = handle.read(entry * min(n, 64))
                yield _whole_tags(table, order, entry)
                handle.seek(start + struct.calcsize(order + count) + entry * n)
                (start,) = struct.unpack(order + offset, handle.read(struct.calcsize(order + offset)))
    except (OSError, KeyError, ValueError, struct.error):  # of a place beyond all files, too
        return


def _whole_tags(table: bytes, order: str, entry: int) -> dict[int, int]:
    found = {}
    for at in range(0, len(table) - entry + 1, entry):
        tag, kind = struct.unpack_from(order + "HH", table, at)
        if tag in (*_SIZES, _KIND) and kind in _WHOLE:
            (found[tag],) = struct.unpack_from(order + _WHOLE[kind], table, at + entry - (4 if entry == 12 else 8))
    return found


def read_header(dataset: DatasetConfig, path: Path) -> Header | None:
    """The header of a TIFF or JPEG 2000, or of a VRT if allowed; None for photographs, which are always read whole.

    Raises:
        DataError: missing or damaged.
    """
    if format_of(path) not in WINDOWED:
        return None
    stat = path.stat()
    return _read(path, (stat.st_mtime_ns, stat.st_size), dataset.allow_vrt, dataset.root)


@functools.lru_cache(2**16)  # splits are looked at several times before the first step
def _read(path: Path, stamp: tuple[int, int], allow_vrt: bool, root: Path) -> Header:
    with open_raster(path, allow_vrt=allow_vrt, root=root) as source:
        size = source.height, source.width
        return Header(size, geo_of(source), source.block_shapes[0], block_bytes(source))
