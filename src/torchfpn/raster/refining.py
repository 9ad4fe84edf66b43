"""Polygons as they were traced or read -> those that are wanted: simplified, merged, squared, sorted out.

features --simplify--> --merge--> --square, the others simplify--> --smallest area--> --not excluded--> features

With right angles wanted, only what does not get them is simplified, and only then.

All in the coordinate system that they came in. Only merging holds all of them in memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.files.geo import Geo
from torchfpn.raster.degrees import to_degrees, written
from torchfpn.raster.known import Known
from torchfpn.raster.merging import merged
from torchfpn.raster.polygons import Feature
from torchfpn.raster.squaring import squared
from torchfpn.vectors.planes import Planes
from torchfpn.vectors.reprojection import repaired
from torchfpn.vectors.systems import PLAIN

ROWS = 1000  # polygons that are worked on at a time


@dataclass(frozen=True)
class Wishes:
    """merge: metres between features that become one. square: how far walls may be off, for right angles.

    simplify: how far outlines may be off: before merging, or with `square` of those that did not become square. pixel:
    the area of a pixel in units of the coordinate system: `square` and `simplify` are in pixels, whose size on the
    ground is that at each feature; 0: they are in metres. least: square metres. known: a layer whose polygons are left
    out; share: how much of a polygon it covers then.
    """

    merge: float = 0.0
    square: float = 0.0
    simplify: float = 0.0
    pixel: float = 0.0
    least: float = 0.0
    known: Known | None = None
    share: float = 0.5


@dataclass
class Counts:
    """Features that came, that went into others, became square, were too small, were known, and are left."""

    given: int = 0
    merged: int = 0
    squared: int = 0
    small: int = 0
    known: int = 0
    left: int = 0


def refined(
    features: Iterable[Feature],
    crs: str,
    wishes: Wishes,
    counts: Counts,
    *,
    tolerance: float,
    file: str | Path | None = None,
) -> Iterator[Feature]:
    """Features in the coordinate system `crs` (well-known text), as they are wanted. Those left alone stay as given.

    tolerance: units of `crs` that edges may be off on the ground, where they are measured.

    Raises:
        RasterError: a place without longitude and latitude.
    """
    if wishes.simplify > 0 and not wishes.square > 0:
        features = _simplified(features, crs, wishes, file)
    if wishes.merge > 0:
        given = list(features)
        given = _measured(given, given, crs, tolerance, file)  # scores are weighted by area
        counts.given = len(given)
        features = merged(given, crs, wishes.merge, file)
        counts.merged = counts.given - len(features)
    for batch in _batches(features):
        counts.given += len(batch) if not wishes.merge > 0 else 0
        shaped = _shaped(batch, crs, wishes, counts, file) if wishes.square > 0 else batch
        kept = [feature for feature in _measured(shaped, batch, crs, tolerance, file) if feature.area >= wishes.least]
        counts.small += len(batch) - len(kept)
        if wishes.known is not None:
            covered = wishes.known.covers([feature.polygon for feature in kept])
            counts.known += int((covered > wishes.share).sum())
            kept = [feature for feature, share in zip(kept, covered.tolist(), strict=True) if share <= wishes.share]
        counts.left += len(kept)
        yield from kept


def in_lon_lat(
    features: Iterable[Feature], crs: str, decimals: int, tolerance: float, file: str | Path | None = None
) -> Iterator[Feature]:
    """Features in the coordinate system `crs`, in longitude and latitude, cut at the 180th meridian (RFC 7946).

    tolerance: units of `crs` that edges may be off.

    Raises:
        RasterError: a place without longitude and latitude.
    """
    for batch in _batches(features):
        moved = to_degrees(_polygons(batch), Geo(crs, PLAIN), file, tolerance=tolerance)
        for feature, polygon in zip(batch, written(moved, decimals), strict=True):
            if not polygon.is_empty:
                yield replace(feature, polygon=polygon)


def _simplified(features: Iterable[Feature], crs: str, wishes: Wishes, file: str | Path | None) -> Iterator[Feature]:
    """Each by itself; what changed is still to be measured (`nan`)."""
    for batch in _batches(features):
        shaped = _shaped(batch, crs, wishes, Counts(), file)
        for new, old in zip(shaped, batch, strict=True):
            yield new if new is old else replace(new, area=float("nan"))


def _shaped(
    batch: Sequence[Feature], crs: str, wishes: Wishes, counts: Counts, file: str | Path | None
) -> list[Feature]:
    """With right angles, or simplified each by itself; the very same objects where nothing changed."""
    planes = Planes.around(_polygons(batch), crs, file)
    ground = planes.to_metres(_polygons(batch))
    results = ground.copy()
    units = np.sqrt(np.abs(np.linalg.det(planes.scales)) * wishes.pixel) if wishes.pixel else np.ones(len(batch))
    for i, (polygon, unit) in enumerate(zip(ground, units.tolist(), strict=True)):
        found = _squared(polygon, wishes.square * unit) if wishes.square > 0 else None
        if found is not None:
            counts.squared += 1
        elif wishes.simplify > 0:
            found = shapely.simplify(polygon, wishes.simplify * unit)
        results[i] = polygon if found is None else found
    changed = [result is not polygon for result, polygon in zip(results, ground, strict=True)]
    back = planes.from_metres(results)
    back[changed] = repaired(back[changed])
    back = shapely.orient_polygons(back, exterior_cw=False)
    triples = zip(batch, back, changed, strict=True)
    return [replace(feature, polygon=polygon) if new else feature for feature, polygon, new in triples]


def _squared(polygon: Any, tolerance: float) -> Any:
    """None where no part gets right angles."""
    if polygon.geom_type == "Polygon":
        return squared(polygon, tolerance)
    parts = shapely.get_parts(polygon).tolist()
    found = [squared(part, tolerance) for part in parts]
    if all(part is None for part in found):
        return None
    result = shapely.multipolygons([new or old for new, old in zip(found, parts, strict=True)])
    return result if result.is_valid else None


def _measured(
    features: Sequence[Feature], before: Sequence[Feature], crs: str, tolerance: float, file: str | Path | None
) -> list[Feature]:
    """With the areas on the ground of those that are new or have none."""
    result = list(features)
    new = [i for i, (one, old) in enumerate(zip(features, before, strict=True)) if one is not old or np.isnan(one.area)]
    polygons = _polygons([features[i] for i in new])
    areas = to_degrees(polygons, Geo(crs, PLAIN), file, tolerance=tolerance).areas
    for i, area in zip(new, areas.tolist(), strict=True):
        result[i] = replace(features[i], area=area)
    return result


def _polygons(features: Sequence[Feature]) -> NDArray[Any]:
    return np.array([feature.polygon for feature in features], dtype=object)


def _batches(features: Iterable[Feature]) -> Iterator[list[Feature]]:
    batch: list[Feature] = []
    for feature in features:
        batch.append(feature)
        if len(batch) == ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
