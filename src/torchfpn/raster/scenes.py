"""What a prediction reads by windows: one file, several files on one grid, or the tiles of a web map.

A scene says how large it is, where it lies, which parts of it hold anything at all, and reads any window of itself.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torchfpn.errors import DataError
from torchfpn.files.blocks import block_bytes, check_blocks
from torchfpn.files.formats import MAX_SIDE, check_sides, format_of
from torchfpn.files.geo import Geo, Ties, Window, world_file
from torchfpn.files.images import Picture, read_bands, read_image
from torchfpn.files.rasters import geo_of, open_raster, ties_of
from torchfpn.files.vrt import check_vrt
from torchfpn.vectors.tiles import is_tile, tile_geo


@dataclass(frozen=True)
class Reading:
    """How files are read.

    bands: names or numbers from 1, None: all. assume_crs: well-known text for files with a transform and no coordinate
    system. tiles: how paths of files without a georeference end (`vectors.tiles`); model_tiles: how they may end.
    max_side: height and width of a raster that is read by windows, in pixels.
    """

    bands: tuple[int | str, ...] | None = None
    assume_crs: str | None = None
    tiles: str | None = None
    model_tiles: str | None = None
    allow_vrt: bool = False
    max_pixels: int = 2**24
    max_side: int = MAX_SIDE

    def whole(self, file: Path) -> Picture:
        """All of a file.

        Raises:
            DataError: damaged, too large, or without these bands.
        """
        return read_image(file, bands=self._wanted, max_pixels=self.max_pixels, allow_vrt=self.allow_vrt)

    def part(self, file: Path, window: Window) -> Picture:
        """A window of a TIFF or VRT; its place is that of the whole file.

        Raises:
            DataError: damaged, a photograph, or without these bands.
        """
        limit = max(self.max_pixels, window[2] * window[3])
        return read_image(file, bands=self._wanted, max_pixels=limit, allow_vrt=self.allow_vrt, window=window)

    def bands_of(self, file: Path) -> Picture:
        """What a TIFF or VRT says of its bands, as a picture without pixels; nothing is decoded.

        Raises:
            DataError: damaged, or without these bands.
        """
        return read_bands(file, bands=self._wanted, allow_vrt=self.allow_vrt)

    def place(self, geo: Geo | None, file: Path, size: tuple[int, int]) -> Geo | None:
        """Where a file lies, by what it says of itself or else by what is said here. size: height and width."""
        if geo is None and self.tiles is not None:
            return tile_geo(file, self.tiles, size)
        if geo is None and self.model_tiles is not None and is_tile(file, self.model_tiles):
            return tile_geo(file, self.model_tiles, size)
        if geo is not None and geo.crs is None and self.assume_crs is not None:
            return replace(geo, crs=self.assume_crs)
        return geo

    @property
    def _wanted(self) -> list[int | str] | None:
        return list(self.bands) if self.bands else None


class Scene(Protocol):
    """A raster."""

    @property
    def name(self) -> Path:
        """For messages."""
        ...

    @property
    def height(self) -> int:
        """Pixels."""
        ...

    @property
    def width(self) -> int:
        """Pixels."""
        ...

    @property
    def geo(self) -> Geo | None:
        """Where it lies, if it says."""
        ...

    @property
    def ties(self) -> Ties | None:
        """Where it lies without a transform, if it says."""
        ...

    def read(self, window: Window) -> Picture:
        """A window of it, not valid where nothing lies. Safe in threads.

        Raises:
            DataError: a file of it is damaged, or not like the others.
        """
        ...

    def header(self) -> Picture:
        """Its bands and the type of its pixels, as a picture without pixels.

        Raises:
            DataError: a file of it is damaged, or not like the others.
        """
        ...

    def grounds(self, side: int) -> set[tuple[int, int]] | None:
        """Which squares of `side` pixels hold anything, as (row, column) of squares; None: all of them."""
        ...

    def facts(self) -> list[Any]:
        """Plain values that change when the scene does."""
        ...


@dataclass(frozen=True)
class FileScene:
    """A TIFF, VRT or JPEG 2000. ties: where it lies without a transform."""

    name: Path
    height: int
    width: int
    geo: Geo | None
    reading: Reading = field(default_factory=Reading)
    ties: Ties | None = None

    def read(self, window: Window) -> Picture:
        """See `Scene`."""
        return self.reading.part(self.name, window)

    def header(self) -> Picture:
        """See `Scene`."""
        return self.reading.bands_of(self.name)

    def grounds(self, side: int) -> None:
        """All."""

    def facts(self) -> list[Any]:
        """Stamp, size in pixels, place, digest of all files that are read."""
        place = self.geo and [self.geo.crs, *self.geo.transform]  # of a tile it follows from the folder
        return [*stamp(self.name), self.height, self.width, place, digest(read_files(self.name))]


def open_file(file: Path, reading: Reading) -> FileScene:
    """A TIFF or VRT as a scene; no pixel is read.

    Raises:
        DataError: no raster, one whose blocks are too large to be decoded, or one that is larger than `max_side`.
    """
    with open_raster(file, allow_vrt=reading.allow_vrt) as source:
        if source.driver == "GTiff":  # the blocks of a VRT are no blocks of its files
            check_blocks(source.block_shapes[0], block_bytes(source), file)
        size = (source.height, source.width)
        check_sides(file, size, reading.max_side)
        return FileScene(file, *size, reading.place(geo_of(source), file, size), reading, ties_of(source))


def stamp(file: Path) -> list[Any]:
    """Name, bytes, time of the last change and number (inode) of a file; of one that is gone, the name.

    A file stays the same whatever its folder is called, and however the path to it is written.
    """
    try:
        status = file.stat()
    except OSError:
        return [file.name]
    return [file.name, status.st_size, status.st_mtime_ns, status.st_ino]


def read_files(file: Path) -> list[Path]:
    """A source and the other files that may be read for it, whether they are there or not.

    These are the sources of a VRT, and beside each of them a world file, metadata, a mask and overviews.
    """
    parts = [file]
    with contextlib.suppress(DataError, OSError):  # what is wrong with it is said when it is opened
        parts += check_vrt(file, file.parent) if format_of(file) == "vrt" else []
    beside = (".aux.xml", ".msk", ".ovr")
    return [
        each
        for part in parts
        for each in (part, world_file(part) or part, *(part.with_name(f"{part.name}{ending}") for ending in beside))
    ]


def check_unchanged(before: Sequence[Any], after: Sequence[Any], name: Path) -> None:
    """Passes a source whose stamps, or facts, are those from before it was read.

    Raises:
        DataError: it was overwritten meanwhile, so an answer would be of two sources.
    """
    if list(before) != list(after):
        raise DataError(
            "changed while it was predicted",
            file=name,
            allowed="a source that stays as it is",
            hint="predict it again, with --overwrite",
        )


def digest(files: Sequence[Path], *more: Any) -> str:
    """Of the stamps of many files, and of more plain values."""
    return hashlib.sha256(json.dumps([[stamp(file) for file in files], *more]).encode()).hexdigest()
