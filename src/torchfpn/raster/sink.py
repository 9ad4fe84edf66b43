"""Any array of bands as a GeoTIFF: deflate, band names, the grid it lies on. Whole or not at all."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from torchfpn.files.atomic import write_bytes
from torchfpn.files.geo import Geo, Ties
from torchfpn.files.rasters import import_rasterio, place_profile

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
