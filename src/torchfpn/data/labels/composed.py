"""Panoptic labels put together from labels of pixels (stuff) and files of objects (things).

Objects lie on top of stuff, crowds below other objects. Of two objects on one pixel the smaller one is on top, or the
last one of the file (`overlaps`); the size is that of the whole object, so that a pixel does not depend on the window
that is read. Pixels that the labels give to a thing without an object are void.
"""

import functools
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.config import DatasetConfig, read_object_file
from torchfpn.data.headers import read_header
from torchfpn.data.labels.ground_truth import GroundTruth, ObjectLabels, overlaps, truth_of_segments
from torchfpn.data.labels.instance_maps import read_numbered
from torchfpn.data.labels.segments import VOID, SegmentMap
from torchfpn.data.reading import check_fit, polygon_labels, read_target
from torchfpn.data.splits import Pair
from torchfpn.errors import DataError
from torchfpn.geo.georef import Geo
from torchfpn.geo.window import Window
from torchfpn.io.formats import is_coco, is_vector, name_key
from torchfpn.recipe import IGNORE
from torchfpn.types import Size

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops

_UNKNOWN = -1  # of pixels of objects that are not labelled, while segments are drawn


def read_composed(
    dataset: DatasetConfig, pair: Pair, geo: Geo | None, size: Size, window: Window | None = None
) -> GroundTruth:
    """Reads the things and the stuff of an image, or of a window of it.

    Args:
        dataset: with the classes.
        pair: the files.
        geo: georeference of the whole image.
        size: (height, width) of the whole image.
        window: the part; boxes are in its pixels and may reach beyond it.

    Raises:
        DataError: labels or objects that cannot be used, or do not fit the image.
    """
    target = read_stuff(dataset, pair, geo, size, window)
    objects = read_things(dataset, pair, geo, size, window, target)
    return compose(objects, target, things=len(dataset.things), smaller=dataset.overlaps == "smaller")


def read_stuff(
    dataset: DatasetConfig, pair: Pair, geo: Geo | None, size: Size, window: Window | None
) -> NDArray[np.uint8]:
    """The class indices [h, w] of the labels of pixels; without labels the background.

    Raises:
        DataError: labels that cannot be used, or do not fit the image.
    """
    if pair.label is None:
        background = IGNORE if dataset.background is None else dataset.background
        return np.full(size if window is None else window.size, background, np.uint8)
    if is_vector(pair.label):
        drawn: NDArray[np.uint8] = polygon_labels().rasterize_labels(dataset, pair, geo, size, window).target
        return drawn
    if window is None:
        target, place = read_target(dataset, pair.label)
        check_fit(pair, size, geo, target.shape, place)
        return target
    header = read_header(dataset, pair.label)
    if header is not None:  # otherwise reading reports the error
        check_fit(pair, size, geo, header.size, header.geo)
    return read_target(dataset, pair.label, window)[0]


def compose(objects: ObjectLabels, target: NDArray[np.uint8], *, things: int, smaller: bool = True) -> GroundTruth:
    """Draws objects over the classes of pixels.

    Args:
        objects: in the order of the file; their numbers from 1 are the ids of their segments.
        target: [H, W] class indices, `IGNORE` where unknown.
        things: how many of the first classes are things.
        smaller: of two objects the smaller one is on top, of equal ones the last; otherwise always the last.

    Returns:
        The ground truth; objects that reach beyond the image keep their whole box.
    """
    ids = np.full(target.shape, VOID, np.int32)
    covered, twice = np.zeros(target.shape, bool), np.zeros(target.shape, bool)
    order = np.lexsort((-objects.areas if smaller else np.arange(len(objects)), ~objects.crowds))
    crops = objects.masks(np.arange(len(objects)))
    starts, pixels, windows = crops.starts().tolist(), crops.pixels.numpy(), crops.windows.tolist()
    shown = 0
    for k in order.tolist():
        x1, y1, x2, y2 = windows[k]
        mask = pixels[starts[k] : starts[k + 1]].reshape(x2 - x1, y2 - y1).T
        ids[y1:y2, x1:x2][mask] = k + 1 if objects.labels[k] >= 0 else _UNKNOWN
        if not objects.crowds[k]:
            shown += bool(mask.any())
            twice[y1:y2, x1:x2] |= mask & covered[y1:y2, x1:x2]
            covered[y1:y2, x1:x2] |= mask
    stuff = np.unique(target[(ids == VOID) & (target != IGNORE) & (target >= things)]).astype(np.int64)
    for label in stuff.tolist():
        ids[(ids == VOID) & (target == label)] = len(objects) + 1 + label - things
    ids[ids == _UNKNOWN] = VOID
    drawn = np.flatnonzero(objects.labels >= 0)
    segments = SegmentMap.of(
        ids,
        np.concatenate([drawn + 1, len(objects) + 1 + stuff - things]),
        np.concatenate([objects.labels[drawn], stuff]),
        np.concatenate([objects.crowds[drawn], np.zeros(len(stuff), bool)]),
    )
    truth = truth_of_segments(segments, things, _boxes(segments, objects))
    unknown = objects.boxes[objects.labels < 0]
    crowds = np.concatenate([truth.crowds, unknown])
    return replace(truth, crowds=crowds, overlapping=int(twice.sum()), hidden=shown - len(truth))


