"""What average precision is computed from, one record an image, and the scores that it gives.

AP is the mean precision at 101 recalls, IoU thresholds .50, .55, ... .95 and classes; AR is the mean of the largest
recalls. Source: cocodataset.org, detection evaluation. A class without an object in the truth has no score (NaN) and is
left out of the means.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from torchfpn.errors import DataError, ShapeError
from torchfpn.metrics.pixel_counts import UNIT, plain
from torchfpn.ops.boxes import area
from torchfpn.ops.masks import Crops, Instances, select
from torchfpn.ops.masks import areas as mask_areas
from torchfpn.ops.rle import to_rle
from torchfpn.types import Objects

Floats = NDArray[np.float64]
Numbers = tuple[float, ...]
LIMITS = (1, 10, 100)  # detections of an image and class that AR counts
IOU_50, IOU_75 = 0, 5  # places among the thresholds
AREAS = ("all", "small", "medium", "large")  # up to 32 x 32 pixels, up to 96 x 96, above
SCORES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")
CLASS_SCORES = ("class_ap", "class_ap50", "class_ap75", "class_ar100")


class ObjectArrays(NamedTuple):
    """N objects, or detections, of an image.

    Attributes:
        boxes: [N, 4] (x, y, width, height) in pixels.
        labels: [N].
        areas: [N] square pixels, of boxes.
        masks: N strings of run lengths, None without masks.
        mask_areas: [N] square pixels, of masks.
    """

    boxes: Floats
    labels: NDArray[np.int64]
    areas: Floats
    masks: list[str] | None
    mask_areas: Floats


class ImageRecord(NamedTuple):
    """One image.

    Attributes:
        number: its place among the images; None: as it came.
        size: (height, width).
        crowd: [N] bool, which of the truth are areas of objects that nobody told apart.
        scores: [M] of what was found.
    """

    number: int | None
    size: tuple[int, int]
    truth: ObjectArrays
    crowd: NDArray[np.bool_]
    found: ObjectArrays
    scores: Floats


def make_record(
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
    """The record of one image; see `AveragePrecision.update`.

    Args:
        found: the detections.
        truth: the objects.
        classes: number of classes.
        masks: both sides have masks.
        most: of each class, the best ones are kept.
        areas: [N] of the true objects.
        crowd_labels: [M] classes of the crowds.
        crowd_masks: [M] masks of the crowds.
        number: of the image.

    Raises:
        ShapeError: masks or numbers that are not there. DataError: labels that are no class, numbers that are none.
    """
    size = (int(found.size[0]), int(found.size[1]))
    _check(found, truth, classes=classes, masks=masks)
    scores = _numbers(found.scores, "scores")
    kept = best_detections(scores, found.labels.cpu().numpy(), most)
    chosen = torch.from_numpy(kept)
    crops = select(found.crops, chosen) if masks and found.crops is not None else None
    labels = found.labels.cpu().numpy()[kept]
    objects = _objects(truth, masks=masks, areas=areas)
    crowds = _crowds(truth, size, classes, masks=masks, labels=crowd_labels, crops=crowd_masks)
    crowd = np.repeat([False, True], [len(objects.labels), len(crowds.labels)])
    shown = _shown(found.boxes.cpu()[chosen], labels, crops)
    return ImageRecord(number, size, _joined(objects, crowds), crowd, shown, scores[kept])


def best_detections(scores: Floats, labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
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


def _shown(
    boxes: Tensor, labels: NDArray[np.int64], crops: Crops | None, areas: ArrayLike | None = None
) -> ObjectArrays:
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
    return ObjectArrays(sides, labels.astype(np.int64), of_boxes, texts, of_masks)


def _objects(truth: Objects, *, masks: bool, areas: ArrayLike | None) -> ObjectArrays:
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
) -> ObjectArrays:
    """Crowds whose class nobody knows are of every class."""
    boxes = torch.zeros(0, 4) if truth.crowds is None else truth.crowds.cpu()
    if masks and crops is None:
        crops = box_masks(boxes, size)
    if labels is None and len(boxes):
        every = torch.arange(len(boxes)).repeat_interleave(classes)
        boxes, labels = boxes[every], np.tile(np.arange(classes), len(boxes))
        crops = None if crops is None else select(crops, every)
    return _shown(boxes, np.asarray([] if labels is None else labels, np.int64), crops if masks else None)


def box_masks(boxes: Tensor, size: tuple[int, int]) -> Crops:
    """Masks of all pixels that the boxes [N, 4] touch, in an image of (height, width) `size`."""
    limit = torch.tensor([size[1], size[0]] * 2)
    windows = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1).long()
    windows = torch.minimum(windows.clamp(min=0), limit)
    windows *= (windows[:, 2:] > windows[:, :2]).all(1, keepdim=True)
    sides = windows[:, 2:] - windows[:, :2]
    return Crops(windows, torch.ones(int(sides.prod(1).sum()), dtype=torch.bool), size)


def _joined(first: ObjectArrays, second: ObjectArrays) -> ObjectArrays:
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
    return ObjectArrays(pairs[0], pairs[1], pairs[2], masks, pairs[3])


@dataclass(frozen=True)
class PrecisionScores:
    """Of boxes, or of masks. NaN: nothing to score.

    Attributes:
        ap: mean over the thresholds .50 to .95.
        ap50, ap75: at one.
        ap_small, ap_medium, ap_large: of objects of these areas (below 32^2, below 96^2, above, in square pixels).
        ar1, ar10, ar100: mean recall with so many detections of each image and class. class_*: of each class.
        objects: of each class in the truth, without crowds.
        curve50, curve75: of each class, the precision at the recalls 0, .01, ... 1; empty without objects.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    class_ap: Numbers
    class_ap50: Numbers
    class_ap75: Numbers
    class_ar100: Numbers
    objects: tuple[int, ...]
    curve50: tuple[Numbers, ...]
    curve75: tuple[Numbers, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where nothing is to score. Curves are rounded to four digits."""
        single = {name: plain(getattr(self, name)) for name in SCORES}
        classes = {name: [plain(value) for value in getattr(self, name)] for name in CLASS_SCORES}
        curves = {name: [_curve(curve) for curve in getattr(self, name)] for name in ("curve50", "curve75")}
        return {**single, **classes, "objects": list(self.objects), **curves}


@dataclass(frozen=True)
class Precisions:
    """What `AveragePrecision.compute` gives.

    Attributes:
        masks: None of boxes alone.
        most: detections of each image and class that AP counts.
        crowded: images with more objects of a class than that, which cannot all be found.
    """

    classes: tuple[str, ...]
    images: int
    boxes: PrecisionScores
    masks: PrecisionScores | None = None
    most: int = LIMITS[-1]
    crowded: int = 0

    @property
    def best_known(self) -> PrecisionScores:
        """Of masks where there are any, else of boxes."""
        return self.boxes if self.masks is None else self.masks

    @property
    def ap(self) -> float:
        """Of masks where there are any, else of boxes."""
        return self.best_known.ap

    @property
    def ap50(self) -> float:
        """Of masks where there are any, else of boxes."""
        return self.best_known.ap50

    def to_dict(self, split: str = "val", colors: Sequence[Sequence[int]] = ()) -> dict[str, Any]:
        """Plain values for JSON, as in a run's validation.json.

        Args:
            split: name of the split.
            colors: of each class.
        """
        scores: dict[str, Any] = {
            "kind": "detection" if self.masks is None else "instance",
            "split": split,
            "unit": UNIT,
            "images": self.images,
            "classes": list(self.classes),
            "colors": [list(color) for color in colors],
            "most": self.most,
            "crowded": self.crowded,
            "boxes": self.boxes.to_dict(),
        }
        return scores if self.masks is None else scores | {"masks": self.masks.to_dict()}


def scores_from_tables(tables: Mapping[str, Floats], objects: Sequence[int]) -> PrecisionScores:
    """Tables of precision [T, R, K, A, M] and recall [T, K, A, M], -1 for none, -> the scores.

    T thresholds, R recalls, K classes, A areas (`AREAS`), M limits (`LIMITS`, and what AP counts at the end).
    """
    precision, recall = tables["precision"], tables["recall"]
    whole = precision[:, :, :, 0, -1]
    return PrecisionScores(
        ap=_mean(whole),
        ap50=_mean(whole[IOU_50]),
        ap75=_mean(whole[IOU_75]),
        **{f"ap_{name}": _mean(precision[:, :, :, i, -1]) for i, name in enumerate(AREAS) if i},
        **{f"ar{limit}": _mean(recall[:, :, 0, i]) for i, limit in enumerate(LIMITS)},
        class_ap=_means(whole),
        class_ap50=_means(whole[[IOU_50]]),
        class_ap75=_means(whole[[IOU_75]]),
        class_ar100=_means(recall[:, None, :, 0, LIMITS.index(100)]),
        objects=tuple(objects),
        curve50=_curves(whole[IOU_50]),
        curve75=_curves(whole[IOU_75]),
    )


def no_scores(classes: int) -> PrecisionScores:
    """The scores of no image at all."""
    none: dict[str, Any] = dict.fromkeys(SCORES, math.nan) | dict.fromkeys(CLASS_SCORES, (math.nan,) * classes)
    return PrecisionScores(**none, objects=(0,) * classes, curve50=((),) * classes, curve75=((),) * classes)


def _mean(values: Floats) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else math.nan


def _means(values: Floats) -> Numbers:
    """[T, R, K] -> of each class."""
    return tuple(_mean(values[:, :, k]) for k in range(values.shape[2]))


def _curves(values: Floats) -> tuple[Numbers, ...]:
    """[R, K] -> of each class."""
    return tuple(tuple(column.tolist()) if (column > -1).any() else () for column in values.T)


def _curve(values: Numbers) -> list[float] | None:
    return [round(value, 4) for value in values] or None
