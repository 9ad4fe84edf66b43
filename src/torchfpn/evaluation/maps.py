"""Pixels of label maps scored by windows: label files, and any two label sources of an image."""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.classes import MAX_CLASSES, ClassMap
from torchfpn.errors import DataError
from torchfpn.geo.window import Window, tiles
from torchfpn.io.formats import MAX_SIDE, printable
from torchfpn.metrics.pixel_counts import PixelCounts
from torchfpn.recipe import IGNORE
from torchfpn.sources.labels import WINDOW, LabelMap, LabelSource, check_same_grid, open_label_map
from torchfpn.sources.raster import Grid, Sampling
from torchfpn.types import Color

BYTE = 256
Pair = tuple[int, int]  # true value, predicted value
Read = Callable[[Window], NDArray[Any]]


@dataclass
class LabelPairs:
    """Pixels over all files, and what the files say of the values.

    Attributes:
        counts: of each (true value, predicted value, whether the truth is nodata of its file, whether the prediction
            is).
        ignored: values that files which name their classes call "not labelled".
    """

    counts: Counter[tuple[int, int, bool, bool]] = field(default_factory=Counter)
    names: dict[int, str] = field(default_factory=dict)
    colors: dict[int, Color] = field(default_factory=dict)
    files: int = 0
    ignored: set[int] = field(default_factory=set)

    def add(self, predicted: Path, truth: Path, *, allow_vrt: bool = False, max_side: int = MAX_SIDE) -> None:
        """Counts the pixels of two files of one grid.

        Args:
            predicted: the prediction.
            truth: the ground truth.
            allow_vrt: accept VRT files.
            max_side: height and width of either, in pixels.

        Raises:
            DataError: either cannot be read, they do not fit, or they call one value by two names.
        """
        opened = partial(open_label_map, allow_vrt=allow_vrt, max_side=max_side)
        with opened(predicted) as one, opened(truth) as other:
            check_same_grid(one, other)
            self._learn(other)
            self._learn(one)
            found = Counter[Pair]()
            for _ in paired_windows(one.plan(), one.read, other.read, found):
                pass
            for (t, p), count in found.items():
                self.counts[t, p, t == other.nodata, p == one.nodata] += count
            self.files += 1

    def _learn(self, held: LabelMap) -> None:
        for value, name in held.names.items():
            if self.names.setdefault(value, name) != name:
                found = f'the value {value} is called "{name}" here and "{self.names[value]}" elsewhere'
                raise DataError(found, file=printable(held.file), allowed="the same names in all files")
        for value, color in held.colors.items():
            self.colors.setdefault(value, color)
        self.ignored |= held.ignored


@dataclass(frozen=True)
class PixelScores:
    """Pixels of label maps counted by class.

    Attributes:
        values: label value of each class; None: no value.
        names: of each class.
        colors: of each class.
        confusion: over the classes.
        unlabelled: pixels without a truth, which do not count.
        unanswered: pixels with a truth and without a prediction, which do not count.
    """

    values: list[int | None]
    names: list[str]
    colors: list[Color]
    confusion: PixelCounts
    unlabelled: int
    unanswered: int


def paired_windows(
    plan: Sequence[Window], prediction: Read, truth: Read, counts: Counter[Pair]
) -> Iterator[tuple[Window, NDArray[Any], NDArray[Any]]]:
    """The windows of two label maps on one grid with the labels of both, read once.

    Args:
        plan: windows that do not overlap.
        prediction: a window -> predicted labels [H, W], integers.
        truth: the same of the true labels.
        counts: (true value, predicted value) -> pixels; those of each window are added before it is handed out.
    """
    for window in plan:
        predicted, labels = prediction(window), truth(window)
        counts.update(pair_counts(predicted, labels))
        yield window, predicted, labels


