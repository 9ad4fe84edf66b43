"""Objects of a dataset whose labels are polygons: what a model finds in each image against the polygons themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from torchfpn.data.burning import grid, read_features
from torchfpn.data.dataset import Dataset
from torchfpn.data.splits import Pair
from torchfpn.files.rasters import geo_of, open_raster
from torchfpn.raster.objects import ObjectCounter
from torchfpn.types import IGNORE
from torchfpn.vectors.drawing import place
from torchfpn.vectors.formats import is_vector


class DatasetObjects:
    """Counts objects image by image: called with the labels that a model gives to each, in the order of the pairs.

    order: the model's label of each class of the dataset. iou: from which two objects are one. least: pixels; smaller
    objects are left out on both sides. The class where no polygon lies has no objects.
    """

    def __init__(
        self, dataset: Dataset, pairs: Sequence[Pair], order: Sequence[int], *, iou: float = 0.5, least: float = 0.0
    ) -> None:
        self.dataset, self.pairs, self.order, self.next = dataset, list(pairs), np.array(order), 0
        background = dataset.polygons.background
        names = {int(order[i]): c.name for i, c in enumerate(dataset.classes) if i != background}
        self.counter = ObjectCounter(dict(sorted(names.items())), iou=iou, least=least)

    def __call__(self, labels: Tensor) -> None:
        """Labels [H, W] of the next image."""
        pair = self.pairs[self.next]
        self.next += 1
        if pair.label is None:
            return
        with open_raster(pair.image, allow_vrt=self.dataset.allow_vrt, root=self.dataset.root) as source:
            size, geo = (source.height, source.width), geo_of(source)
        features = read_features(self.dataset, pair.label).labels
        scene = place(features, grid(self.dataset, pair, geo, size), size, ignored=IGNORE + 1, file=pair.image)
        known = scene.labels <= len(self.order)  # the others are polygons of areas that are not labelled
        values = self.order[scene.labels[known] - 1]
        seen = np.isin(values, list(self.counter.names))
        self.counter.update(labels.numpy(), scene.shapes[known][seen], values[seen])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return self.counter.scores.to_dict()


def has_objects(pairs: Sequence[Pair]) -> bool:
    """Whether the labels of a split are polygons."""
    return any(pair.label is not None and is_vector(pair.label) for pair in pairs)
