"""Average precision of boxes and masks as COCO counts it (faster-coco-eval), and matches image by image."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from torchfpn.errors import ConfigError, DataError, ShapeError, require
from torchfpn.metrics.precisions import (
    LIMITS,
    ImageRecord,
    ObjectArrays,
    Precisions,
    PrecisionScores,
    make_record,
    no_scores,
    scores_from_tables,
)
from torchfpn.ops.masks import Crops, Instances
from torchfpn.ops.rle import MOST
from torchfpn.types import Objects

AT_ONCE = 256  # detections whose overlaps with all objects are held


def package() -> Any:
    """faster_coco_eval.

    Raises:
        ConfigError: it is not installed, with the command that installs it.
    """
    require("objects", "the score of objects")
    import faster_coco_eval

    return faster_coco_eval


def polygon_runs(rings: Sequence[Sequence[float]], size: tuple[int, int]) -> str:
    """Polygons [x, y, x, y, ...], joined, -> run lengths by COCO's rule. Checked before: three points each, finite.

    Raises:
        DataError: an image whose pixels 32 bits cannot count.
    """
    if size[0] * size[1] >= MOST:
        raise DataError(f"an image of {size[0]} x {size[1]} pixels", allowed="fewer than 2^32 pixels")
    mask = package().mask
    counts = mask.merge(mask.frPyObjects([[float(value) for value in ring] for ring in rings], *size))["counts"]
    return counts.decode("ascii") if isinstance(counts, bytes) else str(counts)


def evaluate_records(records: Sequence[ImageRecord], classes: int, *, masks: bool, most: int) -> PrecisionScores:
    """The scores of boxes, or of masks, of images in the order of `records`."""
    if not records:
        return no_scores(classes)
    coco = package()
    truth = _index(coco, classes, records, [_truths(record, masks=masks) for record in records])
    found = _index(coco, classes, records, [_detections(record, masks=masks) for record in records])
    kind = "segm" if masks else "bbox"
    run = coco.COCOeval_faster(truth, found, kind, print_function=lambda *words: None)
    run.params.maxDets = sorted({*LIMITS, most})
    run.evaluate()
    run.accumulate()
    labels = np.concatenate([record.truth.labels[~record.crowd] for record in records])
    return scores_from_tables(run.eval, np.bincount(labels, minlength=classes).tolist())


def _index(coco: Any, classes: int, records: Sequence[ImageRecord], objects: list[list[dict[str, Any]]]) -> Any:
    """What the package calls a dataset. Ids of objects begin at 1: there 0 means "unmatched"."""
    annotations = [
        {"id": number, "image_id": image, **one}
        for number, (image, one) in enumerate(((i, one) for i, each in enumerate(objects) for one in each), start=1)
    ]
    images = [{"id": i, "height": r.size[0], "width": r.size[1]} for i, r in enumerate(records)]
    categories = [{"id": k, "name": str(k)} for k in range(classes)]
    return coco.COCO({"images": images, "categories": categories, "annotations": annotations})


def _truths(record: ImageRecord, *, masks: bool) -> list[dict[str, Any]]:
    objects = _plain(record.truth, record.size, masks=masks)
    return [one | {"iscrowd": int(crowd)} for one, crowd in zip(objects, record.crowd.tolist(), strict=True)]


def _detections(record: ImageRecord, *, masks: bool) -> list[dict[str, Any]]:
    objects = _plain(record.found, record.size, masks=masks)
    return [one | {"score": score} for one, score in zip(objects, record.scores.tolist(), strict=True)]


def _plain(shown: ObjectArrays, size: tuple[int, int], *, masks: bool) -> list[dict[str, Any]]:
    """As COCO has them, without ids."""
    areas = shown.mask_areas if masks else shown.areas
    columns = zip(shown.labels.tolist(), shown.boxes.tolist(), areas.tolist(), strict=True)
    found: list[dict[str, Any]] = [{"category_id": k, "bbox": box, "area": area} for k, box, area in columns]
    if masks and shown.masks is not None:
        for one, text in zip(found, shown.masks, strict=True):
            one["segmentation"] = {"size": list(size), "counts": text}
    return found


class ImageMatches(NamedTuple):
    """Of one image.

    Attributes:
        scores: [M] of the detections that count, best first.
        hits: [M] bool, whether each is an object.
        objects: how many the truth has.
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


def match_image(record: ImageRecord, *, masks: bool, iou: float = 0.5) -> ImageMatches:
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


def _regions(shown: ObjectArrays, size: tuple[int, int], of: NDArray[np.int64], *, masks: bool) -> Any:
    """Boxes [K, 4], or K run lengths."""
    if not masks or shown.masks is None:
        return shown.boxes[of]
    return [{"size": list(size), "counts": shown.masks[i]} for i in of.tolist()]


