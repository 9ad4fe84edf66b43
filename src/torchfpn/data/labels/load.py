"""Ground truth of an image from COCO annotations, panoptic maps, instance maps or polygons."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.config import DatasetConfig
from torchfpn.data.headers import read_header
from torchfpn.data.labels.coco_annotations import Annotations
from torchfpn.data.labels.coco_panoptic import panoptic_ground_truth, read_map, segment_map
from torchfpn.data.labels.composed import read_composed, read_things
from torchfpn.data.labels.ground_truth import GroundTruth, overlaps, truth_of_segments
from torchfpn.data.labels.instance_maps import read_instance_map
from torchfpn.data.reading import polygon_labels, turned_hint
from torchfpn.data.splits import Pair, raise_problems
from torchfpn.errors import DataError
from torchfpn.geo.georef import Geo
from torchfpn.geo.window import Window
from torchfpn.io.formats import format_of, is_vector
from torchfpn.io.images import photograph_geo

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops


def read_ground_truth(
    dataset: DatasetConfig,
    pair: Pair,
    size: tuple[int, int],
    annotations: Annotations | None,
    window: Window | None = None,
) -> GroundTruth:
    """Reads the objects of an image, or of a window of it; none for unlabelled images.

    Args:
        dataset: with the classes.
        pair: the files.
        size: (height, width) of the image.
        annotations: the COCO file of the split; None for other labels.
        window: only objects that overlap it, in its pixels; they may reach beyond it.

    Raises:
        DataError: the labels cannot be used, or do not fit the image.
    """
    if pair.annotations is not None and annotations is not None:
        declared = annotations.size(pair.number)
        if declared != size:
            turned = turned_hint(pair.image) if declared[::-1] == size else ""
            found = f"{size[1]} x {size[0]} pixels, {declared[1]} x {declared[0]} in {pair.annotations.name}{turned}"
            raise DataError(found, file=pair.image)
        truth = _annotated(dataset, annotations, pair.number)
        if truth.segments is not None and window is not None:
            return truth_of_segments(truth.segments.crop(window), len(dataset.things))
        return truth if window is None else _clip_to_window(truth, window)
    if pair.objects is not None:
        return read_composed(dataset, pair, _place(dataset, pair), size, window)
    if pair.label is None:
        return GroundTruth(size=size if window is None else window[2:])
    if is_vector(pair.label):
        polygon_labels()  # raises if packages for polygons are missing
        from torchfpn.data.labels.polygons import read_polygons

        return read_polygons(dataset, pair, _place(dataset, pair), size, window)
    return read_instance_map(dataset, pair, size, _place(dataset, pair))


def read_boxes(
    dataset: DatasetConfig, pair: Pair, size: tuple[int, int], annotations: Annotations | None
) -> NDArray[np.float32]:
    """Reads the boxes [N, 4] of the objects of a whole image; no pixel is labelled for it.

    Args:
        dataset: with the classes.
        pair: the files.
        size: (height, width) of the image.
        annotations: the COCO file of the split; None for other labels.

    Raises:
        DataError: the labels cannot be used, or do not fit the image.
    """
    if pair.objects is None:
        return read_ground_truth(dataset, pair, size, annotations).boxes
    things = read_things(dataset, pair, _place(dataset, pair), size)
    return things.boxes[~things.crowds]


def _annotated(dataset: DatasetConfig, annotations: Annotations, number: int) -> GroundTruth:
    """The objects of an image in a COCO file; reads its panoptic map, if it has one."""
    if annotations.segments is None:
        return annotations.truth(number)
    found = read_map(annotations, number, dataset.max_pixels)
    if not dataset.fix:
        raise_problems(list(found.problems))
    if dataset.is_panoptic:
        truth = truth_of_segments(segment_map(found, annotations), len(dataset.things))
        return replace(truth, dropped=found.bad)
    return panoptic_ground_truth(found, annotations, number, masks=dataset.task == "instance")


def _place(dataset: DatasetConfig, pair: Pair) -> Geo | None:
    """The georeference of the image, if its file has one."""
    header = read_header(dataset, pair.image)
    if header is not None:
        return header.geo
    return photograph_geo(pair.image, format_of(pair.image), dataset.max_pixels)


def _clip_to_window(truth: GroundTruth, window: Window) -> GroundTruth:
    """The objects that overlap a window, in its pixels."""
    size, shift = window.size, np.array([window.column, window.row] * 2, np.float32)
    boxes, crowds = truth.boxes - shift, truth.crowds - shift
    here, masks = np.flatnonzero(overlaps(boxes, size)), truth.masks

    def cut(keep: NDArray[np.int64]) -> "Crops":
        from torchfpn.data.transforms import Geometry, transform_masks

        assert masks is not None  # given to objects with masks alone
        return transform_masks(masks(here[keep]), Geometry(window, size))

    return replace(
        truth,
        boxes=boxes[here],
        labels=truth.labels[here],
        crowds=crowds[overlaps(crowds, size)],
        size=size,
        masks=None if masks is None else cut,
    )
