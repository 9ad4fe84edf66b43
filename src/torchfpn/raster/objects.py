"""Label maps against polygons: the areas of a class are objects, to be matched with the true ones.

Everything happens in the pixels of the map, where polygons are cut to its border; areas there are those on the ground
but for the scale of the coordinate system, which is the same all over an object.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.errors import DataError
from torchfpn.raster.blocks import Rectangle, plan_blocks
from torchfpn.raster.polygons import SIDE, reader_of, trace_map
from torchfpn.vectors.clipping import clipped
from torchfpn.vectors.object_scores import ObjectScores, score_objects


class ObjectCounter:
    """Precision, recall and F1 of the objects of label maps, counted over images; `scores` has them.

    A predicted object is an area of one label whose pixels touch along their sides, holes kept. Of the true ones counts
    what lies in the image.
    """

    def __init__(self, names: Mapping[int, str], *, iou: float = 0.5, least: float = 0.0) -> None:
        """names: the label values that are objects, and what they are called. least: pixels; smaller ones are left out.

        iou: from which two objects are one.
        """
        self.names, self.least = dict(names), least
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
        plan: Sequence[Rectangle],
        read: Callable[[int], NDArray[Any]],
        shapes: NDArray[Any],
        values: NDArray[Any],
    ) -> None:
        """The same of a map that is read block by block, see `polygons.trace_map`."""
        order = {value: k for k, value in enumerate(self.names)}
        if unknown := [value for value in np.unique(values).tolist() if value not in order]:
            raise DataError(f"a polygon of the value {unknown[0]}", allowed=", ".join(map(str, self.names)))
        found = list(trace_map(plan, read, None, self.names, coordinates="pixels"))
        traced = np.array([feature.polygon for feature in found], dtype=object)
        classes = np.array([order[feature.value] for feature in found], np.int64)
        large = shapely.area(traced) >= self.least
        height, width = plan[-1][0] + plan[-1][2], plan[-1][1] + plan[-1][3]
        inside, numbers = clipped(shapes, shapely.box(0, 0, width, height), self.least)
        there = np.array([order[value] for value in values[numbers].tolist()], np.int64)
        self.scores += score_objects(
            traced[large],
            inside,
            tuple(self.names.values()),
            iou=self.scores.iou,
            classes=(classes[large], there),
        )
