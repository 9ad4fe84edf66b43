"""Cloud-optimised GeoTIFFs written block by block: tiles of 512, nearest-neighbour overviews, whole or not at all."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.files.atomic import atomic_path
from torchfpn.files.geo import Geo, Ties
from torchfpn.files.quiet import quiet
from torchfpn.files.rasters import Color, import_rasterio, place_profile, raster_writes

TILE = 512
CACHE = 64  # MiB that GDAL may keep of what it reads and writes


@dataclass(frozen=True)
class Layout:
    """What kind of raster. names: of the bands. colors, classes: of label values; nodata: of pixels without data."""

    height: int
    width: int
    dtype: str
    names: tuple[str, ...]
    geo: Geo | Ties | None = None
    nodata: float | None = None
    colors: Mapping[int, Color] = field(default_factory=dict)
    classes: Mapping[int, str] = field(default_factory=dict)


def write_cog(path: str | Path, layout: Layout, blocks: Iterable[tuple[int, int, NDArray[Any]]]) -> None:
    """blocks: (row, column, array [C, h, w]), each pixel once. Memory is a block and GDAL's cache, whatever the size.

    A plain tiled file is written first, beside `path`, and copied: overviews stand before the data in a COG.

    Raises:
        WriteError: the disk is full, or GDAL fails otherwise.
    """
    rasterio, path = import_rasterio(), Path(path)
    size = layout.height * layout.width * len(layout.names) * np.dtype(layout.dtype).itemsize
    with (
        rasterio.Env(GDAL_CACHEMAX=CACHE),
        atomic_path(path) as part,
        quiet(rasterio.errors.NotGeoreferencedWarning),
        raster_writes(path, part, size) as place,
        _plain_beside(place) as plain,
    ):
        _write_plain(plain, layout, blocks)
        _copy(plain, place, layout)


@contextlib.contextmanager
def _plain_beside(place: str | Path) -> Iterator[str | Path]:
    """What the plain file is written to: in memory, or beside a file on the disk. It is gone after the block."""
    if isinstance(place, Path):
        plain = place.with_name(f"{place.name}.plain.tif")
        try:
            yield plain
        finally:
            plain.unlink(missing_ok=True)
    else:
        with import_rasterio().MemoryFile(ext=".tif") as memory:
            yield memory.name


def _write_plain(part: str | Path, layout: Layout, blocks: Iterable[tuple[int, int, NDArray[Any]]]) -> None:
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": len(layout.names),
        "height": layout.height,
        "width": layout.width,
        "dtype": layout.dtype,
        "nodata": layout.nodata,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "interleave": "band",
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "IF_SAFER",
        "photometric": "MINISBLACK",
        "alpha": "NO",
    }
    profile |= place_profile(layout.geo)
    with import_rasterio().open(part, "w", **profile) as sink:
        for row, column, array in blocks:
            rows, columns = array.shape[-2:]
            sink.write(array, window=((row, row + rows), (column, column + columns)))
        if layout.colors:
            sink.write_colormap(1, dict(layout.colors))
        sink.descriptions = layout.names
        if layout.classes:
            named = {str(value): name for value, name in layout.classes.items()}
            sink.update_tags(CLASSES=json.dumps(named, ensure_ascii=False))
            sink.update_tags(1, **{f"CLASS_{value}": name for value, name in named.items()})


def _copy(plain: str | Path, path: str | Path, layout: Layout) -> None:
    import_rasterio()
    from rasterio.shutil import copy

    copy(
        plain,
        path,
        driver="COG",
        BLOCKSIZE=TILE,
        COMPRESS="DEFLATE",
        PREDICTOR="FLOATING_POINT" if layout.dtype.startswith("float") else "STANDARD",
        OVERVIEW_RESAMPLING="NEAREST",
        BIGTIFF="IF_SAFER",
    )
