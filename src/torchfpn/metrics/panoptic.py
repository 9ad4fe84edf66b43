"""Panoptic quality (PQ) of Kirillov et al. 2019, counted image by image from maps of segment ids.

A true and a predicted segment of one class match if their IoU is above 0.5, which it is for one pair at most. With TP
matches, and FP predicted and FN true segments left over, a class has

    SQ = sum of the IoUs / TP,  RQ = TP / (TP + FP / 2 + FN / 2),  PQ = SQ * RQ

Void pixels of the truth (id 0) are taken off the union. Crowds, areas of a class whose things nobody told apart, match
nothing and are not missed. A predicted segment is not counted if more than half of it is void or in the crowd of its
class; of several crowds of a class in an image that is the last one. Oracles: panopticapi and hotcoco.

Boundary PQ (Cheng et al. 2021) takes the smaller of the IoU of the segments and that of their bands (`boundary.band`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.metrics.boundary import band, band_width
from torchfpn.metrics.pixel_counts import UNIT, plain
from torchfpn.types import Panoptic

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
VOID = 0  # the id of pixels of no segment
INSIDE = -1  # of pixels of a segment that are not in its band


class Segmented(Protocol):
    """The S segments of an image; every pixel has the id of one of them, or 0."""

    @property
    def ids(self) -> NDArray[Any]:
        """[H, W] whole numbers."""

    @property
    def numbers(self) -> Ints:
        """[S] the id of each segment."""

    @property
    def labels(self) -> Ints:
        """[S] 0-based classes."""

    @property
    def crowds(self) -> NDArray[np.bool_]:
        """[S] which are crowds."""


class SegmentIds(NamedTuple):
    """The plainest `Segmented`."""

    ids: NDArray[Any]
    numbers: Ints
    labels: Ints
    crowds: NDArray[np.bool_]

    @classmethod
    def of(cls, found: Panoptic) -> "SegmentIds":
        """Of a result; nothing of it is a crowd."""
        numbers, labels = ([getattr(s, key) for s in found.segments_info] for key in ("id", "label"))
        crowds = np.zeros(len(numbers), bool)
        return cls(found.segments.cpu().numpy(), np.array(numbers, np.int64), np.array(labels, np.int64), crowds)


class Quality(NamedTuple):
    """Means over classes; NaN without a class. classes: how many have a segment that counts."""

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True)
class PanopticScores:
    """What `PanopticQuality.compute` gives. Classes without a segment that counts have NaN and are in no mean.

    Attributes:
        classes: names, things first.
        images: how many.
        all, things, stuff: means over all classes, over things, over stuff.
        class_pq, class_sq, class_rq: of each class.
        tp, fp, fn: of each class: matches, predicted segments that are none, true segments that were missed.
        confusion: [K + 1][K + 1] segments by true and predicted class; matches here need not be of one class. The last
            row and column: matched by none.
        num_things: how many of the classes are things.
        boundary: the same scores by boundary IoU; None if they were not asked for.
    """

    classes: tuple[str, ...]
    images: int
    all: Quality
    things: Quality
    stuff: Quality
    class_pq: tuple[float, ...]
    class_sq: tuple[float, ...]
    class_rq: tuple[float, ...]
    tp: tuple[int, ...]
    fp: tuple[int, ...]
    fn: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    num_things: int
    boundary: "PanopticScores | None" = None

    @property
    def pq(self) -> float:
        """Over all classes."""
        return self.all.pq

    @property
    def sq(self) -> float:
        """Over all classes."""
        return self.all.sq

    @property
    def rq(self) -> float:
        """Over all classes."""
        return self.all.rq

    def to_dict(self, split: str = "val", colors: Sequence[Sequence[int]] = ()) -> dict[str, Any]:
        """Plain values for JSON, as in a run's validation.json; None where there is nothing to score.

        Args:
            split: name of the split.
            colors: of each class.
        """
        head = {
            "kind": "panoptic",
            "split": split,
            "unit": UNIT,
            "images": self.images,
            "classes": list(self.classes),
            "colors": [list(color) for color in colors],
            "num_things": self.num_things,
        }
        boundary = {} if self.boundary is None else {"boundary": self.boundary._numbers()}
        return head | self._numbers() | boundary

    def _numbers(self) -> dict[str, Any]:
        means = {name: getattr(self, name)._asdict() for name in ("all", "things", "stuff")}
        groups = {name: {k: plain(v) if k != "classes" else v for k, v in mean.items()} for name, mean in means.items()}
        each = {name: [plain(v) for v in getattr(self, name)] for name in ("class_pq", "class_sq", "class_rq")}
        counts = {name: list(getattr(self, name)) for name in ("tp", "fp", "fn")}
        return {**groups, **each, **counts, "confusion": [list(row) for row in self.confusion]}


class Matches(NamedTuple):
    """Of one image. pairs: [M, 3] true class, predicted class (K: none), segments. iou: [M] their sum."""

    pairs: Ints
    iou: Reals


class ImageRecord(NamedTuple):
    """One image. number: its place among the images; None: as it came. boundary: None if it is not asked for."""

    number: int | None
    segments: Matches
    boundary: Matches | None


class PanopticQuality:
    """PQ over images, whose matches are kept: a few numbers each. Oracle: panopticapi.

    Args:
        things: names of these classes, the first ones.
        stuff: names of the others.
        boundary: width of the bands of boundary PQ, relative to the diagonal (0.02 in the paper); None: no boundary PQ.

    Raises:
        ConfigError: no class, or a width out of 0..1.
    """

    def __init__(self, things: Sequence[str], stuff: Sequence[str], *, boundary: float | None = None) -> None:
        if not things and not stuff:
            raise ConfigError("no classes", field="things, stuff")
        if boundary is not None and not 0 < boundary <= 1:
            raise ConfigError(f"{boundary}", field="boundary", allowed="0 < boundary <= 1, of the diagonal")
        self.things, self.stuff, self.boundary = tuple(things), tuple(stuff), boundary
        self._records: list[ImageRecord] = []

    def __len__(self) -> int:
        return len(self._in_order())

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, things first."""
        return self.things + self.stuff

    def update(self, found: Panoptic | Segmented, truth: Segmented, *, number: int | None = None) -> None:
        """Counts one image.

        Args:
            found: the prediction, of any device.
            truth: the labels, in the same pixels.
            number: of the image. Images are counted in that order, and one that two processes saw once.

        Raises:
            ShapeError: maps of two sizes.
            DataError: an id without a segment or a segment without a pixel, an id twice, a label that is no class.
        """
        shown = SegmentIds.of(found) if isinstance(found, Panoptic) else found
        if shown.ids.shape != truth.ids.shape or truth.ids.ndim != 2:
            raise ShapeError(f"ids {list(shown.ids.shape)}", allowed=f"[H, W] of the truth, {list(truth.ids.shape)}")
        classes, pairs = len(self.classes), _pairs(truth.ids, shown.ids)
        _check("truth", truth, pairs.truth, classes)
        _check("prediction", shown, pairs.found, classes)
        overlap = _overlap(pairs, truth, shown)
        segments, boundary = _match(overlap, overlap.iou, truth, shown, classes), None
        if self.boundary is not None:
            width = band_width((truth.ids.shape[0], truth.ids.shape[1]), self.boundary)
            bands = _overlap(_pairs(_bands(truth, width), _bands(shown, width)), truth, shown)
            boundary = _match(overlap, _smaller(overlap, bands), truth, shown, classes)
        self._records.append(ImageRecord(number, segments, boundary))

    def state(self) -> dict[str, Any]:
        """All that was seen, as lists and arrays, to be sent to another process."""
        records = [
            {"number": r.number, "segments": list(r.segments), "boundary": r.boundary and list(r.boundary)}
            for r in self._records
        ]
        return {"things": list(self.things), "stuff": list(self.stuff), "boundary": self.boundary, "records": records}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Adds what another one has seen.

        Raises:
            ShapeError: it is of other classes or another boundary.
        """
        mine, other = self._kind(), (list(state["things"]), list(state["stuff"]), state["boundary"])
        if other != mine:
            raise ShapeError(f"panoptic quality of {other}", allowed=f"things, stuff and boundary of {mine}")
        for each in state["records"]:
            boundary = None if each["boundary"] is None else Matches(*each["boundary"])
            self._records.append(ImageRecord(each["number"], Matches(*each["segments"]), boundary))

    def compute(self) -> PanopticScores:
        """The scores of all images so far; NaN where there is nothing to score."""
        return self._scores(self._in_order())

    def images(self) -> list[PanopticScores]:
        """The scores of each image by itself, in their order."""
        return [self._scores([record]) for record in self._in_order()]

    def _scores(self, records: Sequence[ImageRecord]) -> PanopticScores:
        boundary = None
        if self.boundary is not None:
            boundary = self._of([record.boundary for record in records if record.boundary is not None])
        return self._of([record.segments for record in records], boundary)

    def _of(self, matches: Sequence[Matches], boundary: PanopticScores | None = None) -> PanopticScores:
        count = len(self.classes)
        confusion, iou = np.zeros((count + 1, count + 1), np.int64), np.zeros((count + 1, count + 1))
        for one in matches:  # in the order of the images, so that the sums are the same on any number of processes
            true, found, segments = one.pairs.T
            np.add.at(confusion, (true, found), segments)
            np.add.at(iou, (true, found), one.iou)
        tp = confusion.diagonal()[:count]
        fn, fp = (confusion.sum(axis)[:count] - tp for axis in (1, 0))
        sums, whole = iou.diagonal()[:count], tp + 0.5 * fp + 0.5 * fn
        counted = whole > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            pq, rq = sums / whole, tp / whole
            sq = np.where(counted, np.where(tp > 0, sums / tp, 0.0), np.nan)
        kinds = np.arange(count) < len(self.things)
        every, things, stuff = (_mean(pq, sq, rq, counted & kind) for kind in (True, kinds, ~kinds))
        return PanopticScores(
            self.classes,
            len(matches),
            every,
            things,
            stuff,
            class_pq=tuple(pq.tolist()),
            class_sq=tuple(sq.tolist()),
            class_rq=tuple(rq.tolist()),
            tp=tuple(tp.tolist()),
            fp=tuple(fp.tolist()),
            fn=tuple(fn.tolist()),
            confusion=tuple(tuple(row) for row in confusion.tolist()),
            num_things=len(self.things),
            boundary=boundary,
        )

    def _kind(self) -> tuple[list[str], list[str], float | None]:
        return list(self.things), list(self.stuff), self.boundary

    def _in_order(self) -> list[ImageRecord]:
        """Images with a number by it, each once, then the others as they came."""
        numbered = {each.number: each for each in self._records if each.number is not None}
        rest = [each for each in self._records if each.number is None]
        return [numbered[number] for number in sorted(numbered)] + rest


def _mean(pq: Reals, sq: Reals, rq: Reals, of: NDArray[np.bool_]) -> Quality:
    count = int(of.sum())
    if not count:
        return Quality(math.nan, math.nan, math.nan, 0)
    means = [float(values[of].sum() / count) for values in (pq, sq, rq)]
    return Quality(means[0], means[1], means[2], count)


class _Pairs(NamedTuple):
    """Which ids lie on each other, each pair once: [M] of the truth, [M] predicted, [M] on how many pixels."""

    truth: Ints
    found: Ints
    pixels: Ints


def _pairs(truth: NDArray[Any], found: NDArray[Any]) -> _Pairs:
    """Memory follows runs of equal pixels."""
    a, b = truth.reshape(-1), found.reshape(-1)
    turns = np.ones(len(a), bool)
    turns[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    begin = np.flatnonzero(turns)
    length, a, b = np.diff(begin, append=len(a)), a[begin].astype(np.int64), b[begin].astype(np.int64)
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    first = np.flatnonzero(np.diff(a, prepend=a[:1] - 1) | np.diff(b, prepend=b[:1] - 1))
    return _Pairs(a[first], b[first], np.add.reduceat(length[order], first) if len(first) else length)


def _check(side: str, of: Segmented, ids: Ints, classes: int) -> None:
    """side: for messages. ids: those of the map, in any order."""
    if not len(of.numbers) == len(of.labels) == len(of.crowds):
        found = f"{len(of.numbers)} numbers, {len(of.labels)} labels, {len(of.crowds)} crowds"
        raise ShapeError(found, field=side, allowed="one of each for each segment")
    known, counts = np.unique(of.numbers, return_counts=True)
    present = np.setdiff1d(ids, [VOID])
    for wrong, what, allowed in (
        (known[known == VOID], "of a segment", f"{VOID} on void pixels alone"),
        (known[counts > 1], "of two segments", "each id once"),
        (np.setdiff1d(present, known), "in the map, and of no segment", f"ids of segments, or {VOID} for void"),
        (np.setdiff1d(known, present), "of a segment without a pixel in the map", "pixels for each segment"),
    ):
        if len(wrong):
            raise DataError(f"the id {wrong[0]} {what}", field=side, allowed=allowed)
    strange = of.labels[(of.labels < 0) | (of.labels >= classes)]
    if len(strange):
        raise DataError(f"a segment of class {strange[0]}", field=side, allowed=f"0..{classes - 1}")


class _Overlap(NamedTuple):
    """Segments that lie on each other.

    Attributes:
        truth, found: [M] which true segment, which predicted one, as places among theirs; each pair once.
        pixels: [M] of both.
        iou: [M].
        void: [P] pixels of each predicted segment where the truth is void.
        areas: [P] pixels of each predicted segment.
    """

    truth: Ints
    found: Ints
    pixels: Ints
    iou: Reals
    void: Ints
    areas: Ints


def _overlap(pairs: _Pairs, truth: Segmented, found: Segmented) -> _Overlap:
    t, p, pixels = _places(truth.numbers, pairs.truth), _places(found.numbers, pairs.found), pairs.pixels
    areas, own = _summed(p, pixels, len(found.numbers)), _summed(t, pixels, len(truth.numbers))
    void = _summed(np.where(pairs.truth == VOID, p, -1), pixels, len(found.numbers))
    both = (t >= 0) & (p >= 0)
    t, p, pixels = t[both], p[both], pixels[both]
    return _Overlap(t, p, pixels, pixels / (areas[p] - void[p] + own[t] - pixels), void, areas)


def _places(numbers: Ints, ids: Ints) -> Ints:
    """Where each of `ids` [M] is among `numbers`; -1: nowhere."""
    order = np.argsort(numbers)
    at = np.searchsorted(numbers[order], ids).clip(max=max(len(order) - 1, 0))
    return np.where(numbers[order][at] == ids, order[at], -1) if len(order) else np.full(len(ids), -1)


def _summed(places: Ints, values: Ints, count: int) -> Ints:
    """[count] the sum of the values of each place; -1 is none."""
    total = np.zeros(count, np.int64)
    np.add.at(total, places[places >= 0], values[places >= 0])
    return total


def _bands(segmented: Segmented, width: int) -> NDArray[np.int64]:
    """The map of ids, `INSIDE` where no other segment is near; void stays void."""
    ids = torch.from_numpy(np.ascontiguousarray(segmented.ids, np.int64))
    return np.where(segmented.ids == VOID, VOID, band(ids, width, INSIDE).numpy())


def _smaller(segments: _Overlap, bands: _Overlap) -> Reals:
    """[M] the smaller IoU of segments and bands; 0 where the bands do not meet."""
    count = max(len(segments.areas), 1)
    keys, known = (one.truth * count + one.found for one in (segments, bands))
    at = _places(known, keys)
    return np.where(at < 0, 0.0, np.minimum(segments.iou, np.append(bands.iou, 0.0)[at]))


def _match(overlap: _Overlap, iou: Reals, truth: Segmented, found: Segmented, classes: int) -> Matches:
    """iou: [M] of the pairs of `overlap`, by which they match."""
    true, shown = truth.labels[overlap.truth], found.labels[overlap.found]
    match = (iou > 0.5) & ~truth.crowds[overlap.truth]
    crowd = np.full(classes, -1)
    crowd[truth.labels[truth.crowds]] = np.flatnonzero(truth.crowds)  # of a class, the last one remains
    lost = overlap.void + _summed(
        np.where(overlap.truth == crowd[shown], overlap.found, -1), overlap.pixels, len(overlap.void)
    )
    hit = np.zeros(len(found.numbers), bool)
    hit[overlap.found[match & (true == shown)]] = True
    free = hit | (lost / overlap.areas <= 0.5)  # the predicted segments that count
    match &= free[overlap.found]
    free[overlap.found[match]] = False
    missed = ~truth.crowds
    missed[overlap.truth[match]] = False
    rows = np.concatenate([true[match], truth.labels[missed], np.full(int(free.sum()), classes)])
    columns = np.concatenate([shown[match], np.full(int(missed.sum()), classes), found.labels[free]])
    pairs, place, counts = np.unique(np.stack([rows, columns], 1), axis=0, return_inverse=True, return_counts=True)
    sums = np.zeros(len(pairs))
    np.add.at(sums, place.reshape(-1)[: int(match.sum())], iou[match])
    return Matches(np.column_stack([pairs, counts]), sums)
