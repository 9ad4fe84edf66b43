"""Findings about one image and its labels when they are read, errors included; for `fpn check`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from hashlib import blake2b
from itertools import groupby
from operator import add
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.config import DatasetConfig, split_annotations
from torchfpn.data.headers import page_count
from torchfpn.data.labels.composed import read_things
from torchfpn.data.labels.ground_truth import GroundTruth
from torchfpn.data.labels.instance_maps import count_parts
from torchfpn.data.labels.load import read_ground_truth
from torchfpn.data.moments import Moments
from torchfpn.data.reading import (
    ImagePart,
    mask_target,
    polygon_labels,
    read_aligned_target,
    read_picture,
    read_target,
    whole_size,
)
from torchfpn.data.splits import BadFilesError, Pair, Problem
from torchfpn.data.statistics import ClassCounts, ObjectCounts, count_indices
from torchfpn.errors import DataError
from torchfpn.geo.georef import Geo
from torchfpn.io.formats import is_coco, is_vector
from torchfpn.io.images import Picture
from torchfpn.types import Size

Drawn = Mapping[Path, NDArray[np.int64]]  # by file of polygons, numbers of its features that overlap an image

_NONE = np.zeros(0, np.int64)

_NOTHING: Drawn = MappingProxyType({})


@dataclass(frozen=True)
class ImageStats:
    """Statistics of an image that could be read.

    Attributes:
        size: (height, width) in pixels.
        dtype: of the pixels.
        bands: names.
        moments: of the bands.
        missing: pixels without data.
        alpha: number of a band that was taken for a mask.
        digest: hash of the pixels.
        pages: of the files of the pair with several pages, their number.
    """

    size: tuple[int, int]
    dtype: str
    bands: tuple[str, ...]
    moments: Moments
    missing: int
    alpha: int | None
    digest: bytes
    pages: dict[Path, int] = field(default_factory=dict)

    def __add__(self, other: "ImageStats") -> "ImageStats":
        """Statistics of both windows of a scene."""
        digest = blake2b(self.digest + other.digest, digest_size=16).digest()
        return replace(self, moments=self.moments + other.moments, missing=self.missing + other.missing, digest=digest)


@dataclass(frozen=True)
class Inspection:
    """Findings about an image, or a window of a scene.

    Attributes:
        problems: errors of image and labels.
        index_counts: [256] pixels of each class index; None without labels, or if they cannot be read.
        stats: None if the image cannot be read.
        drawn: by file of polygons, numbers of the features that overlap the image.
        objects: counted over the image, in datasets of objects.
        overlapping: in panoptic datasets, pixels on which several objects are labelled.
    """

    problems: tuple[Problem, ...]
    index_counts: NDArray[np.int64] | None
    stats: ImageStats | None
    drawn: Drawn = field(default_factory=dict)
    objects: ObjectCounts | None = None
    overlapping: int = 0

    def __add__(self, other: "Inspection") -> "Inspection":
        """Findings about both windows of a scene, with the first problem of each file."""
        known = {problem.file for problem in self.problems}
        return Inspection(
            self.problems + tuple(problem for problem in other.problems if problem.file not in known),
            _sum(self.index_counts, other.index_counts),
            None if self.stats is None or other.stats is None else self.stats + other.stats,
            {
                file: np.union1d(self.drawn.get(file, _NONE), other.drawn.get(file, _NONE))
                for file in {**self.drawn, **other.drawn}
            },
            self.objects or other.objects,
            self.overlapping + other.overlapping,
        )


@dataclass(frozen=True)
class PairFindings:
    """Findings about a pair of files; attributes as of `Inspection`."""

    split: str
    pair: Pair
    problems: tuple[Problem, ...]
    counts: ClassCounts
    stats: ImageStats | None
    drawn: Drawn = field(default_factory=dict)
    objects: ObjectCounts | None = None


def merge_parts(
    dataset: DatasetConfig, items: Iterable[tuple[str, ImagePart]], parts: Iterable[Inspection]
) -> Iterator[PairFindings]:
    """Findings about each pair from those about its parts.

    Args:
        dataset: with the classes.
        items: name of the split and part of each, parts of a pair in a row.
        parts: findings about each item.
    """
    classes = len(dataset.classes)
    for (split, pair), group in groupby(zip(items, parts, strict=True), lambda both: (both[0][0], both[0][1].pair)):
        total = reduce(add, (found for _, found in group))
        bins = total.index_counts
        counts = ClassCounts.empty(classes) if bins is None else ClassCounts.of_bins(bins, classes)
        objects = total.objects and replace(total.objects, overlapping=total.overlapping)
        yield PairFindings(split, pair, total.problems, counts, total.stats, total.drawn, objects)


def inspect_part(dataset: DatasetConfig, split: str, part: ImagePart) -> Inspection:
    """Reads an image, or a window of a scene, and its labels; errors become problems."""
    pair, problems = part.pair, list[Problem]()
    picture, found = None, Labels()
    try:
        picture = read_picture(dataset, pair.image, part.window)
    except DataError as error:
        problems.append(as_problem(error, pair.image))
    try:
        if dataset.is_panoptic:
            found = _panoptic(dataset, split, part, picture)
        elif dataset.has_objects:
            found = _objects(dataset, split, part, picture)
        else:
            found = _labels(dataset, part, picture)
    except BadFilesError as error:
        problems += error.problems
    except DataError as error:
        named = None if error.file is None else Path(error.file)
        guilty = named if named in (pair.image, pair.objects) else pair.label or pair.objects
        problems.append(as_problem(error, guilty or pair.image))
    stats = None if picture is None else _stats(dataset, part, picture)
    return Inspection(tuple(problems), found.counted, stats, found.drawn, found.objects, found.overlapping)


class Labels(NamedTuple):
    """Findings about the labels of an image; see `Inspection`."""

    counted: NDArray[np.int64] | None = None
    drawn: Drawn = _NOTHING
    objects: ObjectCounts | None = None
    overlapping: int = 0


def as_problem(error: DataError, file: Path) -> Problem:
    """The error as a problem of `file`."""
    return Problem(file, " ".join(error.said.split()))


def _labels(dataset: DatasetConfig, part: ImagePart, picture: Picture | None) -> Labels:
    """Pixels of each class index, and features drawn; read even if the image is bad, to report both errors at once."""
    pair, drawn = part.pair, dict[Path, NDArray[np.int64]]()
    if pair.label is None:
        return Labels()
    if is_vector(pair.label):
        polygon_labels().read_features(dataset, pair.label)
        if picture is None:
            return Labels(None, {pair.label: _NONE})
        target, drawn[pair.label] = polygon_labels().rasterize_labels(
            dataset, pair, picture.geo, whole_size(dataset, part.pair.image, picture, part.window), part.window
        )
    elif picture is None:
        target = read_target(dataset, pair.label, part.window)[0]
    else:
        target = read_aligned_target(dataset, pair, picture, part.window)
    return Labels(count_indices(mask_target(target, None if picture is None else picture.valid)), drawn)


def _objects(dataset: DatasetConfig, split: str, part: ImagePart, picture: Picture | None) -> Labels:
    """Counts of objects and numbers of features on the image, found with the first of its parts."""
    pair = part.pair
    if picture is None or not _is_first(part) or (pair.label is None and pair.annotations is None):
        return Labels()
    size = whole_size(dataset, pair.image, picture, part.window)
    truth = read_ground_truth(dataset, pair, size, split_annotations(dataset, split))
    return Labels(None, _drawn(dataset, pair, picture.geo, size), _count_objects(dataset, pair, truth))


def _panoptic(dataset: DatasetConfig, split: str, part: ImagePart, picture: Picture | None) -> Labels:
    """Pixels of each class index; with the first of its parts, the objects and features of the whole image."""
    pair, window = part.pair, part.window
    if picture is None or (pair.objects is None and pair.annotations is None):
        return Labels()
    size = whole_size(dataset, pair.image, picture, window)
    truth = read_ground_truth(dataset, pair, size, split_annotations(dataset, split), window)
    assert truth.semantic is not None  # of panoptic datasets
    counted = count_indices(mask_target(truth.semantic, picture.valid))
    if not _is_first(part):
        return Labels(counted, overlapping=truth.overlapping)
    whole = truth if window is None else _boxes_of_scene(dataset, pair, picture.geo, size)
    counts = _count_objects(dataset, pair, whole)
    return Labels(counted, _drawn(dataset, pair, picture.geo, size), counts, truth.overlapping)


def _boxes_of_scene(dataset: DatasetConfig, pair: Pair, geo: Geo | None, size: Size) -> GroundTruth:
    """The boxes of a whole scene; which objects are hidden would only show if all of it were drawn."""
    things = read_things(dataset, pair, geo, size)
    own = ~things.crowds
    return GroundTruth(things.boxes[own], things.labels[own], things.boxes[things.crowds], size)


def _is_first(part: ImagePart) -> bool:
    """Whether it is the whole image, or its first window."""
    return part.window is None or part.window[:2] == (0, 0)


def _count_objects(dataset: DatasetConfig, pair: Pair, truth: GroundTruth) -> ObjectCounts:
    counts = ObjectCounts.of_truth(truth, len(dataset.classes))
    parts = count_parts(dataset, pair) if counts.total == 1 else 0
    return replace(counts, scattered=1, parts=parts) if parts > 1 else counts


def _drawn(dataset: DatasetConfig, pair: Pair, geo: Geo | None, size: Size) -> Drawn:
    found = {}
    for view, file in vector_files(dataset, pair):
        from torchfpn.data.labels.polygons import features_in_image

        found[file] = features_in_image(view, replace(pair, label=file), geo, size)
    return found


def vector_files(dataset: DatasetConfig, pair: Pair) -> list[tuple[DatasetConfig, Path]]:
    """The files of polygons that label an image, each with the dataset whose `polygons` are the file's settings."""
    found = [(dataset, pair.label)] if pair.label is not None and is_vector(pair.label) else []
    if pair.objects is None or pair.objects == pair.label or not is_vector(pair.objects) or is_coco(pair.objects):
        return found
    return [*found, (dataset.of_objects, pair.objects)]


