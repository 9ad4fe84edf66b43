"""How many objects were found: counts per class, and precision, recall and F1 that follow from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import ShapeError
from torchfpn.vectors.matching import Numbers, matched, overlaps

Share = float | None  # None: nothing to measure


@dataclass(frozen=True)
class ObjectScores:
    """Counts per class; they add up over images.

    iou: of a match, at least. classes: names. predicted, truth: how many objects of each class. matched: how many of
    them are pairs.
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

    predicted: [N], truth: [M], valid polygons. names: of the classes. iou: that makes a match. classes: the number of
    the class of each, [N] and [M]; None: all are of the only one. scores: [N], see `matching.matched`.
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
