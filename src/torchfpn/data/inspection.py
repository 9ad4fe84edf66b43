"""What one image and its labels turn out to be when they are read, errors included.

What one image and its labels turn out to be when they are read, errors included.

What became of the features of each file of polygons, over all images of the dataset.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from hashlib import blake2b
from itertools import groupby
from operator import add
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.config import DatasetConfig, split_annotations
from torchfpn.data.headers import page_count
from torchfpn.data.labels.ground_truth import cut_to
from torchfpn.data.labels.instance_maps import parts_of
from torchfpn.data.labels.load import read_ground_truth
from torchfpn.data.moments import Moments
from torchfpn.data.reading import Piece, burning, fitting_target, hidden, read_picture, read_target, whole_size
from torchfpn.data.splits import BadFilesError, Pair, Problem
from torchfpn.data.statistics import ClassCounts, ObjectCounts, bins
from torchfpn.errors import DataError
from torchfpn.io.formats import is_vector
from torchfpn.io.images import Picture


@dataclass(frozen=True)
class Seen:
    """An image that could be read. size: (height, width). missing: pixels without data. digest: of the pixels.

    alpha: the number of a band that was taken for a mask. pages: files of the pair with several pages -> how many.
    """

    size: tuple[int, int]
    dtype: str
    bands: tuple[str, ...]
    moments: Moments
    missing: int
    alpha: int | None
    digest: bytes
    pages: dict[Path, int] = field(default_factory=dict)

    def __add__(self, other: "Seen") -> "Seen":
        """Of both windows of one scene."""
        digest = blake2b(self.digest + other.digest, digest_size=16).digest()
        return replace(self, moments=self.moments + other.moments, missing=self.missing + other.missing, digest=digest)


@dataclass(frozen=True)
class Look:
    """What one piece has to tell: an image, or a window of a scene. seen: None where it cannot be read.

    bins: [256] pixels of each class index; None where nothing is labelled or the labels cannot be read. met: numbers of
    the features drawn on it; None where its labels are no polygons. objects: of the image, where those are labelled.
    """

    problems: tuple[Problem, ...]
    bins: NDArray[np.int64] | None
    seen: Seen | None
    met: NDArray[np.int64] | None = None
    objects: ObjectCounts | None = None

    def __add__(self, other: "Look") -> "Look":
        """Of both windows of one scene; of each file only the first problem is kept."""
        known = {problem.file for problem in self.problems}
        return Look(
            self.problems + tuple(problem for problem in other.problems if problem.file not in known),
            _sum(self.bins, other.bins),
            None if self.seen is None or other.seen is None else self.seen + other.seen,
            other.met if self.met is None or other.met is None else np.union1d(self.met, other.met),
            self.objects or other.objects,
        )


@dataclass(frozen=True)
class Facts:
    """One pair of files; the pixels are gone by now. seen: None where the image cannot be read.

    met, objects: see `Look`.
    """

    split: str
    pair: Pair
    problems: tuple[Problem, ...]
    counts: ClassCounts
    seen: Seen | None
    met: NDArray[np.int64] | None = None
    objects: ObjectCounts | None = None


def gather(dataset: DatasetConfig, items: Iterable[tuple[str, Piece]], looks: Iterable[Look]) -> Iterator[Facts]:
    """The facts of each pair from the looks at its pieces, which follow each other. items: split and piece of each."""
    classes = len(dataset.classes)
    for (split, pair), group in groupby(zip(items, looks, strict=True), lambda both: (both[0][0], both[0][1].pair)):
        total = reduce(add, (look for _, look in group))
        counts = ClassCounts.empty(classes) if total.bins is None else ClassCounts.of_bins(total.bins, classes)
        yield Facts(split, pair, total.problems, counts, total.seen, total.met, total.objects)


def look(dataset: DatasetConfig, split: str, piece: Piece) -> Look:
    """All that one piece of a split has to tell; the errors of image and labels both become its problems."""
    pair, problems = piece.pair, list[Problem]()
    picture = counted = met = objects = None
    try:
        picture = read_picture(dataset, pair.image, piece.window)
    except DataError as error:
        problems.append(problem_of(error, pair.image))
    try:
        if dataset.has_objects:
            objects, met = _objects(dataset, split, piece, picture)
        else:
            counted, met = _labels(dataset, piece, picture)
    except BadFilesError as error:
        problems += error.problems
    except DataError as error:
        guilty = pair.image if error.file is not None and Path(error.file) == pair.image else pair.label
        problems.append(problem_of(error, guilty or pair.image))
    seen = None if picture is None else _seen(dataset, piece, picture)
    return Look(tuple(problems), counted, seen, met, objects)


def problem_of(error: DataError, file: Path) -> Problem:
    """The error without the name of its file, which the problem carries."""
    return Problem(file, " ".join(error.said.split()))


def _labels(
    dataset: DatasetConfig, piece: Piece, picture: Picture | None
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Pixels of each class index, features drawn. Read even if the image is bad, so that both are named at once."""
    pair, met = piece.pair, None
    if pair.label is None:
        return None, None
    if is_vector(pair.label):
        features = burning().read_features(dataset, pair.label)
        if picture is None:
            return None, features.labels.areas.features[:0]
        target, met = burning().burn(
            dataset, pair, picture.geo, whole_size(dataset, piece.pair.image, picture, piece.window), piece.window
        )
    elif picture is None:
        target = read_target(dataset, pair.label, piece.window)[0]
    else:
        target = fitting_target(dataset, pair, picture, piece.window)
    return bins(hidden(target, None if picture is None else picture.valid)), met