def pair_counts(predicted: NDArray[Any], truth: NDArray[Any]) -> dict[Pair, int]:
    """(true value, predicted value) -> pixels; integers of one shape."""
    if predicted.dtype == np.uint8 and truth.dtype == np.uint8:
        counts = np.bincount((truth.astype(np.int32) * BYTE + predicted).ravel(), minlength=BYTE**2)
        return {(int(k) // BYTE, int(k) % BYTE): int(counts[k]) for k in np.flatnonzero(counts)}
    pairs = np.stack([truth.ravel(), predicted.ravel()]).astype(np.int64)
    found, counts = np.unique(pairs, axis=1, return_counts=True)
    return {(int(t), int(p)): int(n) for t, p, n in zip(*found, counts, strict=True)}


def pixel_scores(
    pairs: LabelPairs, *, classes: Mapping[int, str] | None = None, ignore: Collection[int] | None = None
) -> PixelScores:
    """What the counts say of the classes.

    Args:
        pairs: the counts.
        classes: names of the values; none: those in the tags of the files, else every value is a class.
        ignore: values that mean "not labelled"; None: 255, unless it is a class or there is nothing but 0 and 255, and
            what a file that names its classes calls so. What a file itself declares as nodata is not labelled either,
            unless the value is one of the named classes.

    Raises:
        DataError: a value that is neither class nor ignored, too many values, no pixel to score.
    """
    names = dict(classes or pairs.names)
    occurring = {value for pair in pairs.counts for value in pair[:2]}
    ignored = _ignored(occurring, names) | (pairs.ignored - names.keys()) if ignore is None else set(ignore)
    names = {value: name for value, name in names.items() if value not in ignored}
    counted, unlabelled, unanswered = _counted(pairs, names, ignored)
    values = sorted(names or {value for pair in counted for value in pair})
    if not counted:
        raise DataError("no pixel has a truth and a prediction", hint="what is not labelled is set by --ignore")
    if len(values) > MAX_CLASSES:
        allowed = f"at most {MAX_CLASSES}"
        raise DataError(f"{len(values)} different values", allowed=allowed, hint="are these label files?")
    known = ClassMap.of({value: names.get(value, str(value)) for value in values}, pairs.colors, ignored=ignored)
    _check_values(counted, known)
    confusion = PixelCounts(len(values))
    for (t, p), count in counted.items():
        confusion.matrix[known.index[t], known.index[p]] += count
    return PixelScores([*values], [*known.names], [*known.colors], confusion, unlabelled, unanswered)


def _ignored(occurring: set[int], names: Mapping[int, str]) -> set[int]:
    black_and_white = not names and occurring <= {0, IGNORE}
    return set() if IGNORE in names or black_and_white else {IGNORE}


def _counted(pairs: LabelPairs, names: Mapping[int, str], ignored: set[int]) -> tuple[Counter[Pair], int, int]:
    """Pixels with a truth and a prediction; how many have no truth; how many have one and no prediction."""
    counted, unlabelled, unanswered = Counter[Pair](), 0, 0
    for (t, p, no_truth, no_answer), count in pairs.counts.items():
        if t in ignored or (no_truth and t not in names):
            unlabelled += count
        elif p in ignored or (no_answer and p not in names):
            unanswered += count
        else:
            counted[t, p] += count
    return counted, unlabelled, unanswered


def _check_values(counted: Counter[Pair], classes: ClassMap) -> None:
    unknown: Counter[int] = Counter()
    for (t, p), count in counted.items():
        for value in {t, p} - classes.index.keys():
            unknown[value] += count
    if unknown:
        raise classes.unknown_value(*unknown.most_common(1)[0])


@dataclass(frozen=True)
class MapComparison:
    """Label sources of an image side by side.

    Attributes:
        maps: the labels [h, w] of each source, `IGNORE` where nothing is labelled.
        confusion: None for one source alone.
    """

    maps: list[NDArray[np.uint8]]
    confusion: PixelCounts | None


def compare_maps(image: Grid, look: Sampling, sides: Sequence[LabelSource], classes: ClassMap) -> MapComparison:
    """sides: the truth and the prediction, or one of them. Only the part of the image that is looked at counts.

    Raises:
        DataError: labels that are missing, damaged, or do not fit the image.
    """
    maps = [np.full(look.size, IGNORE, np.uint8) for _ in sides]
    row, column, height, width = look.part
    counts = Counter[Pair]()
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(side.open(image, classes)) for side in sides]
        blocks = tiles((height, width), (WINDOW, WINDOW))
        plan = [block._replace(row=block.row + row, column=block.column + column) for block in blocks]
        if len(sides) > 1:
            windows = paired_windows(plan, readers[1], readers[0], counts)
        else:
            windows = ((window, labels, labels) for window in plan for labels in [readers[0](window)])
        for window, predicted, truth in windows:
            rows, columns, top, left = look.inside(window)
            for shown, labels in zip(maps, (truth, predicted), strict=False):
                shown[top : top + len(rows), left : left + len(columns)] = labels[np.ix_(rows, columns)]
    if len(sides) < 2:
        return MapComparison(maps, None)
    confusion = PixelCounts(len(classes.values))
    for (t, p), count in counts.items():
        if t != IGNORE and p != IGNORE:
            confusion.matrix[t, p] += count
    return MapComparison(maps, confusion)
