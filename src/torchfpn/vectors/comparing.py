"""Two layers of polygons, predicted and true, in any coordinate systems -> how many objects were found."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.errors import ConfigError, nearest
from torchfpn.vectors.clipping import clipped
from torchfpn.vectors.ground import ground_plane, on_ground
from torchfpn.vectors.object_scores import ObjectScores, score_objects
from torchfpn.vectors.objects import Objects

OBJECT = "object"  # the name of the only class
Layer = tuple[NDArray[Any], str, Path]  # polygons, their coordinate system, their file


@dataclass(frozen=True)
class Compared:
    """scores, and how many predicted and true objects were left out.

    outside: beyond the area, or too small. others: of classes that were not asked for. apart: both layers hold objects,
    and none meets one of the other.
    """

    scores: ObjectScores
    outside: tuple[int, int]
    others: tuple[int, int]
    apart: bool = False


def compare_objects(
    predicted: Objects,
    truth: Objects,
    *,
    iou: float = 0.5,
    only: Sequence[str] = (),
    within: Sequence[Layer] = (),
    least: float = 0.0,
) -> Compared:
    """Matches the objects of two layers, class by class where both have classes.

    only: names of the classes that count; where one layer alone has classes, these of it are all that is compared with
    the other. within: areas that both are cut to. least: square metres; smaller objects, and smaller parts of those
    that were cut, are left out on both sides.

    Raises:
        ConfigError: a class that neither layer has. RasterError: places that cannot be brought together.
    """
    (predicted, truth), others = _chosen((predicted, truth), only)
    plane = ground_plane([(truth.shapes, truth.crs), (predicted.shapes, predicted.crs)])
    area = None
    if within:
        parts = [on_ground(shapes, crs, plane, file) for shapes, crs, file in within]
        area = shapely.union_all(np.concatenate(parts))
    names = _names((predicted, truth), only)
    given = [_on_plane(layer, plane) for layer in (predicted, truth)]
    found, there = (_cut(layer, area, least) for layer in given)
    scores = score_objects(
        found.shapes,
        there.shapes,
        names,
        iou=iou,
        classes=(_numbers(found, names), _numbers(there, names)),
        scores=found.scores,
    )
    outside = len(predicted.shapes) - len(found.shapes), len(truth.shapes) - len(there.shapes)
    return Compared(scores, outside, others, not any(scores.matched) and _apart(given[0].shapes, given[1].shapes))


def _chosen(layers: tuple[Objects, Objects], only: Sequence[str]) -> tuple[tuple[Objects, Objects], tuple[int, int]]:
    """The objects of the classes that count, and how many there are of others."""
    known = {str(value) for layer in layers if layer.classes is not None for value in layer.classes}
    for name in only:
        if known and name not in known:
            raise ConfigError(f'no object is of the class "{name}"', field="--classes", hint=nearest(name, known))
    one, other = (_of_classes(layer, only) for layer in layers)
    if one.classes is None or other.classes is None:
        one, other = replace(one, classes=None), replace(other, classes=None)
    return (one, other), (len(layers[0].shapes) - len(one.shapes), len(layers[1].shapes) - len(other.shapes))


def _of_classes(layer: Objects, only: Sequence[str]) -> Objects:
    if layer.classes is None or not only:
        return layer
    return layer.kept(np.flatnonzero([str(value) in only for value in layer.classes]))


def _names(layers: tuple[Objects, Objects], only: Sequence[str]) -> list[str]:
    """Of the classes: as asked for, else all that occur, in order of the alphabet and of numbers."""
    if layers[0].classes is None:
        return [", ".join(only) or OBJECT]
    held = {value for layer in layers if layer.classes is not None for value in layer.classes}
    inorder = sorted(held, key=lambda value: (isinstance(value, str), value))
    return list(only) or list(dict.fromkeys(str(value) for value in inorder))


def _numbers(layer: Objects, names: Sequence[str]) -> NDArray[np.int64]:
    """[N]: the place of the class of each object among the names."""
    if layer.classes is None:
        return np.zeros(len(layer.shapes), np.int64)
    known = {name: i for i, name in enumerate(names)}
    return np.array([known[str(value)] for value in layer.classes], np.int64)


def _on_plane(layer: Objects, plane: str) -> Objects:
    """The objects in metres."""
    return replace(layer, shapes=on_ground(layer.shapes, layer.crs, plane, layer.file))


def _apart(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if not len(one) or not len(other):
        return False
    return not shapely.STRtree(other).query(one, predicate="intersects").size


def _cut(layer: Objects, area: Any, least: float) -> Objects:
    """The objects cut to the area; small ones are gone."""
    shapes = layer.shapes
    if area is not None:
        shapes, numbers = clipped(shapes, area, least)
    else:
        numbers = np.flatnonzero(shapely.area(shapes) >= least)
        shapes = shapes[numbers]
    return layer.kept(numbers, shapes)
