"""Which polygons another layer holds already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.vectors.objects import Objects


class Known:
    """The polygons of a layer, in the coordinate system `crs` (well-known text) of those it will be asked about.

    Raises:
        RasterError: there is no way from one coordinate system to the other.
    """

    def __init__(self, layer: Objects, crs: str) -> None:
        shapes = _brought(layer.shapes, layer.crs, crs, layer.file)
        broken = ~shapely.is_valid(shapes)
        shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
        self.tree = shapely.STRtree(shapes)

    def covers(self, shapes: Sequence[Any]) -> NDArray[np.float64]:
        """[N]: the share of each polygon that the layer covers, 0..1; never less than its IoU with one of them."""
        asked = np.asarray(shapes, dtype=object)
        result = np.zeros(len(asked))
        one, other = self.tree.query(asked, predicate="intersects")
        for i in np.unique(one):
            over = shapely.union_all(self.tree.geometries[other[one == i]])
            result[i] = shapely.intersection(asked[i], over).area / asked[i].area
        return result


def _brought(shapes: NDArray[Any], source: str, target: str, file: Path) -> NDArray[Any]:
    """Polygons in another coordinate system, point by point; those without a place there are left out."""
    if rasterio.crs.CRS.from_wkt(source) == rasterio.crs.CRS.from_wkt(target) or not len(shapes):
        return shapes.copy()
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    try:
        moved = np.stack(rasterio.warp.transform(source, target, *points.T), axis=1)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        found = f"cannot be brought into the coordinate system of the polygons ({error})"
        raise RasterError(found, file=file) from error
    away = np.zeros(len(shapes), bool)
    away[owner[~np.isfinite(moved).all(axis=1)]] = True
    moved = np.where(np.isfinite(moved), moved, 0.0)
    return np.asarray(shapely.set_coordinates(shapes.copy(), moved), dtype=object)[~away]
