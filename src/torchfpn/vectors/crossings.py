"""How often the rings of a polygon cross, and the limit: mending n crossings takes time and memory that grow with n.

A ring of 2,000 random vertices crosses itself 450,000 times; mending it takes minutes and gigabytes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.errors import DataError

CROSSINGS = 20_000  # of one polygon: a few seconds
_PAIRS = 2**22  # segments that are compared at a time


def check_crossings(shapes: NDArray[Any], features: NDArray[np.int64], file: Path, limit: int | None) -> None:
    """Passes invalid polygons whose rings do not cross too often.

    Args:
        shapes: [N] polygons.
        features: [N] the number of each one's feature, from 0.
        file: for messages.
        limit: crossings of one polygon; None: `CROSSINGS`, in a place where the user cannot change it.

    Raises:
        DataError: the first polygon whose rings cross more than `limit` times.
    """
    most = CROSSINGS if limit is None else limit
    sizes = shapely.get_num_coordinates(shapes).astype(np.int64)
    for number in np.flatnonzero(sizes * (sizes - 1) // 2 > most):  # fewer vertices cannot cross so often
        if _crosses_more_than(most, shapes[number]):
            hint = 'repair it first ("Fix geometries" of QGIS)'
            raise DataError(
                f"its rings cross more than {most:,} times",
                file=file,
                field=f"feature {features[number] + 1}",
                allowed=f"up to {most:,} crossings in a polygon",
                hint=hint if limit is None else f"{hint}, or allow more with --max-crossings N",
            )


def _crosses_more_than(most: int, shape: Any) -> bool:
    points, ring = shapely.get_coordinates(shapely.get_rings(shape), return_index=True)
    inside = ring[1:] == ring[:-1]
    starts, ends = points[:-1][inside], points[1:][inside]
    tree = shapely.STRtree(shapely.linestrings(np.stack([starts, ends], axis=1)))
    step, found = max(16, _PAIRS // len(starts)), 0
    for first in range(0, len(starts), step):
        one, other = tree.query(tree.geometries[first : first + step])
        one = one + first
        later = one < other
        one, other = one[later], other[later]
        found += int(_cross(starts[one], ends[one], starts[other], ends[other]).sum())
        if found > most:
            return True
    return False


def _cross(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], d: NDArray[Any]) -> NDArray[np.bool_]:
    """[N]: whether the segments a-b and c-d cross, each within the other; shared ends do not count."""
    ac, ad = np.sign(_turn(a, b, c)), np.sign(_turn(a, b, d))
    ca, cb = np.sign(_turn(c, d, a)), np.sign(_turn(c, d, b))
    return (ac * ad < 0) & (ca * cb < 0)


def _turn(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> NDArray[np.float64]:
    """[N]: more than 0 where c lies to the left of a-b."""
    along, aside = b - a, c - a
    return np.asarray(along[:, 0] * aside[:, 1] - along[:, 1] * aside[:, 0], np.float64)