def _objects(
    dataset: DatasetConfig, split: str, piece: Piece, picture: Picture | None
) -> tuple[ObjectCounts | None, NDArray[np.int64] | None]:
    """Objects counted, features met: of the image, told by the first of its pieces."""
    pair = piece.pair
    first = piece.window is None or piece.window[:2] == (0, 0)
    if picture is None or not first or (pair.label is None and pair.annotations is None):
        return None, None
    size = whole_size(dataset, pair.image, picture, piece.window)
    truth = read_ground_truth(dataset, pair, size, split_annotations(dataset, split))
    boxes, _, shown = cut_to(truth.boxes.astype(np.float64), size)
    crowds = cut_to(truth.crowds.astype(np.float64), size)[0]
    areas = int((crowds[:, 2:] > crowds[:, :2]).all(1).sum())
    counts = ObjectCounts.of(boxes[shown], truth.labels[shown], len(dataset.classes), crowds=areas)
    counts = replace(counts, dropped=truth.dropped)
    if pair.label is None or not is_vector(pair.label):
        parts = parts_of(dataset, pair) if counts.total == 1 else 0
        return (replace(counts, scattered=1, parts=parts) if parts > 1 else counts), None
    from torchfpn.data.labels.polygons import features_met

    return counts, features_met(dataset, pair, picture.geo, size)


def _seen(dataset: DatasetConfig, piece: Piece, picture: Picture) -> Seen:
    return Seen(
        size=whole_size(dataset, piece.pair.image, picture, piece.window),
        dtype=picture.dtype,
        bands=picture.band_names,
        moments=Moments.of(picture.array, picture.valid),
        missing=0 if picture.valid is None else int((~picture.valid).sum()),
        alpha=picture.alpha,
        digest=blake2b(np.ascontiguousarray(picture.array).data, digest_size=16).digest(),
        pages=_pages(piece),
    )


def _pages(piece: Piece) -> dict[Path, int]:
    """Told by the first piece of an image."""
    if piece.window is not None and piece.window[:2] != (0, 0):
        return {}
    files = [file for file in (piece.pair.image, piece.pair.label) if file is not None]
    return {file: pages for file in files if (pages := page_count(file)) > 1}


def _sum(one: NDArray[np.int64] | None, other: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    return other if one is None else one if other is None else one + other


@dataclass(frozen=True)
class PolygonReport:
    """One file, its features counted. mended: with invalid rings. widened: lines and points. empty: without an area.

    outside: on no image. unclassed: without a class, ignored or skipped as the dataset says. One of a class that is not
    known is a problem, not a number.
    """

    file: Path
    features: int
    mended: int
    widened: int
    empty: int
    outside: int
    unclassed: int = 0


def polygon_reports(dataset: DatasetConfig, facts: Sequence[Facts]) -> tuple[PolygonReport, ...]:
    """Of each file that can be read, in the order they are met."""
    met: dict[Path, list[Facts]] = defaultdict(list)
    for f in facts:
        if f.pair.label is not None and is_vector(f.pair.label):
            met[f.pair.label].append(f)
    found = []
    for file, users in met.items():
        try:
            features = burning().read_features(dataset, file)
        except DataError:  # a problem, which is told
            continue
        on = [f.met for f in users if f.met is not None]
        touched = len(np.unique(np.concatenate(on))) if on else 0
        skipped = features.unclassed if dataset.polygons.without_class == "skip" else 0
        outside = features.count - features.lost - skipped - touched
        numbers = (features.mended, features.widened, features.lost, outside, features.unclassed)
        found.append(PolygonReport(file, features.count, *numbers))
    return tuple(found)


def unmet_polygons(dataset: DatasetConfig, split: str, facts: Sequence[Facts]) -> list[Problem]:
    """The files of polygons of a split, if no polygon of any of them meets an image: one problem each.

    Some images without a polygon are a usual thing; a split of such images alone has nothing to teach, and mostly the
    polygons lie elsewhere: their axes are swapped, or their coordinate system is not the one that the file names.
    facts: of the images of the split.
    """
    used = [f for f in facts if f.met is not None and f.pair.label is not None]
    if not used or any(len(f.met) for f in used if f.met is not None):
        return []
    files: dict[Path, list[Pair]] = defaultdict(list)
    for f in used:
        assert f.pair.label is not None  # filtered above
        files[f.pair.label].append(f.pair)
    return [Problem(file, _why_unmet(dataset, split, file, pairs)) for file, pairs in files.items()]


def _why_unmet(dataset: DatasetConfig, split: str, file: Path, pairs: Sequence[Pair]) -> str:
    if burning().read_features(dataset, file).count == 0:
        return f'no polygon for the images of the split "{split}"'
    return f'no polygon meets an image of the split "{split}"; {burning().why_unmet(dataset, file, pairs)}'
