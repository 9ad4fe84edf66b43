"""Features: polygons with class, score and area, traced from label maps, in degrees, map or pixel coordinates.

Outlines follow the pixel edges exactly, holes kept, so the polygons of all classes tile the map; simplified ones still
share their borders. Longitude and latitude are as in GeoJSON (RFC 7946).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.geo.crs import applied
from torchfpn.geo.georef import Geo
from torchfpn.geo.window import Window, plan_blocks
from torchfpn.vector.lon_lat import GridBends, check_place, decimals_for, geojson_polygons, to_lon_lat
from torchfpn.vector.polygonize import Read, TracedAreas, trace_blocks

Coordinates = Literal["degrees", "map", "pixels"]  # lon and lat; those of the map's own system; column and row
SIDE = 1024  # pixels, of the blocks that a map in memory is traced in: what they need stays in the processor's cache


@dataclass(frozen=True)
class Feature:
    """One connected area.

    Attributes:
        value: in the label map.
        area: square metres, or pixels.
        score: 0..1, None if not known.
        extra: further properties, in front of the others.
    """

    polygon: Any
    value: int
    name: str
    area: float
    score: float | None = None
    extra: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of a GeoJSON Feature with the properties class, class_id, score (if known), area."""
        score = {} if self.score is None else {"score": self.score}
        properties = {**self.extra, "class": self.name, "class_id": self.value, **score, "area": round(self.area, 2)}
        geometry = shapely.to_geojson(self.polygon)  # three times as fast as Python's own JSON
        return (
            f'{{"type": "Feature", "properties": {json.dumps(properties, ensure_ascii=False)}, "geometry": {geometry}}}'
        )


def shifted(feature: Feature, column: int, row: int) -> Feature:
    """A feature in pixels of a part of a map, in those of the whole.

    Args:
        feature: in pixels of the part.
        column: of the first pixel of the part.
        row: of the first pixel of the part.
    """
    polygon = shapely.transform(feature.polygon, lambda points: points + np.array([column, row]))
    return replace(feature, polygon=polygon)


def trace(
    labels: NDArray[Any],
    geo: Geo | None,
    names: Mapping[int, str],
    *,
    scores: NDArray[np.uint8] | None = None,
    min_pixels: float = 0.0,
    simplify: float = 0.0,
    coordinates: Coordinates = "degrees",
    file: str | Path | None = None,
) -> list[Feature]:
    """The areas of the values in `names`, by 4-neighbourhood, in the order of their values, then from top to bottom.

    Args:
        labels: [H, W] integers.
        geo: the georeference of the image or map.
        names: value -> name of the classes.
        scores: [H, W] uint8, 255 times the probability of each pixel's class. Everything else as in `trace_map`.
        min_pixels: see `trace_map`.
        simplify: how far, in pixels, outlines may leave the pixel edges.
        coordinates: see `trace_map`.
        file: the file, for messages.

    Raises:
        RasterError: no coordinate system, or a place that has no longitude and latitude.
    """
    if coordinates != "pixels":
        check_place(geo, file)
    plan = [block.block for block in plan_blocks(*labels.shape, side=SIDE, margin=0)]
    read = reader_of(labels, plan)
    nodes = coordinates == "degrees" or simplify > 0
    marks = None if scores is None else reader_of(scores, plan)
    found = _outlines(plan, read, names, min_pixels, simplify, marks, nodes=nodes)
    ordered = found if simplify > 0 else [_in_order(found)]
    return list(
        make_features(
            ordered, geo, (labels.shape[0], labels.shape[1]), names, coordinates, exact=simplify <= 0, file=file
        )
    )


