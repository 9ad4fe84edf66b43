"""The scores of detection as COCO defines them, and how they follow from the tables of an evaluation.

AP is the mean precision at 101 recalls, IoU thresholds .50, .55, ... .95 and classes; AR is the mean of the largest
recalls. Source: cocodataset.org, detection evaluation. A class without an object in the truth has no score (NaN) and is
left out of the means.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.metrics.plain import UNIT, plain

Floats = NDArray[np.float64]
Numbers = tuple[float, ...]
LIMITS = (1, 10, 100)  # detections of an image and class that AR counts
IOU_50, IOU_75 = 0, 5  # places among the thresholds
AREAS = ("all", "small", "medium", "large")  # up to 32 x 32 pixels, up to 96 x 96, above
SCORES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")
CLASS_SCORES = ("class_ap", "class_ap50", "class_ap75", "class_ar100")


@dataclass(frozen=True)
class PrecisionScores:
    """Of boxes, or of masks. NaN: nothing to score.

    ap: mean over the thresholds .50 to .95; ap50, ap75: at one. ap_small, ap_medium, ap_large: of objects of these
    areas (below 32^2, below 96^2, above, in square pixels). ar1, ar10, ar100: mean recall with so many detections of
    each image and class. class_*: of each class. objects: of each class in the truth, without crowds. curve50, curve75:
    of each class, the precision at the recalls 0, .01, ... 1; empty without objects.
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
    """What `AveragePrecision.compute` gives. masks: None of boxes alone.

    most: detections of each image and class that AP counts. crowded: images with more objects of a class than that,
    which cannot all be found.
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
        """Plain values for JSON, as in a run's validation.json. colors: of each class."""
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


def scores_of(tables: Mapping[str, Floats], objects: Sequence[int]) -> PrecisionScores:
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


def nothing(classes: int) -> PrecisionScores:
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
