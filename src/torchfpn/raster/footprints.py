"""Where rasters lie: the outline of each, as a polygon in its own coordinate system."""

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.files.rasters import geo_of, open_raster
from torchfpn.vectors.placing import check_grid
from torchfpn.vectors.tiles import tile_geo


def footprint(
    file: Path, *, assume_crs: str | None = None, tiles: str | None = None, allow_vrt: bool = False
) -> tuple[NDArray[Any], str, Path]:
    """One polygon [1], its coordinate system, and the file; no pixel is read.

    tiles: how the paths of rasters end that do not say where they lie (`vectors.tiles`).

    Raises:
        DataError: no raster. RasterError: it has no place on the earth.
    """
    with open_raster(file, allow_vrt=allow_vrt) as source:
        size, geo = (source.height, source.width), geo_of(source)
    if geo is None and tiles is not None:
        geo = tile_geo(file, tiles, size)
    geo = check_grid(geo, file, assume_crs)
    corners = [geo.world(x, y) for x, y in ((0, 0), (size[1], 0), (size[1], size[0]), (0, size[0]))]
    return np.array([shapely.Polygon(corners)], dtype=object), str(geo.crs), file
