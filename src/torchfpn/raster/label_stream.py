"""A GeoTIFF of labels written from top to bottom, so that it may be larger than memory. Whole or not at all."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.files.atomic import atomic_path
from torchfpn.files.geo import Geo
from torchfpn.files.quiet import quiet
from torchfpn.files.rasters import import_rasterio, place_profile, raster_writes

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
