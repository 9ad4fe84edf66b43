"""Which polygons another layer holds already."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError

from torchfpn.errors import RasterError
from torchfpn.files.geo import Geo
from torchfpn.vectors.objects import Objects
from torchfpn.vectors.reprojection import repaired, reproject, within_turn
from torchfpn.vectors.systems import PLAIN, Way, system


class Known:
    """The polygons of a layer, in the coordinate system `crs` (well-known text) of those it will be asked about.

    tolerance: units of `crs` that edges may be off.

    Raises:
        RasterError: there is no way from one coordinate system to the other.
    """

    def __init__(self, layer: Objects, crs: str, tolerance: float) -> None:
        self.system = system(crs)
        self.tree = shapely.STRtree(self._folded(_brought(layer, crs, tolerance)))

    def covers(self, shapes: Sequence[Any]) -> NDArray[np.float64]:
        """[N]: the share of each polygon that the layer covers, 0..1; never less than its IoU with one of them."""
        asked = self._folded(np.asarray(shapes, dtype=object))
        result = np.zeros(len(asked))
        one, other = self.tree.query(asked, predicate="intersects")
        for i in np.unique(one):
            over = shapely.union_all(self.tree.geometries[other[one == i]])
            result[i] = shapely.intersection(asked[i], over).area / asked[i].area
        return result

    def _folded(self, shapes: NDArray[Any]) -> NDArray[Any]:
        """Within one turn around the earth, so that the same place has the same coordinates."""
        return shapes if self.system.turn is None else within_turn(shapes, self.system.west, self.system.turn)


def _brought(layer: Objects, crs: str, tolerance: float) -> NDArray[Any]:
    """The polygons in another coordinate system; those without a place there are left out."""
    way = Way(Geo(layer.crs, PLAIN), Geo(crs, PLAIN))
    try:
        moved = reproject(layer.shapes, way, tolerance, lost=True)
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        found = f"cannot be brought into the coordinate system of the polygons ({error})"
        raise RasterError(found, file=layer.file) from error
    return repaired(moved.shapes[~moved.torn])
