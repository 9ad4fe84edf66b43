"""Files beside a raster that GDAL opens by itself, and whether a vector file is complete."""

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchfpn.errors import DataError, RasterError, amount
from torchfpn.io.formats import check_regular, format_of

# No address of the network is opened, whatever a raster names: GDAL compares the names of remote files with this.
OFFLINE = {"CPL_VSIL_CURL_ALLOWED_FILENAME": "none", "CPL_VSIL_CURL_USE_HEAD": "NO"}

_OPENED = (".msk", ".ovr")
_PLACED = (".tfw", ".tifw", ".tiffw", ".wld", ".jgw", ".pgw", ".j2w", ".prj", ".tab", ".imd", ".rpb", ".rpc")
_ERDAS = b"EHFA_HEADER_TAG"  # of a.aux, which GDAL opens for overviews and which names further files
_SHP_HEADER = 100  # bytes of the header of .shp and .shx
_NODE_BYTES = 40  # bytes of a node in the index of a FlatGeobuf
_COUNT, _NODE_SIZE = 8, 9  # numbers of fields in its header


def side_files(path: Path) -> Iterator[Path]:
    """The masks and overviews beside a raster (a.tif.msk, a.tif.ovr), all TIFFs.

    GDAL opens them with whatever driver their content asks for, so a VRT of that name would read any file of the
    machine or any address of the network into the raster. GDAL takes no list of drivers for side files; therefore they
    are checked before GDAL sees them.

    Raises:
        DataError: a pipe or a device.
        RasterError: one of another format, or an ERDAS Imagine file (a.aux) that GDAL would open for overviews.
    """
    _check_pipes(path)
    for side in _spelt(path.name, *_OPENED, folder=path.parent):
        try:
            kind = format_of(side)
        except DataError:
            kind = "unknown"
        if kind != "tiff":
            raise RasterError(
                f"a side file of {path.name} that is no TIFF" + (" but a VRT" if kind == "vrt" else ""),
                file=side,
                allowed="masks and overviews in TIFF",
                hint="remove it, or make it a TIFF",
            )
        yield side
    for stem in {path.name, path.stem}:
        for side in _spelt(stem, ".aux", folder=path.parent):
            if _begins(side, _ERDAS):
                found = f"a side file of {path.name} in ERDAS Imagine format, which may name further files"
                raise RasterError(found, file=side, allowed="masks and overviews in TIFF", hint="remove it")


def _check_pipes(path: Path) -> None:
    """Passes a raster beside which no pipe or device has the name of a side file: GDAL would wait for it."""
    for name, endings in ((path.name, (*_OPENED, ".aux.xml", ".aux")), (path.stem, (*_PLACED, ".aux"))):
        for side in _spelt(name, *endings, folder=path.parent):
            check_regular(side)


def _begins(file: Path, magic: bytes) -> bool:
    try:
        with file.open("rb") as handle:
            return handle.read(len(magic)) == magic
    except OSError:
        return False  # GDAL cannot read it either


def mask_file(path: Path) -> Path | None:
    """The mask beside a picture or raster, a.png.msk; None without one."""
    return next(_spelt(path.name, ".msk", folder=path.parent), None)


def _spelt(name: str, *suffixes: str, folder: Path) -> Iterator[Path]:
    for suffix in suffixes:
        for spelt in (suffix, suffix.upper()):  # GDAL tries both
            side = folder / f"{name}{spelt}"
            if os.path.lexists(side):
                yield side


def check_overviews(source: Any, path: Path) -> None:
    """Passes an open raster that names no file as its overviews, neither in its own metadata nor in a.tif.aux.xml.

    Raises:
        RasterError: it names one.
    """
    named = source.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if named is not None:
        raise RasterError(
            f"names {named} as its overviews",
            file=path,
            allowed=f"overviews inside the file or in {path.name}.ovr",
            hint="remove OVERVIEW_FILE from its metadata or its .aux.xml",
        )


