"""Object scores: polygons against polygons, and the objects of label maps against polygons."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.errors import ConfigError, DataError, nearest
from torchfpn.geo.georef import Window
from torchfpn.geo.window import plan_blocks
from torchfpn.metrics.polygons import ObjectScores, score_objects
from torchfpn.vector.features import SIDE, reader_of, trace_map
from torchfpn.vector.geometry import clip, ground_plane, to_plane
from torchfpn.vector.objects import Objects

Measure = Callable[[NDArray[Any]], NDArray[np.float64]]
OBJECT = "object"  # the name of the only class
Layer = tuple[NDArray[Any], str, Path]  # polygons, their coordinate system, their file


class ObjectCounter:
    """Precision, recall and F1 of the objects of label maps, counted over images; `scores` has them.

    A predicted object is an area of one label whose pixels touch along their sides, holes kept. Of the true ones counts
    what lies in the image.
    """

    def __init__(self, names: Mapping[int, str], *, iou: float = 0.5, least: float = 0.0) -> None:
        """names: the label values that are objects, and what they are called. least: pixels; smaller ones are left out.

        iou: from which two objects are one. `small` counts what was too small, predicted and true.
        """
        self.names, self.least, self.small = dict(names), least, (0, 0)
        zero = (0,) * len(self.names)
        self.scores = ObjectScores(iou, tuple(self.names.values()), zero, zero, zero)

    def update(self, labels: NDArray[Any], shapes: NDArray[Any], values: NDArray[Any]) -> None:
        """Counts an image.

        labels: [H, W] integers. shapes: [N] valid polygons in the pixels (column, row) of the image, whose corner
        (0, 0) is at the upper left. values: [N] the label value of each.

        Raises:
            DataError: a value that is not among the names.
        """
        plan = [block.block for block in plan_blocks(*labels.shape, side=SIDE, margin=0)]
        self.update_by_blocks(plan, reader_of(labels, plan), shapes, values)

    def update_by_blocks(
        self,
        plan: Sequence[Window],
        read: Callable[[int], NDArray[Any]],
        shapes: NDArray[Any],
        values: NDArray[Any],
        *,
        measure: Measure = shapely.area,
    ) -> NDArray[np.int64]:
        """The same of a map that is read block by block, see `trace_map`; numbers of the shapes inside.

        measure: polygons [N] in pixels -> [N] areas in the unit of `least`, if that is another one than pixels.
        """
        order = {value: k for k, value in enumerate(self.names)}
        if unknown := [value for value in np.unique(values).tolist() if value not in order]:
            raise DataError(f"a polygon of the value {unknown[0]}", allowed=", ".join(map(str, self.names)))
        found = list(trace_map(plan, read, None, self.names, coordinates="pixels"))
        traced = np.array([feature.polygon for feature in found], dtype=object)
        classes = np.array([order[feature.value] for feature in found], np.int64)
        height, width = plan[-1][0] + plan[-1][2], plan[-1][1] + plan[-1][3]
        inside, numbers = clip(shapes, shapely.box(0, 0, width, height))
        there = np.array([order[value] for value in values[numbers].tolist()], np.int64)
        large = [self._large(each, measure) for each in (traced, inside)]
        small = [int((~kept).sum()) for kept in large]
        self.small = self.small[0] + small[0], self.small[1] + small[1]
        self.scores += score_objects(
            traced[large[0]],
            inside[large[1]],
            tuple(self.names.values()),
            iou=self.scores.iou,
            classes=(classes[large[0]], there[large[1]]),
        )
        return numbers

    def _large(self, shapes: NDArray[Any], measure: Measure) -> NDArray[np.bool_]:
        """[N]: which are not too small; nothing is measured where nothing can be."""
        if not self.least > 0 or not len(shapes):
            return np.ones(len(shapes), bool)
        return np.asarray(measure(shapes) >= self.least)


@dataclass(frozen=True)
class ObjectComparison:
    """scores, and how many predicted and true objects were left out.

    outside: beyond the area, or too small. others: of classes that were not asked for. apart: both layers hold objects,
    and none meets one of the other.
    """

    scores: ObjectScores
    outside: tuple[int, int]
    others: tuple[int, int]
    apart: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the scores as "objects", and the numbers of objects "left_out"."""
        names = ("outside_or_small", "of_other_classes")
        sides = {
            name: {"predicted": p, "truth": t} for name, (p, t) in zip(names, (self.outside, self.others), strict=True)
        }
        return {"objects": self.scores.to_dict(), "left_out": sides}


def compare_objects(
    predicted: Objects,
    truth: Objects,
    *,
    iou: float = 0.5,
    only: Sequence[str] = (),
    within: Sequence[Layer] = (),
    least: float = 0.0,
) -> ObjectComparison:
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
        parts = [to_plane(shapes, crs, plane, file) for shapes, crs, file in within]
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
    return ObjectComparison(
        scores, outside, others, not any(scores.matched) and _apart(given[0].shapes, given[1].shapes)
    )


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
    return replace(layer, shapes=to_plane(layer.shapes, layer.crs, plane, layer.file))


def _apart(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if not len(one) or not len(other):
        return False
    return not shapely.STRtree(other).query(one, predicate="intersects").size


def _cut(layer: Objects, area: Any, least: float) -> Objects:
    """The objects cut to the area; small ones are gone."""
    shapes = layer.shapes
    if area is not None:
        shapes, numbers = clip(shapes, area, least)
    else:
        numbers = np.flatnonzero(shapely.area(shapes) >= least)
        shapes = shapes[numbers]
    return layer.kept(numbers, shapes)
