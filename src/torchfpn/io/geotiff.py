"""The GeoTIFF writer: label maps by windows, cloud-optimized GeoTIFF.

Cloud-optimised GeoTIFFs written block by block: tiles of 512, nearest-neighbour overviews, whole or not at all.

A GeoTIFF of labels written from top to bottom, so that it may be larger than memory. Whole or not at all.

Any array of bands as a GeoTIFF: deflate, band names, the grid it lies on. Whole or not at all.
"""

import contextlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.geo.georef import Geo, Ties
from torchfpn.io.atomic import atomic_path, write_bytes
from torchfpn.io.rasters import Color, import_rasterio, place_profile, raster_writes
from torchfpn.printing import quiet

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


BLOCK = 512  # pixels; also the height of what is written at a time, so that no block is written twice

Write = Callable[[int, NDArray[Any]], None]


@dataclass(frozen=True)
class Tags:
    """What a label file says besides its values: colour and name of each value, the value without data."""

    colors: Mapping[int, tuple[int, int, int]]
    names: Mapping[int, str]
    nodata: int | None = None


@contextlib.contextmanager
def label_stream(path: str | Path, size: tuple[int, int], dtype: str, geo: Geo | None, tags: Tags) -> Iterator[Write]:
    """A function that takes the first row and labels [n, W], `BLOCK` rows at a time.

    The file is there when the block ends, and is the one `files.rasters.write_label_raster` writes of the whole map.
    size: height and width. dtype: "uint8" or "uint16".

    Raises:
        WriteError: it cannot be written.
    """
    rasterio = import_rasterio()
    count = size[0] * size[1] * np.dtype(dtype).itemsize
    with atomic_path(path) as part, rasterio.Env(), raster_writes(path, part, count) as writable_part:
        with quiet(rasterio.errors.NotGeoreferencedWarning):
            sink = import_rasterio().open(writable_part, "w", **_profile(size, dtype, geo, tags.nodata))
        with sink:
            yield lambda row, labels: sink.write(labels, 1, window=((row, row + len(labels)), (0, size[1])))
            _tag(sink, tags, np.iinfo(dtype).max)


def _profile(size: tuple[int, int], dtype: str, geo: Geo | None, nodata: int | None) -> dict[str, Any]:
    profile: dict[str, Any] = {"driver": "GTiff", "count": 1, "height": size[0], "width": size[1], "dtype": dtype}
    profile |= {"compress": "deflate", "nodata": nodata, "bigtiff": "IF_SAFER"}
    if min(size) >= BLOCK:
        profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    return profile | place_profile(geo)


def _tag(sink: Any, tags: Tags, top: int) -> None:
    sink.write_colormap(1, {value: color for value, color in tags.colors.items() if value <= top})
    names = {str(value): name for value, name in tags.names.items()}
    sink.update_tags(CLASSES=json.dumps(names, ensure_ascii=False))
    sink.update_tags(1, **{f"CLASS_{value}": name for value, name in names.items()})


COLORS = ("red", "green", "blue")


def write_bands(
    path: str | Path,
    array: NDArray[Any],
    *,
    names: Sequence[str],
    geo: Geo | Ties | None = None,
    nodata: float | None = None,
) -> None:
    """A GeoTIFF of `array` [C, H, W] in its own type, its bands called `names`.

    Bands called red, green and blue are marked as these colours, all others as plain numbers: left alone, GDAL takes
    the fourth band of an 8-bit file for transparency.
    """
    rasterio = import_rasterio()
    count, height, width = array.shape
    profile: dict[str, Any] = {"driver": "GTiff", "count": count, "height": height, "width": width}
    profile |= {"dtype": str(array.dtype), "compress": "deflate", "bigtiff": "IF_SAFER", "nodata": nodata}
    profile |= {"predictor": 3 if array.dtype.kind == "f" else 2, "photometric": "MINISBLACK", "alpha": "NO"}
    if min(height, width) >= 512:
        profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    profile |= place_profile(geo)
    if [name.lower() for name in names[:3]] == list(COLORS):
        profile["photometric"] = "RGB"
    with rasterio.MemoryFile() as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # arrays without a place are welcome
        with memory.open(**profile) as sink:
            sink.write(array)
            sink.descriptions = tuple(names)
        write_bytes(path, memory.read())
