"""Images of numbered objects: 0 where nothing is, and for each object a number of its own."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchfpn.data.dataset import Dataset
from torchfpn.data.reading import check_fit
from torchfpn.data.splits import Pair
from torchfpn.data.truth import Truth
from torchfpn.errors import DataError
from torchfpn.files.geo import Geo
from torchfpn.files.labels import read_labels
from torchfpn.ops.masks import Crops


def read_numbered(dataset: Dataset, pair: Pair, size: tuple[int, int], place: Geo | None) -> Truth:
    """The objects of an image of (height, width) `size`, in the order of their numbers; those of `ignored` are crowds.

    place: where the image lies, if its file says.

    Raises:
        DataError: damaged, of another size or place than the image, negative values, or a dataset of several classes.
    """
    assert pair.label is not None  # the caller has seen to it
    if len(dataset.classes) != 1:
        raise DataError(
            f"numbers objects, which leaves open of which of {len(dataset.classes)} classes they are",
            file=pair.label,
            allowed="one class, COCO annotations, or polygons with a field",
        )
    labels = read_labels(pair.label, max_pixels=dataset.max_pixels, allow_vrt=dataset.allow_vrt, root=dataset.root)
    check_fit(pair, size, place, labels.values.shape, labels.geo)
    numbers, windows = windows_of(labels.values)
    if len(numbers) and numbers[0] < 0:
        raise DataError(f"the value {numbers[0]}", file=pair.label, allowed="0 where nothing is, objects from 1")
    crowd = np.isin(numbers, dataset.ignored)
    own, boxes = numbers[~crowd], windows[~crowd]

    def masks(keep: NDArray[np.int64]) -> Crops:
        made = [
            (labels.values[y1:y2, x1:x2] == number).T.reshape(-1)
            for number, (x1, y1, x2, y2) in zip(own[keep].tolist(), boxes[keep].tolist(), strict=True)
        ]
        pixels = np.concatenate(made) if made else np.zeros(0, bool)
        return Crops(torch.from_numpy(boxes[keep]), torch.from_numpy(pixels), size)

    return Truth(
        boxes.astype(np.float32),
        np.zeros(len(own), np.int64),
        windows[crowd].astype(np.float32),
        size,
        masks if dataset.task == "instance" else None,
    )


def windows_of(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers [N] other than 0 in an image [H, W], rising, and the window [N, 4] of each: x1, y1, x2, y2."""
    rows, columns = np.nonzero(values)
    found = values[rows, columns].astype(np.int64)
    order = np.argsort(found, kind="stable")
    found, rows, columns = found[order], rows[order], columns[order]
    first = np.flatnonzero(np.diff(found, prepend=found[:1] - 1))
    if not len(first):
        return np.zeros(0, np.int64), np.zeros((0, 4), np.int64)
    low = (np.minimum.reduceat(columns, first), np.minimum.reduceat(rows, first))
    high = (np.maximum.reduceat(columns, first) + 1, np.maximum.reduceat(rows, first) + 1)
    return found[first], np.stack([*low, *high], 1).astype(np.int64)
