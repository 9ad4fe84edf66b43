"""Pixel scores of label files against label files, counted by windows."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.classes import class_colors
from torchfpn.errors import DataError, amount
from torchfpn.io.formats import MAX_SIDE, printable
from torchfpn.io.rasters import Color
from torchfpn.metrics.pixel_counts import PixelCounts
from torchfpn.recipe import IGNORE
from torchfpn.sources.label_classes import Legend
from torchfpn.sources.labels import LabelMap, check_same_grid, open_label_map
from torchfpn.sources.polygons import RasterizeOutcome
from torchfpn.vector.rasterize import LabelledPolygons

MOST = 255  # classes
BYTE = 256
Pair = tuple[int, int]  # true value, predicted value
NOT_LABELLED = "not labelled"


@dataclass
class LabelPairs:
    """Pixels over all files, and what the files say of the values.

    counts: of each (true value, predicted value, whether the truth is nodata of its file, whether the prediction is).
    ignored: values that files which name their classes call "not labelled".
    """

    counts: Counter[tuple[int, int, bool, bool]] = field(default_factory=Counter)
    names: dict[int, str] = field(default_factory=dict)
    colors: dict[int, Color] = field(default_factory=dict)
    files: int = 0
    ignored: set[int] = field(default_factory=set)

    def add(self, predicted: Path, truth: Path, *, allow_vrt: bool = False, max_side: int = MAX_SIDE) -> None:
        """Counts the pixels of two files of one grid. max_side: height and width of either, in pixels.

        Raises:
            DataError: either cannot be read, they do not fit, or they call one value by two names.
        """
        opened = partial(open_label_map, allow_vrt=allow_vrt, max_side=max_side)
        with opened(predicted) as one, opened(truth) as other:
            check_same_grid(one, other)
            self._learn(other)
            self._learn(one)
            found = Counter[Pair]()
            for window in one.plan():
                found.update(pair_counts(one.read(window), other.read(window)))
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
    """confusion: over the label `values`, which are called `names`; None: no value.

    unlabelled: pixels without a truth. unanswered: pixels with a truth and without a prediction. Neither count.
    """

    values: list[int | None]
    names: list[str]
    colors: list[Color]
    confusion: PixelCounts
    unlabelled: int
    unanswered: int


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

    classes: names of the values; none: those in the tags of the files, else every value is a class.
    ignore: values that mean "not labelled"; None: 255, unless it is a class or there is nothing but 0 and 255, and what
    a file that names its classes calls so. What a file itself declares as nodata is not labelled either, unless the
    value is one of the named classes.

    Raises:
        DataError: a value that is neither class nor ignored, too many values, no pixel to score.
    """
    names = dict(classes or pairs.names)
    present = {value for pair in pairs.counts for value in pair[:2]}
    ignored = _ignored(present, names) | (pairs.ignored - names.keys()) if ignore is None else set(ignore)
    names = {value: name for value, name in names.items() if value not in ignored}
    counted, unlabelled, unanswered = _counted(pairs, names, ignored)
    values = sorted(names or {value for pair in counted for value in pair})
    _check(counted, values, names)
    index = {value: i for i, value in enumerate(values)}
    confusion = PixelCounts(len(values))
    for (t, p), count in counted.items():
        confusion.matrix[index[t], index[p]] += count
    shown = [names.get(value, str(value)) for value in values]
    colors = class_colors(shown, [pairs.colors.get(value) for value in values])
    return PixelScores([*values], shown, colors, confusion, unlabelled, unanswered)


def _ignored(present: set[int], names: Mapping[int, str]) -> set[int]:
    alone = not names and present <= {0, IGNORE}  # a mask of black and white
    return set() if IGNORE in names or alone else {IGNORE}


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


def _check(counted: Counter[Pair], values: Sequence[int], names: Mapping[int, str]) -> None:
    if not counted:
        raise DataError("no pixel has a truth and a prediction", hint="what is not labelled is set by --ignore")
    if len(values) > MOST:
        raise DataError(f"{len(values)} different values", allowed=f"at most {MOST}", hint="are these label files?")
    unknown: Counter[int] = Counter()
    for (t, p), count in counted.items():
        for value in {t, p} - set(values):
            unknown[value] += count
    if unknown:
        value, count = unknown.most_common(1)[0]
        listed = ", ".join(f"{v} {names[v]}" for v in list(values)[:20])
        hint = f"name it with --classes, or leave it out with --ignore {value}"
        raise DataError(f"the value {value} in {amount(count, 'pixel')}", allowed=listed, hint=hint)


class RasterizeTally:
    """Counts over all images; a feature on several images counts once. labels: label file by stem."""

    def __init__(self, legend: Legend, labels: dict[str, LabelledPolygons]) -> None:
        self.legend, self.labels = legend, labels
        self.pixels: dict[int, int] = {}
        self.doubled = 0
        self.met: dict[str, NDArray[np.bool_]] = {stem: np.zeros(len(f.labels), bool) for stem, f in labels.items()}

    def add(self, stem: str, outcome: RasterizeOutcome) -> None:
        """Counts an image drawn from the label file of that stem."""
        self.met[stem] |= outcome.features
        self.doubled += outcome.doubled
        for value, count in outcome.pixels.items():
            self.pixels[value] = self.pixels.get(value, 0) + count

    def unmet(self) -> list[Path]:
        """Label files that hold features, none of which meets an image."""
        return [self.labels[stem].file for stem, met in self.met.items() if len(met) and not met.any()]

    def rows(self) -> list[tuple[str, str, int, int, int]]:
        """(value of the attribute, class, label value, features that meet an image, pixels) of each class."""
        drawn = np.concatenate([np.zeros(0, np.int64), *(f.labels[self.met[stem]] for stem, f in self.labels.items())])
        spelt: dict[int, str] = {label: str(value) for value, label in self.legend.values.items()}
        names = dict(self.legend.names)
        if self.legend.ignored in self.pixels:
            names[self.legend.ignored] = NOT_LABELLED
        return [
            (spelt.get(label, ""), name, label, int((drawn == label).sum()), self.pixels.get(label, 0))
            for label, name in names.items()
        ]