def trace_map(
    plan: Sequence[Window],
    read: Read,
    geo: Geo | None,
    names: Mapping[int, str],
    *,
    scores: Read | None = None,
    min_pixels: float = 0.0,
    simplify: float = 0.0,
    coordinates: Coordinates = "degrees",
    nodes: bool = False,
    file: str | Path | None = None,
) -> Iterator[Feature]:
    """The areas of a map that is read block by block, each as soon as no further block can add to it.

    Args:
        plan: blocks that tile the map, in bands from top to bottom, from left to right.
        read: number in the plan -> labels [H, W] of that block, integers; asked once for each, in order.
        geo: where the map lies.
        names: label value -> name, of the values that get polygons.
        scores: number in the plan -> uint8 [H, W], 255 times the probability of each pixel's class; the score of a
            polygon is their mean.
        min_pixels: areas of fewer pixels are left out and holes of fewer filled, which does not change the score.
        simplify: how far, in pixels, an outline may leave the pixel edges: corners are cut off while their triangles
            are smaller than the square of it, and neighbours keep their common border (Visvalingam and Whyatt 1993, on
            a coverage). All areas are held in memory for that, and come in the order of `trace`.
        coordinates: "degrees" follow the edges of pixels to a fiftieth of a pixel and are rounded to that; "map" are
            exact corners of pixels in the map's own coordinate system, areas in square metres on the ground all the
            same; "pixels" are (column, row), areas in pixels.
        nodes: an outline has a vertex also where the border of two neighbours ends on it, as it has in degrees, so that
            polygons that are moved stay beside each other.
        file: for messages.

    Raises:
        RasterError: no coordinate system; while reading, a place that has no longitude and latitude, or blocks that do
            not tile a map.
    """
    if coordinates != "pixels":
        check_place(geo, file)
    nodes = nodes or coordinates == "degrees" or simplify > 0
    found = _outlines(plan, read, names, min_pixels, simplify, scores, nodes=nodes)
    size = plan[-1][0] + plan[-1][2], plan[-1][1] + plan[-1][3]
    return make_features(found, geo, size, names, coordinates, exact=simplify <= 0, file=file)


def reader_of(array: NDArray[Any], plan: Sequence[Window]) -> Read:
    """What reads the blocks of a map in memory [H, W]."""

    def read(number: int) -> NDArray[Any]:
        row, column, rows, columns = plan[number]
        return array[row : row + rows, column : column + columns]

    return read


def _outlines(
    plan: Sequence[Window],
    read: Read,
    names: Mapping[int, str],
    min_pixels: float,
    simplify: float,
    scores: Read | None,
    *,
    nodes: bool,
) -> Iterator[TracedAreas]:
    found = trace_blocks(plan, read, list(names), nodes=nodes, min_pixels=min_pixels, scores=scores)
    if simplify <= 0:
        yield from found
        return
    values, polygons, means = _in_order(found)
    polygons = shapely.normalize(polygons)  # where rings begin must not depend on the plan
    yield TracedAreas(values, shapely.coverage_simplify(polygons, simplify), means)


def _in_order(found: Iterable[TracedAreas]) -> TracedAreas:
    """All at once, by their values, then from top to bottom, from left to right."""
    batches = list(found)
    values = np.concatenate([np.zeros(0, np.int64), *(batch.values for batch in batches)])
    polygons = np.concatenate([np.zeros(0, object), *(batch.polygons for batch in batches)])
    left, top, right, bottom = shapely.bounds(polygons).T
    order = np.lexsort((right, bottom, left, top, values))  # the last key first
    means = [batch.scores for batch in batches if batch.scores is not None]
    return TracedAreas(values[order], polygons[order], np.concatenate(means)[order] if means else None)


def make_features(
    found: Iterable[TracedAreas],
    geo: Geo | None,
    size: tuple[int, int],
    names: Mapping[int, str],
    coordinates: Coordinates,
    *,
    exact: bool,
    file: str | Path | None,
) -> Iterator[Feature]:
    """Areas in pixels, Polygons or MultiPolygons, in the coordinates asked for, with what they measure on the ground.

    Args:
        found: traced areas, some at a time.
        geo: the georeference of the image or map.
        size: height and width of the map.
        names: label value -> name.
        coordinates: see `trace_map`.
        exact: the outlines follow the pixel edges. Everything else as in `trace_map`.
        file: for messages.
    """
    bends, decimals = None, 0
    for values, pixels, means in found:
        if geo is None or coordinates == "pixels":
            polygons, areas = shapely.orient_polygons(pixels, exterior_cw=False), shapely.area(pixels)
        else:
            if bends is None:
                bends = GridBends(geo, size)
                decimals = decimals_for(geo, size, file) if coordinates == "degrees" else 0
            moved = to_lon_lat(pixels, geo, file, bends=bends)
            areas = moved.areas
            if coordinates == "degrees":
                polygons = geojson_polygons(moved, decimals, exact=exact)
            else:
                polygons = shapely.transform(pixels, lambda points: applied(geo.transform, points))
                polygons = shapely.orient_polygons(polygons, exterior_cw=False)
        scores = [None] * len(values) if means is None else means.round(3).tolist()
        for value, polygon, area, score in zip(values.tolist(), polygons, areas.tolist(), scores, strict=True):
            if not polygon.is_empty:
                yield Feature(polygon, value, names[value], area, score)