def _boxes(segments: SegmentMap, objects: ObjectLabels) -> NDArray[np.float32]:
    """[S, 4] of the pixels of each segment; of an object that reaches beyond the image, its own."""
    boxes = segments.windows.astype(np.float32)
    own = np.flatnonzero(segments.numbers <= len(objects))
    whole = objects.boxes[segments.numbers[own] - 1]
    height, width = segments.ids.shape
    beyond = (whole[:, :2] < 0).any(1) | (whole[:, 2:] > [width, height]).any(1)
    boxes[own[beyond]] = whole[beyond]
    return boxes


def read_things(
    dataset: DatasetConfig,
    pair: Pair,
    geo: Geo | None,
    size: Size,
    window: Window | None = None,
    target: NDArray[np.uint8] | None = None,
) -> ObjectLabels:
    """Reads the things of an image, or those that overlap a window of it; objects of stuff are left out.

    Args:
        dataset: with the classes.
        pair: the files.
        geo: georeference of the whole image.
        size: (height, width) of the whole image.
        window: the part; boxes are in its pixels and may reach beyond it.
        target: [h, w] class indices, from which numbered masks of several things have their classes.

    Raises:
        DataError: objects that cannot be used, or do not fit the image.
    """
    assert pair.objects is not None  # `check_panoptic_splits` has seen to it
    if is_coco(pair.objects):
        found = _of_coco(dataset, pair, size, window)
    elif is_vector(pair.objects):
        polygon_labels()  # raises if packages for polygons are missing
        from torchfpn.data.labels.polygons import read_features_as_objects

        found = read_features_as_objects(dataset.of_objects, replace(pair, label=pair.objects), geo, size, window)
    else:
        found = read_numbered(dataset, pair, size, geo)
        found = found if window is None else _within(found, window)
        if len(dataset.things) > 1 and target is not None:
            found = replace(found, labels=_labels_below(found, target, len(dataset.things), pair))
    return found.select(np.flatnonzero((found.labels < len(dataset.things)) | (found.labels < 0)))


def _labels_below(objects: ObjectLabels, target: NDArray[np.uint8], things: int, pair: Pair) -> NDArray[np.int64]:
    """The thing that most pixels below each object are labelled as.

    Raises:
        DataError: an object with no pixel of a thing.
    """
    crops = objects.masks(np.arange(len(objects)))
    starts, pixels = crops.starts().tolist(), crops.pixels.numpy()
    labels = np.zeros(len(objects), np.int64)
    for k, (x1, y1, x2, y2) in enumerate(crops.windows.tolist()):
        mask = pixels[starts[k] : starts[k + 1]].reshape(x2 - x1, y2 - y1).T
        counts = np.bincount(target[y1:y2, x1:x2][mask], minlength=things)[:things]
        if not counts.any():
            where = f"the object with the box {[x1, y1, x2, y2]} has no pixel of a thing in {pair.label}"
            raise DataError(where, file=pair.objects, hint="label its pixels, or keep a single class in `things`")
        labels[k] = counts.argmax()
    return labels


def _of_coco(dataset: DatasetConfig, pair: Pair, size: Size, window: Window | None) -> ObjectLabels:
    """The objects of a COCO file with the name of the image."""
    assert pair.objects is not None  # checked by the caller
    annotations = read_object_file(dataset, pair.objects).annotations
    number = record_of(annotations.names, pair.image)
    if number is None:
        raise DataError(f"no record of {pair.image.name}", file=pair.objects, field="images[].file_name")
    declared = annotations.size(number)
    if declared != size:
        found = f"{size[1]} x {size[0]} pixels, {declared[1]} x {declared[0]} in {pair.objects.name}"
        raise DataError(found, file=pair.image)
    objects = annotations.objects(number)
    return objects if window is None else _within(objects, window)


def _within(objects: ObjectLabels, window: Window) -> ObjectLabels:
    """The objects that overlap a window, in its pixels."""
    boxes = objects.boxes - np.array([window.column, window.row] * 2, np.float32)
    here = np.flatnonzero(overlaps(boxes, window.size))

    def masks(keep: NDArray[np.int64]) -> "Crops":
        from torchfpn.data.transforms import Geometry, transform_masks

        return transform_masks(objects.masks(here[keep]), Geometry(window, window.size))

    return replace(
        objects,
        boxes=boxes[here],
        labels=objects.labels[here],
        crowds=objects.crowds[here],
        areas=objects.areas[here],
        masks=masks,
        size=window.size,
    )


def record_of(names: tuple[str, ...], image: Path) -> int | None:
    """The index of the record of an image in a COCO file; None without one.

    It is that of the longest path which ends as the image's, else the only one of its name.
    """
    paths, last = _by_name(names)
    parts = image.parts
    for start in range(len(parts)):
        number = paths.get(name_key("/".join(parts[start:])))
        if number is not None:
            return number
    return last.get(name_key(image.name))


@functools.lru_cache(8)
def _by_name(names: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Numbers of records by path, and by name where it is that of one record alone."""
    paths = {name_key(name.replace("\\", "/")): i for i, name in enumerate(names)}
    last: dict[str, list[int]] = {}
    for name, i in paths.items():
        last.setdefault(PurePosixPath(name).name, []).append(i)
    return paths, {name: found[0] for name, found in last.items() if len(found) == 1}