class AveragePrecision:
    """How good the objects found in images are, of boxes, and with `masks` of masks, too.

    Memory follows the number of objects, not their size: masks are kept as run lengths. Oracle: pycocotools' and
    faster-coco-eval's evaluation of the same objects as COCO files.

    Args:
        classes: their names.
        masks: both sides have masks.
        most: detections of each image and class that AP counts; COCO's 100, or more.

    Raises:
        ConfigError: no class, `most` below 100, or the package that counts is not installed: said before the first
            image is predicted, not after the last.
    """

    def __init__(self, classes: Sequence[str], *, masks: bool = False, most: int = LIMITS[-1]) -> None:
        if not classes:
            raise ConfigError("no classes", field="classes")
        if len(set(classes)) < len(classes):
            raise ConfigError(", ".join(classes)[:200], field="classes", allowed="each name once")
        if most < LIMITS[-1]:
            raise ConfigError(f"{most}", field="most", allowed=f"{LIMITS[-1]} or more detections")
        require("objects", "the score of objects")
        self.classes, self.masks, self.most = tuple(classes), masks, most
        self._records: list[ImageRecord] = []

    def __len__(self) -> int:
        return len(self._in_order())

    def update(
        self,
        found: Instances,
        truth: Objects,
        *,
        areas: ArrayLike | None = None,
        crowd_labels: ArrayLike | None = None,
        crowd_masks: Crops | None = None,
        number: int | None = None,
    ) -> None:
        """One image; both sides in its pixels.

        Args:
            found: what a model says, in any order, on any device.
            truth: the objects; those of an image without any are none.
            areas: [N] of the true objects in square pixels, as their file says, which decide what is small; None: of
                their masks, or else boxes.
            crowd_labels: [M] the class of each of `truth.crowds`; None: each is of every class.
            crowd_masks: of each of them; None: their boxes.
            number: of the image. Images are counted in that order, and one that two processes saw once.

        Raises:
            ShapeError: masks that are not there, or not one area or class for each. DataError: labels that are no
            class, boxes or scores that are not finite.
        """
        self.append(
            make_record(
                found,
                truth,
                classes=len(self.classes),
                masks=self.masks,
                most=self.most,
                areas=areas,
                crowd_labels=crowd_labels,
                crowd_masks=crowd_masks,
                number=number,
            )
        )

    def append(self, image: ImageRecord) -> None:
        """An image whose record is made already."""
        self._records.append(image)

    def state(self) -> dict[str, Any]:
        """All that was seen, as lists and arrays, to be sent to another process."""
        records = [r._asdict() | {"truth": r.truth._asdict(), "found": r.found._asdict()} for r in self._records]
        return {"classes": list(self.classes), "masks": self.masks, "most": self.most, "records": records}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Adds what another one has seen.

        Raises:
            ShapeError: it is of other classes, masks or `most`.
        """
        mine, other = self._kind(), (list(state["classes"]), state["masks"], state["most"])
        if other != mine:
            raise ShapeError(f"average precision of {other}", allowed=f"classes, masks and most of {mine}")
        for each in state["records"]:
            sides = {name: ObjectArrays(**each[name]) for name in ("truth", "found")}
            self._records.append(ImageRecord(**{**each, **sides}))

    def compute(self) -> Precisions:
        """The scores of all images so far; NaN where there is nothing to score.

        Raises:
            ConfigError: faster-coco-eval is not installed.
        """
        records, count = self._in_order(), len(self.classes)
        boxes = evaluate_records(records, count, masks=False, most=self.most)
        masks = evaluate_records(records, count, masks=True, most=self.most) if self.masks else None
        crowded = sum(_largest(each) > self.most for each in records)
        return Precisions(self.classes, len(records), boxes, masks, self.most, crowded)

    def matches(self) -> list[ImageMatches]:
        """Of each image so far, which detections are an object at an IoU of .5: of masks, or of boxes.

        Raises:
            ConfigError: faster-coco-eval is not installed.
        """
        return [match_image(each, masks=self.masks) for each in self._in_order()]

    def _in_order(self) -> list[ImageRecord]:
        """Images with a number by it, each once, then the others as they came."""
        numbered = {each.number: each for each in self._records if each.number is not None}
        rest = [each for each in self._records if each.number is None]
        return [numbered[number] for number in sorted(numbered)] + rest

    def _kind(self) -> tuple[list[str], bool, int]:
        return list(self.classes), self.masks, self.most


def _largest(image: ImageRecord) -> int:
    """Objects of the class that the image has most of."""
    labels = image.truth.labels[~image.crowd]
    return int(np.bincount(labels).max()) if len(labels) else 0
