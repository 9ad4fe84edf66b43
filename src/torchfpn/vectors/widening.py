"""Lines and points -> areas of a width in metres on the ground, whatever the units of their coordinate system."""

from pathlib import Path
from typing import Any

import shapely
from numpy.typing import NDArray

from torchfpn.vectors.planes import Planes


def widened(shapes: NDArray[Any], crs: str, metres: float, file: str | Path | None = None) -> NDArray[Any]:
    """Each line or point with everything within `metres` of it, in its own coordinate system.

    The scale is the one at the middle of each shape: over 100 km from north to south it changes by about one hundredth.

    Raises:
        RasterError: places that have no longitude and latitude.
    """
    planes = Planes.around(shapes, crs, file)
    return planes.from_metres(shapely.buffer(planes.to_metres(shapes), metres))
