"""What an image had and what was found in it, kept for the end: numbers of its objects, masks as run lengths."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from torchfpn.errors import DataError, ShapeError
from torchfpn.ops.boxes import area
from torchfpn.ops.instances import Instances
from torchfpn.ops.masks import Crops, select
from torchfpn.ops.masks import areas as mask_areas
from torchfpn.ops.rle import to_rle
from torchfpn.types import Objects

Floats = NDArray[np.float64]


class Shown(NamedTuple):
    """N objects, or detections, of an image.

    boxes: [N, 4] (x, y, width, height) in pixels. labels: [N]. areas: [N] square pixels, of boxes. masks: N strings of
    run lengths, None without masks. mask_areas: [N] square pixels, of masks.
    """

    boxes: Floats
    labels: NDArray[np.int64]
    areas: Floats
    masks: list[str] | None
    mask_areas: Floats


class ImageRecord(NamedTuple):
    """One image.

    number: its place among the images; None: as it came. size: (height, width). crowd: [N] bool, which of the truth are
    areas of objects that nobody told apart. scores: [M] of what was found.
    """

    number: int | None
    size: tuple[int, int]
    truth: Shown
    crowd: NDArray[np.bool_]
    found: Shown
    scores: Floats


def record(
    found: Instances,
    truth: Objects,
    *,
    classes: int,
    masks: bool,
    most: int,
    areas: ArrayLike | None = None,
    crowd_labels: ArrayLike | None = None,
    crowd_masks: Crops | None = None,
    number: int | None = None,
) -> ImageRecord:
    """The record of one image; see `AveragePrecision.update`. most: of each class, the best ones are kept.

    Raises:
        ShapeError: masks or numbers that are not there. DataError: labels that are no class, numbers that are none.
    """
    size = (int(found.size[0]), int(found.size[1]))
    _check(found, truth, classes=classes, masks=masks)
    scores = _numbers(found.scores, "scores")
    kept = best(scores, found.labels.cpu().numpy(), most)
    chosen = torch.from_numpy(kept)
    crops = select(found.crops, chosen) if masks and found.crops is not None else None
    labels = found.labels.cpu().numpy()[kept]
    objects = _objects(truth, masks=masks, areas=areas)
    crowds = _crowds(truth, size, classes, masks=masks, labels=crowd_labels, crops=crowd_masks)
    crowd = np.repeat([False, True], [len(objects.labels), len(crowds.labels)])
    shown = _shown(found.boxes.cpu()[chosen], labels, crops)
    return ImageRecord(number, size, _joined(objects, crowds), crowd, shown, scores[kept])


def best(scores: Floats, labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Which detections are among the `most` best of their class; best first, equal ones in the order they came in."""
    order = np.argsort(-scores, kind="stable")
    if len(order) <= most:
        return order
    of = labels[order]
    keep = np.zeros(len(order), bool)
    for label in np.unique(of):
        keep[np.flatnonzero(of == label)[:most]] = True
    return order[keep]


def _check(found: Instances, truth: Objects, *, classes: int, masks: bool) -> None:
    if masks and (found.crops is None or truth.masks is None):
        missing = "what was found" if found.crops is None else "the truth"
        raise ShapeError(f"{missing} has no masks", allowed="masks on both sides, or masks=False")
    for labels, what in ((found.labels, "found"), (truth.labels, "true")):
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise DataError(f"{what} labels {int(labels.min())}..{int(labels.max())}", allowed=f"0..{classes - 1}")
    if masks and tuple(truth.masks.size) != tuple(found.size):
        raise ShapeError(f"masks {list(truth.masks.size)} of an image {list(found.size)}", allowed="the pixels of one")


def _numbers(values: Tensor, what: str) -> Floats:
    numbers: Floats = values.detach().double().cpu().numpy()
    if not np.isfinite(numbers).all():
        raise DataError(f"{what} that are not finite", allowed="numbers; has the training diverged?")
    return numbers


def _shown(boxes: Tensor, labels: NDArray[np.int64], crops: Crops | None, areas: ArrayLike | None = None) -> Shown:
    """areas: of boxes and masks alike, where they are known."""
    corners = torch.from_numpy(_numbers(boxes, "boxes"))
    sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).numpy()
    of_boxes = area(corners).numpy()
    of_masks = of_boxes if crops is None else mask_areas(crops).double().numpy()
    if areas is not None:
        of_boxes = of_masks = np.asarray(areas, np.float64)
    if len(of_boxes) != len(sides) or len(labels) != len(sides):
        raise ShapeError(f"{len(sides)} boxes, {len(of_boxes)} areas, {len(labels)} labels", allowed="one of each")
    texts = None if crops is None else [rle["counts"] for rle in to_rle(crops)]
    return Shown(sides, labels.astype(np.int64), of_boxes, texts, of_masks)


def _objects(truth: Objects, *, masks: bool, areas: ArrayLike | None) -> Shown:
    known = truth.masks if masks or (areas is None and truth.masks is not None) else None
    if areas is None and known is not None:  # as COCO has it: the area of an object is that of its mask, for boxes too
        areas = mask_areas(known).double().numpy()
    return _shown(truth.boxes.cpu(), truth.labels.cpu().numpy(), known if masks else None, areas)


def _crowds(
    truth: Objects,
    size: tuple[int, int],
    classes: int,
    *,
    masks: bool,
    labels: ArrayLike | None,
    crops: Crops | None,
) -> Shown:
    """Crowds whose class nobody knows are of every class."""
    boxes = torch.zeros(0, 4) if truth.crowds is None else truth.crowds.cpu()
    if masks and crops is None:
        crops = filled(boxes, size)
    if labels is None and len(boxes):
        every = torch.arange(len(boxes)).repeat_interleave(classes)
        boxes, labels = boxes[every], np.tile(np.arange(classes), len(boxes))
        crops = None if crops is None else select(crops, every)
    return _shown(boxes, np.asarray([] if labels is None else labels, np.int64), crops if masks else None)


def filled(boxes: Tensor, size: tuple[int, int]) -> Crops:
    """Masks of all pixels that the boxes [N, 4] touch, in an image of (height, width) `size`."""
    limit = torch.tensor([size[1], size[0]] * 2)
    windows = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1).long()
    windows = torch.minimum(windows.clamp(min=0), limit)
    windows *= (windows[:, 2:] > windows[:, :2]).all(1, keepdim=True)
    sides = windows[:, 2:] - windows[:, :2]
    return Crops(windows, torch.ones(int(sides.prod(1).sum()), dtype=torch.bool), size)


def _joined(first: Shown, second: Shown) -> Shown:
    if not len(second.labels):
        return first
    masks = None if first.masks is None or second.masks is None else first.masks + second.masks
    pairs: Sequence[Any] = [
        np.concatenate(pair)
        for pair in zip(
            (first.boxes, first.labels, first.areas, first.mask_areas),
            (second.boxes, second.labels, second.areas, second.mask_areas),
            strict=True,
        )
    ]
    return Shown(pairs[0], pairs[1], pairs[2], masks, pairs[3])
