"""Polygons matched one to one by IoU: precision, recall and F1.

Above an IoU of 0.5 a polygon has at most one match where neither layer overlaps itself. Otherwise the order decides:
predictions with the highest score first, or without scores the pairs with the largest IoU.
Source: the metric of the SpaceNet challenges (Van Etten, Lindenbaum and Bacastow 2018, section 4), after algorithm 2 of
Russakovsky et al. 2015.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.errors import ShapeError

ROUNDING = 1e-6  # of an IoU: coordinates that have been through a projection end in noise
AT_ONCE = 2**13  # predictions whose neighbours are looked up at a time: in a heap each may have all of the truth
Numbers = NDArray[np.int64]
Share = float | None  # None: nothing to measure


@dataclass(frozen=True)
class Pairs:
    """Numbers of a prediction and of a true object, [N] each, and their IoU [N]."""

    predicted: Numbers
    truth: Numbers
    iou: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.iou)


def overlaps(
    predicted: NDArray[Any],
    truth: NDArray[Any],
    min_iou: float,
    classes: tuple[Numbers, Numbers] | None = None,
) -> Pairs:
    """All pairs of one class with an IoU of at least `min_iou`, to a millionth.

    Args:
        predicted: [N] valid polygons.
        truth: [M] valid polygons in one plane, any units.
        min_iou: more than 0.
        classes: [N] and [M].
    """
    areas = shapely.area(predicted), shapely.area(truth)
    boxes = shapely.bounds(predicted).reshape(-1, 4), shapely.bounds(truth).reshape(-1, 4)
    tree = shapely.STRtree(truth)
    found = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for start in range(0, len(predicted), AT_ONCE):
        p, t = tree.query(predicted[start : start + AT_ONCE])
        p = p + start
        if classes is not None:
            same = classes[0][p] == classes[1][t]
            p, t = p[same], t[same]
        both = areas[0][p] + areas[1][t]
        bound = np.minimum(_shared(boxes[0][p], boxes[1][t]), np.minimum(areas[0][p], areas[1][t]))
        hopeful = bound >= (min_iou - ROUNDING) * (both - bound)  # the IoU can be no more than bound / (both - bound)
        p, t, both = p[hopeful], t[hopeful], both[hopeful]
        shared = shapely.area(shapely.intersection(predicted[p], truth[t]))
        iou = shared / (both - shared)
        kept = iou >= min_iou - ROUNDING
        found.append(Pairs(p[kept], t[kept], iou[kept]))
    return Pairs(
        np.concatenate([pairs.predicted for pairs in found]),
        np.concatenate([pairs.truth for pairs in found]),
        np.concatenate([pairs.iou for pairs in found]),
    )


def matched(pairs: Pairs, scores: NDArray[np.float64] | None = None) -> Pairs:
    """One-to-one: the pairs are gone through in order, and one is taken if neither side is.

    In order of the IoU, falling. With scores [N] of the predictions: of the score, falling, and each prediction takes
    the best that is left. Equal ones: in the order of the files.
    """
    if scores is None:
        order = np.lexsort((pairs.truth, pairs.predicted, -pairs.iou))  # the last key first
    else:
        order = np.lexsort((pairs.truth, -pairs.iou, pairs.predicted, -scores[pairs.predicted]))
    taken: list[int] = []
    left, right = set[int](), set[int]()
    for k, p, t in zip(order.tolist(), pairs.predicted[order].tolist(), pairs.truth[order].tolist(), strict=True):
        if p not in left and t not in right:
            left.add(p)
            right.add(t)
            taken.append(k)
    return Pairs(pairs.predicted[taken], pairs.truth[taken], pairs.iou[taken])


def _shared(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area that boxes [N, 4] have in common."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    return np.asarray(np.maximum(sides, 0).prod(axis=1))


@dataclass(frozen=True)
class ObjectScores:
    """Counts per class; they add up over images.

    Attributes:
        iou: of a match, at least.
        classes: names.
        matched: how many of them are pairs.
        predicted, truth: how many objects of each class.
    """

    iou: float
    classes: tuple[str, ...]
    matched: tuple[int, ...]
    predicted: tuple[int, ...]
    truth: tuple[int, ...]

    def __add__(self, other: "ObjectScores") -> "ObjectScores":
        if (other.iou, other.classes) != (self.iou, self.classes):
            raise ShapeError(
                f"scores of {', '.join(other.classes)} at {other.iou}",
                allowed=f"{', '.join(self.classes)} at {self.iou}",
            )
        return ObjectScores(
            self.iou,
            self.classes,
            _sum(self.matched, other.matched),
            _sum(self.predicted, other.predicted),
            _sum(self.truth, other.truth),
        )

    def precision(self) -> list[Share]:
        """Share of the predicted objects that are there; None where nothing was predicted."""
        return [_ratio(m, n) for m, n in zip(self.matched, self.predicted, strict=True)]

    def recall(self) -> list[Share]:
        """Share of the true objects that were found; None where there are none."""
        return [_ratio(m, n) for m, n in zip(self.matched, self.truth, strict=True)]

    def f1(self) -> list[Share]:
        """Harmonic mean of the two, 2 matched / (predicted + truth); None where there is nothing on either side."""
        counts = zip(self.matched, self.predicted, self.truth, strict=True)
        return [_ratio(2 * m, p + t) for m, p, t in counts]

    def over_all(self) -> "ObjectScores":
        """The objects of all classes counted together; a match is still one within a class."""
        return ObjectScores(self.iou, ("all",), (sum(self.matched),), (sum(self.predicted),), (sum(self.truth),))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: lists over the classes, and the same over "all"; None where nothing is to measure."""
        total = self.over_all()
        return {
            "iou": self.iou,
            "unit": "fraction",
            "classes": list(self.classes),
            **self._columns(),
            "all": {name: values[0] for name, values in total._columns().items()},
        }

    def _columns(self) -> dict[str, list[Any]]:
        return {
            "precision": self.precision(),
            "recall": self.recall(),
            "f1": self.f1(),
            "matched": list(self.matched),
            "predicted": list(self.predicted),
            "truth": list(self.truth),
        }


def score_objects(
    predicted: NDArray[Any],
    truth: NDArray[Any],
    names: Sequence[str],
    *,
    iou: float = 0.5,
    classes: tuple[Numbers, Numbers] | None = None,
    scores: NDArray[np.float64] | None = None,
) -> ObjectScores:
    """Matches the polygons of one plane, class by class, and counts.

    Args:
        predicted: [N] valid polygons.
        truth: [M] valid polygons.
        names: of the classes.
        iou: that makes a match.
        classes: the number of the class of each, [N] and [M]; None: all are of the only one.
        scores: [N], see `matched`.
    """
    if classes is None:
        classes = np.zeros(len(predicted), np.int64), np.zeros(len(truth), np.int64)
    pairs = matched(overlaps(predicted, truth, iou, classes), scores)
    return ObjectScores(
        iou,
        tuple(names),
        _counts(classes[1][pairs.truth], names),
        _counts(classes[0], names),
        _counts(classes[1], names),
    )


def _counts(classes: Numbers, names: Sequence[str]) -> tuple[int, ...]:
    return tuple(np.bincount(classes, minlength=len(names)).tolist())


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _ratio(part: int, whole: int) -> Share:
    return part / whole if whole else None
