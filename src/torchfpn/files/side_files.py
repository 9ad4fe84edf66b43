"""Side files that GDAL opens by itself beside a raster: masks, overviews, and what a raster names as its overviews.

GDAL opens a.tif.msk and a.tif.ovr with whatever driver their content asks for, so a VRT of that name would read any
file of the machine or any address of the network into the raster. The driver that opens the raster itself is given;
for side files GDAL takes no such list, so they are checked before GDAL sees them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchfpn.errors import DataError, RasterError
from torchfpn.files.formats import check_regular, format_of

# No address of the network is opened, whatever a raster names: GDAL compares the names of remote files with this.
OFFLINE = {"CPL_VSIL_CURL_ALLOWED_FILENAME": "none", "CPL_VSIL_CURL_USE_HEAD": "NO"}
_OPENED = (".msk", ".ovr")
_PLACED = (".tfw", ".tifw", ".tiffw", ".wld", ".jgw", ".pgw", ".j2w", ".prj", ".tab", ".imd", ".rpb", ".rpc")
_ERDAS = b"EHFA_HEADER_TAG"  # of a.aux, which GDAL opens for overviews and which names further files


def side_files(path: Path) -> Iterator[Path]:
    """The masks and overviews beside a raster, all TIFFs.

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


def mask_file(path: Path) -> Path | None:
    """The mask beside a picture or raster, a.png.msk; None without one."""
    return next(_spelt(path.name, ".msk", folder=path.parent), None)


def _check_pipes(path: Path) -> None:
    """Passes a raster beside which no pipe or device has the name of a side file: GDAL would wait for it."""
    for name, endings in ((path.name, (*_OPENED, ".aux.xml", ".aux")), (path.stem, (*_PLACED, ".aux"))):
        for side in _spelt(name, *endings, folder=path.parent):
            check_regular(side)


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


def _spelt(name: str, *suffixes: str, folder: Path) -> Iterator[Path]:
    for suffix in suffixes:
        for spelt in (suffix, suffix.upper()):  # GDAL tries both
            side = folder / f"{name}{spelt}"
            if os.path.lexists(side):
                yield side


def _begins(file: Path, magic: bytes) -> bool:
    try:
        with file.open("rb") as handle:
            return handle.read(len(magic)) == magic
    except OSError:
        return False  # GDAL cannot read it either
