"""What a file of panoptic annotations says of all segments of its images, as arrays: things, stuff and crowds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.coco_records import Category

MOST = 2**24 - 1  # the largest id that three bytes hold; 0 is void, where nothing is labelled


class Segment(NamedTuple):
    """One record of `segments_info`. category: its place among all categories. place: among those of its annotation.

    A bad one has an id and a category of -1: its pixels in the PNG are then no riddle.
    """

    id: int
    category: int
    crowd: bool
    area: float
    box: tuple[float, float, float, float]
    place: int


@dataclass(frozen=True)
class Segments:
    """The S segments of I images; those of an image follow each other, in the order of the file.

    folder: where the PNGs lie. maps: of each image the name of its PNG. records: int64 [I] the place of each image's
    annotation in the file. categories, things: all of them, stuff as well, and which are things. first: int64 [I + 1]
    the first segment of each image. ids: int64 [S] in the PNG. category: int32 [S] places among `categories`, -1 of
    bad ones. crowd: bool [S]. areas: float64 [S] in pixels. boxes: float32 [S, 4] (x1, y1, x2, y2) in pixels. places:
    int32 [S] in `segments_info`.
    """

    folder: Path
    maps: tuple[str, ...]
    records: NDArray[np.int64]
    categories: tuple[Category, ...]
    things: tuple[bool, ...]
    first: NDArray[np.int64]
    ids: NDArray[np.int64]
    category: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    boxes: NDArray[np.float32]
    places: NDArray[np.int32]

    def rows(self, image: int) -> NDArray[np.int64]:
        """The segments of an image: places in the arrays."""
        return np.arange(self.first[image], self.first[image + 1])


def segments_of(
    folder: Path,
    images: Sequence[tuple[str, int, Sequence[Segment]]],
    categories: Sequence[Category],
    things: Sequence[bool],
) -> Segments:
    """As arrays. images: of each the name of its PNG, the place of its annotation, its segments."""
    every = [segment for _, _, segments in images for segment in segments]
    return Segments(
        folder=folder,
        maps=tuple(name for name, _, _ in images),
        records=np.array([record for _, record, _ in images], np.int64),
        categories=tuple(categories),
        things=tuple(things),
        first=np.concatenate([[0], np.cumsum([len(segments) for _, _, segments in images])]).astype(np.int64),
        ids=np.array([one.id for one in every], np.int64),
        category=np.array([one.category for one in every], np.int32),
        crowd=np.array([one.crowd for one in every], bool),
        areas=np.array([one.area for one in every], np.float64),
        boxes=np.array([one.box for one in every], np.float32).reshape(-1, 4),
        places=np.array([one.place for one in every], np.int32),
    )
