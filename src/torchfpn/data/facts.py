"""What one image and its labels turn out to be when they are read, errors included."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from torchfpn.data.dataset import Dataset
from torchfpn.data.moments import Moments
from torchfpn.data.reading import check_fit, read_picture, read_target
from torchfpn.data.splits import Pair, Problem
from torchfpn.data.statistics import ClassCounts
from torchfpn.errors import DataError
from torchfpn.files.images import Picture
from torchfpn.recipe import IGNORE


@dataclass(frozen=True)
class Seen:
    """An image that could be read. size: (height, width). missing: pixels without data. digest: of the pixels.

    alpha: the number of a band that was taken for a mask.
    """

    size: tuple[int, int]
    dtype: str
    bands: tuple[str, ...]
    moments: Moments
    missing: int
    alpha: int | None
    digest: bytes


@dataclass(frozen=True)
class Facts:
    """One pair of files; the pixels are gone by now. seen: None where the image cannot be read."""

    split: str
    pair: Pair
    problems: tuple[Problem, ...]
    counts: ClassCounts
    seen: Seen | None


def examine(dataset: Dataset, split: str, pair: Pair) -> Facts:
    """All that one pair has to tell; the errors of image and labels both become its problems."""
    problems: list[Problem] = []
    counts = ClassCounts.empty(len(dataset.classes))
    picture = None
    try:
        picture = read_picture(dataset, pair.image)
    except DataError as error:
        problems.append(problem_of(error, pair.image))
    try:
        counts = _counts(dataset, pair, picture)
    except DataError as error:
        problems.append(problem_of(error, pair.label or pair.image))
    return Facts(split, pair, tuple(problems), counts, None if picture is None else _seen(picture))


def problem_of(error: DataError, file: Path) -> Problem:
    """The error without the name of its file, which the problem carries."""
    parts = (error.found, error.allowed, error.hint)
    return Problem(file, " ".join("; ".join(part for part in parts if part).split()))


def _counts(dataset: Dataset, pair: Pair, picture: Picture | None) -> ClassCounts:
    """Read even if the image is bad, so that both are named at once."""
    if pair.label is None:
        return ClassCounts.empty(len(dataset.classes))
    target, geo = read_target(dataset, pair.label)
    if picture is not None:
        check_fit(pair, picture, target, geo)
        if picture.valid is not None:
            target = np.where(picture.valid, target, np.uint8(IGNORE))
    return ClassCounts.of(target, len(dataset.classes))


def _seen(picture: Picture) -> Seen:
    return Seen(
        size=picture.size,
        dtype=picture.dtype,
        bands=picture.band_names,
        moments=Moments.of(picture.array, picture.valid),
        missing=0 if picture.valid is None else int((~picture.valid).sum()),
        alpha=picture.alpha,
        digest=blake2b(np.ascontiguousarray(picture.array).data, digest_size=16).digest(),
    )
