"""One object, as YOLO, LabelMe and Pascal VOC files say it, and as COCO writes it."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torchfpn.errors import DataError
from torchfpn.types import Size

MARK = "converted_from"  # in the `info` of COCO files that `--init` makes of other formats


MAX_BYTES = 2**28  # of one file of labels; LabelMe's may hold the image itself


class BadObject(NamedTuple):
    """An object that cannot be used. label: its class, if that is known."""

    line: str
    label: str | None = None


@dataclass(frozen=True)
class LabelledObject:
    """An object. box: (x1, y1, x2, y2) in pixels, cut to the image. rings: polygons of x, y, x, y, ...

    runs: run lengths of COCO, in place of polygons. crowd: not used in training or scores.
    """

    label: str
    box: tuple[float, float, float, float]
    rings: tuple[tuple[float, ...], ...] = ()
    runs: dict[str, Any] | None = None
    crowd: bool = False

    def record(self) -> dict[str, Any]:
        """Box, area and mask as COCO has them."""
        x1, y1, x2, y2 = (round(value, 4) for value in self.box)
        width, height = round(x2 - x1, 4), round(y2 - y1, 4)
        area = min(sum(map(_area, self.rings)), width * height) if self.rings else width * height
        found = {"bbox": [x1, y1, width, height], "area": round(area, 4), "iscrowd": int(self.crowd)}
        if self.rings:
            found["segmentation"] = [[round(value, 4) for value in ring] for ring in self.rings]
        return found if self.runs is None else found | {"segmentation": self.runs}


class Format(Protocol):
    """A kind of label files."""

    name: str
    suffix: str
    background: bool  # an image without a file is one without objects, not one that nobody has labelled

    def names(self) -> list[str] | None:
        """The classes in their order, if files beside the labels list them."""

    def matches(self, path: Path) -> bool:
        """Whether the file is of this kind, by its content; an empty one is not."""

    def read(self, path: Path, size: Size) -> tuple[list[LabelledObject], list[BadObject]]:
        """The objects of an image of (height, width) `size`.

        Raises:
            DataError: the file as a whole cannot be used.
        """

    def notes(self) -> list[str]:
        """What people should know of how the files were read."""


def box_object(label: str, corners: Sequence[float], size: Size, *, crowd: bool = False) -> LabelledObject:
    """An object of which only the box (x1, y1, x2, y2) is known.

    Raises:
        DataError: no finite numbers, or no area within the image.
    """
    return LabelledObject(label, _inside(corners, size), crowd=crowd)


def polygon_object(label: str, rings: Sequence[Sequence[float]], size: Size) -> LabelledObject:
    """An object of polygons.

    Raises:
        DataError: fewer than three points, no finite numbers, or no area within the image.
    """
    for ring in rings:
        if len(ring) < 6:
            raise DataError(f"{len(ring) // 2} points; 3 at least")
        if not all(map(math.isfinite, ring)):
            raise DataError("a coordinate that is no number")
        if not _area(ring):
            raise DataError("a polygon without an area")
    xs = [x for ring in rings for x in ring[::2]]
    ys = [y for ring in rings for y in ring[1::2]]
    box = _inside((min(xs), min(ys), max(xs), max(ys)), size)
    return LabelledObject(label, box, tuple(tuple(ring) for ring in rings))


def read_small_file(path: Path) -> bytes:
    """Of a small file.

    Raises:
        DataError: it cannot be opened, or is too large.
    """
    try:
        with path.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size  # Python allocates what it is asked to read
            data = handle.read(min(size, MAX_BYTES) + 1)
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror or error})", file=path) from error
    if len(data) > MAX_BYTES:
        raise DataError("too large", file=path, allowed=f"at most {MAX_BYTES >> 20} MiB")
    return data


def _inside(corners: Sequence[float], size: Size) -> tuple[float, float, float, float]:
    """What the image holds of a box.

    Raises:
        DataError: nothing, or it reaches out by more than half of itself and a pixel.
    """
    if not all(map(math.isfinite, corners)):
        raise DataError("a coordinate that is no number")
    x1, y1, x2, y2 = corners
    height, width = size
    cut = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if x2 <= x1 or y2 <= y1:
        raise DataError(f"a box without an area ({x1:.6g}, {y1:.6g}, {x2:.6g}, {y2:.6g})")
    wide, tall = cut[2] - cut[0], cut[3] - cut[1]
    if wide <= 0 or tall <= 0 or x2 - x1 > 2 * wide + 1 or y2 - y1 > 2 * tall + 1:
        where = f"({x1:.6g}, {y1:.6g}, {x2:.6g}, {y2:.6g})"
        raise DataError(f"a box {where} outside of the image of {width} x {height}")
    return cut


def _area(ring: Sequence[float]) -> float:
    """In square pixels, by the shoelace formula."""
    xs, ys = ring[::2], ring[1::2]
    after = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(math.fsum(x * v - u * y for x, y, u, v in after)) / 2
