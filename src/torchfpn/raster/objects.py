"""Label maps against polygons: the areas of a class are objects, to be matched with the true ones.

Objects are matched in the pixels of the map, where polygons are cut to its border: the scale of the coordinate system
is the same all over an object, so shares of areas are those on the ground. From object to object it may differ.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.errors import DataError
from torchfpn.files.geo import Window
from torchfpn.raster.blocks import plan_blocks
from torchfpn.raster.polygons import SIDE, reader_of, trace_map
from torchfpn.vectors.clipping import clipped
from torchfpn.vectors.object_scores import ObjectScores, score_objects

Measure = Callable[[NDArray[Any]], NDArray[np.float64]]


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
        """The same of a map that is read block by block, see `polygons.trace_map`; numbers of the shapes inside.

        measure: polygons [N] in pixels -> [N] areas in the unit of `least`, if that is another one than pixels.
        """
        order = {value: k for k, value in enumerate(self.names)}
        if unknown := [value for value in np.unique(values).tolist() if value not in order]:
            raise DataError(f"a polygon of the value {unknown[0]}", allowed=", ".join(map(str, self.names)))
        found = list(trace_map(plan, read, None, self.names, coordinates="pixels"))
        traced = np.array([feature.polygon for feature in found], dtype=object)
        classes = np.array([order[feature.value] for feature in found], np.int64)
        height, width = plan[-1][0] + plan[-1][2], plan[-1][1] + plan[-1][3]
        inside, numbers = clipped(shapes, shapely.box(0, 0, width, height))
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
