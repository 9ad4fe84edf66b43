"""Images of numbered objects: 0 where nothing is, and for each object a number of its own."""

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.dataset import Dataset
from torchfpn.data.extents import crops_of, extents
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
    values = labels.values if labels.valid is None else np.where(labels.valid, labels.values, 0)
    if labels.nodata is not None:  # of no object
        values = np.where(values == labels.nodata, values.dtype.type(0), values)
    found = extents(values)
    numbers, windows = found.ids, found.windows
    if len(numbers) and numbers[0] < 0:
        raise DataError(f"the value {numbers[0]}", file=pair.label, allowed="0 where nothing is, objects from 1")
    crowd = np.isin(numbers, dataset.ignored)
    own, boxes = numbers[~crowd], windows[~crowd]

    def masks(keep: NDArray[np.int64]) -> Crops:
        return crops_of(values, own[keep], boxes[keep])

    return Truth(
        boxes.astype(np.float32),
        np.zeros(len(own), np.int64),
        windows[crowd].astype(np.float32),
        size,
        masks if dataset.task == "instance" else None,
    )
