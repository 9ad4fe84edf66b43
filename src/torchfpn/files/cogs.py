"""Cloud-optimised GeoTIFFs written block by block: tiles of 512, nearest-neighbour overviews, whole or not at all."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from torchfpn.files.atomic import atomic_path
from torchfpn.files.geo import Geo, Ties
from torchfpn.files.quiet import quiet
from torchfpn.files.rasters import Color, import_rasterio, place_profile, translated

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
        RasterError: the disk is full, or GDAL fails otherwise.
    """
    rasterio, path = import_rasterio(), Path(path)
    with translated(path), rasterio.Env(GDAL_CACHEMAX=CACHE), atomic_path(path) as part:
        plain = part.with_name(part.name + ".plain.tif")
        try:
            with quiet(rasterio.errors.NotGeoreferencedWarning):
                _write_plain(plain, layout, blocks)
                _copy(plain, part, layout)
        finally:
            plain.unlink(missing_ok=True)


def _write_plain(part: Path, layout: Layout, blocks: Iterable[tuple[int, int, NDArray[Any]]]) -> None:
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


def _copy(plain: Path, path: Path, layout: Layout) -> None:
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