def refuse_cut_off(path: Path, driver: str) -> None:
    """Passes vector files that are as long as their headers and their index say.

    GDAL reads what is left of a shapefile or a FlatGeobuf that was cut off, and does not report the lost features.

    Args:
        path: the file; of a shapefile the .shp, beside which .shx and .dbf lie.
        driver: GDAL's name of its format.

    Raises:
        DataError: it is cut off, or its parts do not belong together.
    """
    try:
        if driver == "ESRI Shapefile":
            _check_shapefile(path)
        elif driver == "FlatGeobuf":
            _check_flatgeobuf(path)
        elif driver == "GPKG":
            _check_geopackage(path)
    except (OSError, struct.error, ValueError) as error:  # headers that are cut off themselves; an empty file
        raise DataError(f"damaged or cut off ({error})", file=path, hint="copy it again") from error


def _check_shapefile(path: Path) -> None:
    """The .shp and its index by the lengths in their headers; the table by its number of records."""
    _check_words(path)
    index = _beside(path, ".shx")
    if index is None:  # GDAL refuses it
        return
    records = (_check_words(index) - _SHP_HEADER) // 8
    with index.open("rb") as handle:
        handle.seek(_SHP_HEADER)
        table = struct.unpack(f">{2 * records}i", handle.read(8 * records))
    size = path.stat().st_size
    ends = (2 * (start + length) + 8 for start, length in zip(table[::2], table[1::2], strict=True))
    if any(end > size for end in ends):
        raise DataError("its index points beyond its end", file=path, hint="copy it again, with .shx and .dbf")
    attributes = _beside(path, ".dbf")
    if attributes is not None:
        _check_table(attributes, path, records)


def _check_words(path: Path) -> int:
    """The length that the header of a .shp or .shx declares, in bytes."""
    with path.open("rb") as handle:
        words = int(struct.unpack(">24xi", handle.read(28))[0])
    _check_length(path, 2 * words)
    return max(2 * words, _SHP_HEADER)


def _check_table(attributes: Path, path: Path, records: int) -> None:
    with attributes.open("rb") as handle:
        count, header, width = struct.unpack("<4xIHH", handle.read(12))
    _check_length(attributes, header + count * width)
    if count != records:
        found = f"{amount(records, 'feature')}, and {amount(count, 'row')} in {attributes.name}"
        raise DataError(found, file=path, allowed="as many rows as features", hint="copy both again")


def _beside(path: Path, suffix: str) -> Path | None:
    found = (path.with_suffix(spelt) for spelt in (suffix, suffix.upper()))
    return next((file for file in found if file.is_file()), None)


def _check_flatgeobuf(path: Path) -> None:
    """Its features are walked through: each says how long it is, the header how many there are."""
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        (length,) = struct.unpack_from("<I", data, 8)
        count = _field(data, 12, _COUNT, "<Q", 0)
        node_size = _field(data, 12, _NODE_SIZE, "<H", 16)
        at, size, found = 12 + length + _index_bytes(count, node_size), len(data), 0
        while at + 4 <= size and (length := struct.unpack_from("<I", data, at)[0]):
            at, found = at + 4 + length, found + 1
        if at != size or count not in (0, found):
            declared = f"of {amount(count, 'feature')}" if count else "in the last feature"
            raise DataError(f"cut off {declared}", file=path, hint="copy it again")


def _field(data: mmap.mmap, start: int, number: int, kind: str, default: int) -> int:
    """A plain field of the table that begins a flatbuffer."""
    table = start + struct.unpack_from("<I", data, start)[0]
    names = table - struct.unpack_from("<i", data, table)[0]
    (length,) = struct.unpack_from("<H", data, names)
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", data, names + place)[0] if place < length else 0
    return int(struct.unpack_from(kind, data, table + offset)[0]) if offset else default


def _index_bytes(count: int, node_size: int) -> int:
    """The packed R-tree: the features, and nodes above them until one is left."""
    if not count or node_size < 2:
        return 0
    nodes = level = count
    while True:
        level = -(-level // node_size)
        nodes += level
        if level == 1:
            return nodes * _NODE_BYTES


def _check_geopackage(path: Path) -> None:
    """SQLite's header: bytes of a page, and how many pages there are."""
    with path.open("rb") as handle:
        page, changes, pages, valid_for = struct.unpack(">16xH6xII60xI", handle.read(96))
    if changes == valid_for:  # else an old program wrote it, which did not count the pages
        _check_length(path, (65536 if page == 1 else page) * pages)


def _check_length(path: Path, declared: int) -> None:
    size = path.stat().st_size
    if size < declared:
        raise DataError(f"cut off: {size:,} bytes of {declared:,}", file=path, hint="copy it again")
