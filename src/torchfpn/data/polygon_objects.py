"""Polygons as objects: each feature of a file is one, whatever its parts; boxes and masks follow from its outline."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.burning import NOT_LABELLED, grid, read_features, spelt
from torchfpn.data.dataset import Dataset
from torchfpn.data.outlines import Outlines, chosen, draw
from torchfpn.data.splits import Pair
from torchfpn.data.truth import Truth, meets
from torchfpn.errors import FPNError
from torchfpn.files.geo import Geo, Window
from torchfpn.vectors.drawing import Scene, place
from torchfpn.vectors.edges import edges

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops


def read_polygons(
    dataset: Dataset, pair: Pair, geo: Geo | None, size: tuple[int, int], window: Window | None = None
) -> Truth:
    """The features that reach into an image, or into a window of it; those that are not labelled are crowds.

    geo, size: of the whole image, as its file says. Boxes may reach out of the image.

    Raises:
        DataError: see `read_features`. RasterError: nothing says where the image lies.
    """
    scene = _scene(dataset, pair, geo, size, window)
    row, column, height, width = window or (0, 0, *size)
    start, end, owner = edges(scene.shapes)
    corner = np.array([column, row], np.float64)
    _, first, objects = np.unique(scene.owners, return_index=True, return_inverse=True)
    outlines = Outlines(start - corner, end - corner, owner, objects.astype(np.int64), len(first))
    boxes, values = _boxes(outlines), scene.labels[first]
    crowd = values == NOT_LABELLED
    own = np.flatnonzero(~crowd & meets(boxes, (height, width)))

    def masks(keep: NDArray[np.int64]) -> "Crops":
        return draw(chosen(outlines, own[keep]), boxes[own[keep]], (height, width))

    return Truth(
        boxes[own],
        values[own].astype(np.int64) - 1,
        boxes[crowd & meets(boxes, (height, width))],
        (height, width),
        masks if dataset.task == "instance" else None,
    )


def features_met(dataset: Dataset, pair: Pair, geo: Geo | None, size: tuple[int, int]) -> NDArray[np.int64]:
    """Numbers of the features that reach into an image.

    Raises:
        DataError, RasterError: see `read_polygons`.
    """
    return np.unique(_scene(dataset, pair, geo, size, None).owners)


def _scene(dataset: Dataset, pair: Pair, geo: Geo | None, size: tuple[int, int], window: Window | None) -> Scene:
    labels = read_features(dataset, pair.label or pair.image).labels
    try:
        where = grid(dataset, pair, geo, size)
        return place(labels, where, size, ignored=NOT_LABELLED, file=pair.image, window=window)
    except FPNError as error:
        raise spelt(error, dataset) from error


def _boxes(outlines: Outlines) -> NDArray[np.float32]:
    boxes = np.zeros((outlines.count, 4), np.float64)
    boxes[:, :2], boxes[:, 2:] = np.inf, -np.inf
    owner = outlines.objects[outlines.owner]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    if len(first):
        boxes[owner[first], :2] = np.minimum.reduceat(outlines.start, first)
        boxes[owner[first], 2:] = np.maximum.reduceat(outlines.start, first)
    return boxes.astype(np.float32)
