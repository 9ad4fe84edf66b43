"""Geometries as they come -> polygons that can be drawn: collections opened, rings mended, lines and points widened."""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.errors import DataError, amount
from torchfpn.vectors.crossings import check_crossings
from torchfpn.vectors.reading import Vectors
from torchfpn.vectors.widening import widened

_POINT, _LINE, _AREA = 0, 1, 2  # dimensions


@dataclass(frozen=True)
class Areas:
    """Valid polygons, in the order of their features.

    shapes: [M] Polygon or MultiPolygon. features: [M] the number of each one's feature, from 0; a feature may have
    several. invalid: features whose rings were mended. lost: features without a geometry, or with none that has an
    area. widened: features that were lines or points.
    """

    shapes: NDArray[np.object_]
    features: NDArray[np.int64]
    invalid: int
    lost: int
    widened: int


def areas(vectors: Vectors, *, buffer: float | None = None, crossings: int | None = None) -> Areas:
    """Polygons of all features.

    A ring that crosses itself keeps the points that it winds around, more often one way than the other (the nonzero
    rule): both halves of a bow tie, and what it encloses twice in one direction. Overlapping parts of a feature are
    joined. Equals `shapely.make_valid(method="structure")`; GDAL's even-odd rule would cut holes where a ring overlaps
    itself.

    Args:
        vectors: the features.
        buffer: metres on the ground to each side of a line, and around a point.
        crossings: how often the rings of one polygon may cross; None: `CROSSINGS`.

    Raises:
        DataError: lines or points, and no buffer; a polygon whose rings cross more often.
    """
    shapes, features = _parts(vectors.shapes)
    dimensions = shapely.get_dimensions(shapes)
    thin = dimensions < _AREA
    if thin.any():
        if buffer is None:
            raise _thin_error(vectors, features, dimensions)
        shapes[thin] = widened(shapes[thin], vectors.crs, buffer, vectors.file)
    broken = ~shapely.is_valid(shapes)
    check_crossings(shapes[broken], features[broken], vectors.file, crossings)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    kept = shapely.area(shapes) > 0
    invalid = np.unique(features[kept & (broken | vectors.unclosed[features])])
    lost = len(vectors.shapes) - len(np.unique(features[kept]))
    return Areas(shapes[kept], features[kept], len(invalid), lost, len(np.unique(features[thin & kept])))


def _parts(shapes: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Single geometries and the number of the feature of each; collections may hold collections."""
    features = np.flatnonzero(~shapely.is_missing(shapes))
    parts = shapes[features]
    while (shapely.get_type_id(parts) >= shapely.GeometryType.MULTIPOINT).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        features = features[index]
    full = ~shapely.is_empty(parts)
    return parts[full], features[full]


def _thin_error(vectors: Vectors, features: NDArray[np.int64], dimensions: NDArray[np.int32]) -> DataError:
    lines = len(np.unique(features[dimensions == _LINE]))
    points = len(np.unique(features[dimensions == _POINT]))
    counts = [f"{n:,} {name}" for n, name in ((lines, "lines"), (points, "points")) if n]
    return DataError(
        f"{' and '.join(counts)} among {amount(len(vectors.shapes), 'feature')}",
        file=vectors.file,
        allowed="polygons",
        hint="remove them, or make areas of them with --buffer METRES",
    )
