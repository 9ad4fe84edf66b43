"""Instance maps: images with a number for each object, 0 for background.

With `labels_are: components` each connected area of a number is an object, as in masks of 0 and 255.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.config import DatasetConfig
from torchfpn.data.labels.ground_truth import GroundTruth, ObjectLabels
from torchfpn.data.reading import check_fit
from torchfpn.data.splits import Pair
from torchfpn.errors import DataError
from torchfpn.geo.georef import Geo
from torchfpn.io.formats import is_vector
from torchfpn.io.labels import LabelFile, read_labels
from torchfpn.ops.extents import components, crops_of, extents

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops


def read_numbered(dataset: DatasetConfig, pair: Pair, size: tuple[int, int], place: Geo | None) -> ObjectLabels:
    """Reads the things of a panoptic dataset from a numbered mask in the order of their numbers, all of class 0.

    Args:
        dataset: panoptic.
        pair: the files.
        size: (height, width) of the image.
        place: georeference of the image.

    Raises:
        DataError: damaged, of another size or place than the image, or negative values.
    """
    assert pair.objects is not None  # checked by the caller
    file = pair.objects
    labels = read_labels(file, max_pixels=dataset.max_pixels, allow_vrt=dataset.allow_vrt, root=dataset.root)
    check_fit(replace(pair, label=file), size, place, labels.values.shape, labels.geo)
    values = _object_numbers(labels)
    found = extents(values)
    _refuse_negative(found.ids, file)
    if dataset.objects_are == "components":
        values = components(values)
        found = extents(values)

    def masks(keep: NDArray[np.int64]) -> "Crops":
        return crops_of(values, found.ids[keep], found.windows[keep])

    nothing = np.zeros(len(found.ids), np.int64)
    boxes, areas = found.windows.astype(np.float32), found.pixels.astype(np.float64)
    return ObjectLabels(boxes, nothing, nothing > 0, areas, masks, size)


def read_instance_map(dataset: DatasetConfig, pair: Pair, size: tuple[int, int], place: Geo | None) -> GroundTruth:
    """Reads the objects of an instance map in the order of their numbers; ignored numbers are crowds.

    Args:
        dataset: with one class.
        pair: the files.
        size: (height, width) of the image.
        place: georeference of the image.

    Raises:
        DataError: damaged, of another size or place than the image, negative values, or a dataset of several classes.
    """
    assert pair.label is not None  # checked by the caller
    if len(dataset.classes) != 1:
        raise DataError(
            f"numbers objects, which leaves open of which of {len(dataset.classes)} classes they are",
            file=pair.label,
            allowed="one class, COCO annotations, or polygons with a field",
        )
    labels = read_labels(pair.label, max_pixels=dataset.max_pixels, allow_vrt=dataset.allow_vrt, root=dataset.root)
    check_fit(pair, size, place, labels.values.shape, labels.geo)
    values = _object_numbers(labels)
    found = extents(values)
    _refuse_negative(found.ids, pair.label)
    crowds = found.windows[np.isin(found.ids, dataset.ignored)]
    own = ~np.isin(found.ids, dataset.ignored)
    if dataset.labels_are == "components":
        values = components(np.where(np.isin(values, dataset.ignored), 0, values))
        found = extents(values)
        own = np.ones(len(found.ids), bool)
    numbers, boxes = found.ids[own], found.windows[own]

    def masks(keep: NDArray[np.int64]) -> "Crops":
        return crops_of(values, numbers[keep], boxes[keep])

    return GroundTruth(
        boxes.astype(np.float32),
        np.zeros(len(numbers), np.int64),
        crowds.astype(np.float32),
        size,
        masks if dataset.task == "instance" else None,
    )


def _refuse_negative(ids: NDArray[np.int64], file: Path) -> None:
    if len(ids) and ids[0] < 0:
        raise DataError(f"the value {ids[0]}", file=file, allowed="0 where nothing is, objects from 1")


def count_parts(dataset: DatasetConfig, pair: Pair) -> int:
    """Counts the connected areas of an instance map, if numbers mean objects; 0 for other labels.

    Raises:
        DataError: the file cannot be read.
    """
    file, how = (pair.objects, dataset.objects_are) if dataset.is_panoptic else (pair.label, dataset.labels_are)
    if file is None or pair.annotations is not None or is_vector(file) or how == "components":
        return 0
    limits: dict[str, Any] = {"max_pixels": dataset.max_pixels, "allow_vrt": dataset.allow_vrt, "root": dataset.root}
    values = _object_numbers(read_labels(file, **limits))
    ignored = () if dataset.is_panoptic else dataset.ignored
    return int(components(np.where(np.isin(values, ignored), 0, values)).max(initial=0))


def _object_numbers(labels: LabelFile) -> NDArray[Any]:
    """The values of a label file, 0 where it has no data."""
    values = labels.values if labels.valid is None else np.where(labels.valid, labels.values, 0)
    return values if labels.nodata is None else np.where(values == labels.nodata, values.dtype.type(0), values)
