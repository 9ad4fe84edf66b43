"""The annotations of a COCO file as arrays: small in memory and on their way to worker processes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.coco_panoptic_segments import Segments
from torchfpn.data.outlines import Outlines, draw
from torchfpn.data.truth import Truth
from torchfpn.ops.rle import from_rle

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops

Rings = list[NDArray[np.float32]]  # of one object, each [P, 2]
Shape = Rings | str | None  # polygons, run lengths as a string, or nothing


@dataclass(frozen=True)
class Shapes:
    """The masks of A objects: polygons or run lengths.

    points: float32 [P, 2] of all polygons. rings: [R + 1] where each begins, and the end. first: [A + 1] the first ring
    of each object. text: uint8, all run lengths as COCO spells them. ends: [A + 1] where those of each object begin.
    """

    points: NDArray[np.float32]
    rings: NDArray[np.int64]
    first: NDArray[np.int64]
    text: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, shapes: Sequence[Shape]) -> "Shapes":
        """As arrays."""
        rings = [ring for shape in shapes if isinstance(shape, list) for ring in shape]
        texts = [shape.encode("ascii") if isinstance(shape, str) else b"" for shape in shapes]
        return cls(
            np.concatenate(rings) if rings else np.zeros((0, 2), np.float32),
            _starts(len(ring) for ring in rings),
            _starts(len(shape) if isinstance(shape, list) else 0 for shape in shapes),
            np.frombuffer(b"".join(texts), np.uint8),
            _starts(len(text) for text in texts),
        )

    def crops(self, rows: NDArray[np.int64], boxes: NDArray[np.float32], size: tuple[int, int]) -> "Crops":
        """The masks of the objects `rows` [N] in an image of (height, width) `size`. boxes: [N, 4], for tiny ones."""
        coded = self.ends[rows + 1] > self.ends[rows]
        if not coded.any():
            return draw(self._outlines(rows), boxes, size)
        texts = [self.text[self.ends[i] : self.ends[i + 1]].tobytes() for i in rows[coded]]
        runs = from_rle([{"size": list(size), "counts": text} for text in texts], size)
        if coded.all():
            return runs
        return _woven(coded, runs, draw(self._outlines(rows[~coded]), boxes[~coded], size))

    def select(self, rows: NDArray[np.int64]) -> "Shapes":
        """Those of the objects `rows` alone."""
        counts = self.first[rows + 1] - self.first[rows]
        rings = _ranges(self.first[rows], counts)
        sizes, lengths = self.rings[rings + 1] - self.rings[rings], self.ends[rows + 1] - self.ends[rows]
        return Shapes(
            self.points[_ranges(self.rings[rings], sizes)],
            _starts(sizes),
            _starts(counts),
            self.text[_ranges(self.ends[rows], lengths)],
            _starts(lengths),
        )

    def _outlines(self, rows: NDArray[np.int64]) -> Outlines:
        """Rings as edges; every ring is a polygon of its own, and those of an object are joined."""
        counts = self.first[rows + 1] - self.first[rows]
        rings = _ranges(self.first[rows], counts)
        sizes = self.rings[rings + 1] - self.rings[rings]
        start = _ranges(self.rings[rings], sizes)
        last = sizes.cumsum() - 1
        after = start + 1
        after[last] = self.rings[rings]  # the last point goes on to the first
        owner = np.repeat(np.arange(len(rings)), sizes)
        begin, end = (self.points[at].astype(np.float64) for at in (start, after))
        return Outlines(begin, end, owner, np.repeat(np.arange(len(rows)), counts), len(rows))


@dataclass(frozen=True)
class Annotations:
    """What a COCO file says of I images and their A objects; the objects of an image follow each other.

    folder: where the images lie. names: of their files in it. sizes: int32 [I, 2] (height, width). ids: int64 [I] of
    the images. first: int64 [I + 1] the first object of each. boxes: float32 [A, 4] (x1, y1, x2, y2) in pixels.
    labels: int32 [A] classes. crowd: bool [A]. numbers: int64 [A] ids of the annotations. areas: float32 [A] square
    pixels, as the file says; NaN where it does not, of an object with a mask. shapes: None where masks are not wanted,
    and of panoptic annotations. segments: of those,
    all of them: their masks are in PNGs, and `numbers` are the segments' ids, which differ within an image only.
    """

    file: Path
    folder: Path
    names: tuple[str, ...]
    sizes: NDArray[np.int32]
    ids: NDArray[np.int64]
    first: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    numbers: NDArray[np.int64]
    areas: NDArray[np.float32]
    shapes: Shapes | None
    segments: Segments | None = None

    def size(self, image: int) -> tuple[int, int]:
        """(height, width) of an image, as the file says."""
        height, width = self.sizes[image].tolist()
        return height, width

    def rows(self, image: int) -> NDArray[np.int64]:
        """The objects of an image that can be told apart: places in the arrays, in the order of `truth`."""
        every = np.arange(self.first[image], self.first[image + 1])
        return np.asarray(every[~self.crowd[every]], np.int64)

    def relabelled(self, table: NDArray[np.int64]) -> "Annotations":
        """The same with the labels table[labels]; objects that get a negative one are left out."""
        labels = table[self.labels].astype(np.int32)
        keep = np.flatnonzero(labels >= 0)
        if len(keep) == len(labels):
            return replace(self, labels=labels)
        return replace(
            self,
            first=np.searchsorted(keep, self.first).astype(np.int64),
            boxes=self.boxes[keep],
            labels=labels[keep],
            crowd=self.crowd[keep],
            numbers=self.numbers[keep],
            areas=self.areas[keep],
            shapes=None if self.shapes is None else self.shapes.select(keep),
        )

    def truth(self, image: int) -> Truth:
        """The objects of an image; of panoptic annotations `truth_of_map` gives them."""
        rows, every = self.rows(image), slice(self.first[image], self.first[image + 1])
        boxes, shapes, size = self.boxes[rows], self.shapes, self.size(image)

        def masks(keep: NDArray[np.int64]) -> "Crops":
            assert shapes is not None  # else nobody is given this function
            return shapes.crops(rows[keep], boxes[keep], size)

        return Truth(
            boxes,
            self.labels[rows].astype(np.int64),
            self.boxes[every][self.crowd[every]],
            size,
            masks if shapes is not None else None,
        )


def _starts(lengths: Iterable[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1, ... `counts[0]` of them, then those of the next."""
    total = int(counts.sum())
    return np.asarray(np.arange(total) + np.repeat(starts - (counts.cumsum() - counts), counts), np.int64)


def _woven(coded: NDArray[np.bool_], runs: "Crops", drawn: "Crops") -> "Crops":
    """Both in the order that `coded` tells."""
    import torch

    from torchfpn.ops.masks import Crops

    parts: list[Any] = [None] * len(coded)
    windows = runs.windows.new_zeros(len(coded), 4)
    for crops, places in ((runs, np.flatnonzero(coded)), (drawn, np.flatnonzero(~coded))):
        windows[places] = crops.windows
        starts = crops.starts().tolist()
        for i, place in enumerate(places):
            parts[place] = crops.pixels[starts[i] : starts[i + 1]]
    return Crops(windows, torch.cat(parts), runs.size)