def _stats(dataset: DatasetConfig, part: ImagePart, picture: Picture) -> ImageStats:
    return ImageStats(
        size=whole_size(dataset, part.pair.image, picture, part.window),
        dtype=picture.dtype,
        bands=picture.band_names,
        moments=Moments.of(picture.array, picture.valid),
        missing=0 if picture.valid is None else int((~picture.valid).sum()),
        alpha=picture.alpha,
        digest=blake2b(np.ascontiguousarray(picture.array).data, digest_size=16).digest(),
        pages=_pages(part),
    )


def _pages(part: ImagePart) -> dict[Path, int]:
    """Files of several pages, found with the first part of an image."""
    if not _is_first(part):
        return {}
    files = [file for file in (part.pair.image, part.pair.label, part.pair.objects) if file is not None]
    return {file: pages for file in files if (pages := page_count(file)) > 1}


def _sum(one: NDArray[np.int64] | None, other: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    return other if one is None else one if other is None else one + other


@dataclass(frozen=True)
class PolygonReport:
    """Counts of the features of a file of polygons over all images; unknown classes are problems instead.

    Attributes:
        file: of polygons.
        features: all.
        mended: repaired invalid rings.
        widened: buffered lines and points.
        empty: without an area.
        outside: on no image.
        unclassed: without a class, ignored or skipped as `without_class` says.
    """

    file: Path
    features: int
    mended: int
    widened: int
    empty: int
    outside: int
    unclassed: int = 0


def polygon_reports(dataset: DatasetConfig, findings: Sequence[PairFindings]) -> tuple[PolygonReport, ...]:
    """Reports on the files of polygons that can be read, in the order of their first image."""
    by_file: dict[Path, list[PairFindings]] = defaultdict(list)
    views: dict[Path, DatasetConfig] = {}
    for f in findings:
        for view, file in vector_files(dataset, f.pair):
            by_file[file].append(f)
            views[file] = view
    found = []
    for file, users in by_file.items():
        try:
            features = polygon_labels().read_features(views[file], file)
        except DataError:  # reported as a problem
            continue
        on = [f.drawn[file] for f in users if file in f.drawn]
        touched = len(np.unique(np.concatenate(on))) if on else 0
        skipped = features.unclassed if dataset.polygons.without_class == "skip" else 0
        outside = features.count - features.lost - skipped - touched
        numbers = (features.mended, features.widened, features.lost, outside, features.unclassed)
        found.append(PolygonReport(file, features.count, *numbers))
    return tuple(found)


def polygons_off_images(dataset: DatasetConfig, split: str, findings: Sequence[PairFindings]) -> list[Problem]:
    """Problems of the files of polygons of a split, if none of their polygons overlaps any of its images.

    Single images without polygons are usual. If all are, the polygons mostly have swapped axes or another coordinate
    system than the file declares.
    """
    labels = [(f, view, file) for f in findings for view, file in vector_files(dataset, f.pair) if file in f.drawn]
    problems = []
    for objects in (False, True):  # one of them may lie where it should
        own = [(f, view, file) for f, view, file in labels if (file != f.pair.label) == objects]
        if any(len(f.drawn[file]) for f, _, file in own):
            continue
        files: dict[Path, list[Pair]] = defaultdict(list)
        for f, _, file in own:
            files[file].append(f.pair)
        views = {file: view for _, view, file in own}
        problems += [Problem(file, _explain_off_images(views[file], split, file, files[file])) for file in files]
    return problems


def _explain_off_images(dataset: DatasetConfig, split: str, file: Path, pairs: Sequence[Pair]) -> str:
    if polygon_labels().read_features(dataset, file).count == 0:
        return f'no polygon for the images of the split "{split}"'
    return (
        f'no polygon meets an image of the split "{split}"; {polygon_labels().explain_no_overlap(dataset, file, pairs)}'
    )
