"""Which detections of an image are an object of its truth: the counts that say in which images a model fails.

As in COCO's evaluation at one IoU: within a class, best score first, each takes the object with the largest overlap
that no better one has taken. What lies in a crowd is no error.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.metrics.coco_eval import package
from torchfpn.metrics.image_record import ImageRecord, Shown

AT_ONCE = 256  # detections whose overlaps with all objects are held


class ImageMatches(NamedTuple):
    """Of one image.

    scores: [M] of the detections that count, best first. hits: [M] bool, whether each is an object. objects: how many
    the truth has.
    """

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    objects: int

    def counts(self, threshold: float) -> "Counts":
        """Of the detections with a score of at least `threshold`."""
        taken = self.scores >= threshold
        matched = int(self.hits[taken].sum())
        return Counts(matched, self.objects - matched, int(taken.sum()) - matched)


class Counts(NamedTuple):
    """Objects that were found, that were not, and detections that are none."""

    matched: int
    missed: int
    false: int

    @property
    def f1(self) -> float | None:
        """2 matched / (truth + predicted); None without an object on either side, where there is nothing to score."""
        total = 2 * self.matched + self.missed + self.false
        return 2 * self.matched / total if total else None


def matches(record: ImageRecord, *, masks: bool, iou: float = 0.5) -> ImageMatches:
    """The detections of an image against its truth; overlaps are those of masks, or of boxes."""
    hits = np.zeros(len(record.scores), bool)
    counted = np.ones(len(record.scores), bool)
    for label in np.unique(record.found.labels):
        rows, columns = (np.flatnonzero(side.labels == label) for side in (record.found, record.truth))
        hits[rows], counted[rows] = _matched(record, rows, columns, masks=masks, iou=iou)
    return ImageMatches(record.scores[counted], hits[counted], int((~record.crowd).sum()))


def best_threshold(images: Iterable[ImageMatches]) -> float:
    """The score from which on detections are believed so that F1 over all objects is largest; 0.5 where none is one.

    Halfway between the last score that is believed and the next.
    """
    every = list(images)
    scores = np.concatenate([np.zeros(0), *(each.scores for each in every)])
    hits = np.concatenate([np.zeros(0, bool), *(each.hits for each in every)])
    if not hits.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], hits[order]
    f1 = 2 * hits.cumsum() / (sum(each.objects for each in every) + np.arange(1, len(hits) + 1))
    last = np.append(scores[1:] < scores[:-1], True)  # equal scores are believed together
    chosen = int(np.argmax(np.where(last, f1, -1)))
    below = scores[chosen + 1] if chosen + 1 < len(scores) else 0.0
    return float((scores[chosen] + below) / 2)


def _matched(
    record: ImageRecord, rows: NDArray[np.int64], columns: NDArray[np.int64], *, masks: bool, iou: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of the detections `rows` of a class, best first: which is an object, and which counts."""
    hits, counted = np.zeros(len(rows), bool), np.ones(len(rows), bool)
    if not len(columns):
        return hits, counted
    crowd = record.crowd[columns]
    free = ~crowd
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        table = _overlaps(record, part, columns, crowd, masks=masks)
        for i, overlaps in enumerate(table, start=start):
            best = int(np.argmax(np.where(free, overlaps, -1)))
            if free[best] and overlaps[best] >= iou:
                hits[i], free[best] = True, False
            elif (overlaps[crowd] >= iou).any():
                counted[i] = False
    return hits, counted


def _overlaps(
    record: ImageRecord,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    *,
    masks: bool,
) -> NDArray[np.float64]:
    """[detections, objects]; of a crowd, the share of the detection that lies in it."""
    found = _regions(record.found, record.size, rows, masks=masks)
    truth = _regions(record.truth, record.size, columns, masks=masks)
    return np.asarray(package().mask.iou(found, truth, crowd.astype(int).tolist()))


def _regions(shown: Shown, size: tuple[int, int], of: NDArray[np.int64], *, masks: bool) -> Any:
    """Boxes [K, 4], or K run lengths."""
    if not masks or shown.masks is None:
        return shown.boxes[of]
    return [{"size": list(size), "counts": shown.masks[i]} for i in of.tolist()]
