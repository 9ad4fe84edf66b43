"""Annotations of a COCO file as arrays, small in memory and quick to pickle; checks of boxes, areas and masks."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.labels.coco_records import Category, Segments
from torchfpn.data.labels.ground_truth import GroundTruth, ObjectLabels
from torchfpn.errors import DataError
from torchfpn.io.yaml_json import Flaw, Keys, shown
from torchfpn.ops.rle import from_rle, run_lengths, spelled
from torchfpn.types import Size
from torchfpn.vector.instance_masks import Outlines, draw_masks

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops


Rings = list[NDArray[np.float32]]  # of one object, each [P, 2]

Shape = Rings | str | None  # polygons, run lengths as a string, or nothing


@dataclass(frozen=True)
class Shapes:
    """The masks of A objects: polygons or run lengths.

    Attributes:
        points: float32 [P, 2] of all polygons.
        rings: int64 [R + 1] first point of each ring, and the end.
        first: int64 [A + 1] first ring of each object.
        text: uint8, the run lengths of all objects in COCO's compressed form.
        ends: int64 [A + 1] first byte of each object in `text`.
    """

    points: NDArray[np.float32]
    rings: NDArray[np.int64]
    first: NDArray[np.int64]
    text: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, shapes: Sequence[Shape]) -> "Shapes":
        """The shapes as arrays."""
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
        """Masks of the objects `rows` [N] in an image of (height, width) `size`. boxes: [N, 4], for tiny objects."""
        coded = self.ends[rows + 1] > self.ends[rows]
        if not coded.any():
            return draw_masks(self._outlines(rows), boxes, size)
        texts = [self.text[self.ends[i] : self.ends[i + 1]].tobytes() for i in rows[coded]]
        runs = from_rle([{"size": list(size), "counts": text} for text in texts], size)
        if coded.all():
            return runs
        return _interleave(coded, runs, draw_masks(self._outlines(rows[~coded]), boxes[~coded], size))

    def select(self, rows: NDArray[np.int64]) -> "Shapes":
        """The shapes of the objects `rows` [N]."""
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
        """Rings as edges; every ring is a polygon, and an object is the union of its polygons."""
        counts = self.first[rows + 1] - self.first[rows]
        rings = _ranges(self.first[rows], counts)
        sizes = self.rings[rings + 1] - self.rings[rings]
        start = _ranges(self.rings[rings], sizes)
        last = sizes.cumsum() - 1
        after = start + 1
        after[last] = self.rings[rings]  # the last point connects to the first
        owner = np.repeat(np.arange(len(rings)), sizes)
        begin, end = (self.points[at].astype(np.float64) for at in (start, after))
        return Outlines(begin, end, owner, np.repeat(np.arange(len(rows)), counts), len(rows))


@dataclass(frozen=True)
class Annotations:
    """The A objects of I images in a COCO file as arrays, those of an image in a row.

    Attributes:
        file: the COCO file.
        folder: of the images.
        names: paths of the images in the folder.
        sizes: int32 [I, 2] (height, width).
        ids: int64 [I] of the images.
        first: int64 [I + 1] first object of each image.
        boxes: float32 [A, 4] (x1, y1, x2, y2) in pixels.
        labels: int32 [A] class indices.
        crowd: bool [A].
        numbers: int64 [A] ids of the annotations; of panoptic segments, unique in an image alone.
        areas: float32 [A] square pixels from the file; NaN if it has none for an object with a mask.
        shapes: masks; None without masks, and in panoptic annotations.
        segments: of panoptic annotations, whose masks are in PNGs.
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
        """(height, width) of an image in the file."""
        height, width = self.sizes[image].tolist()
        return height, width

    def rows(self, image: int) -> NDArray[np.int64]:
        """Indices of the objects of an image without crowds, in the order of `truth`."""
        every = np.arange(self.first[image], self.first[image + 1])
        return np.asarray(every[~self.crowd[every]], np.int64)

    def relabel(self, table: NDArray[np.int64]) -> "Annotations":
        """The annotations with labels table[labels], without objects whose new label is negative."""
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

    def truth(self, image: int) -> GroundTruth:
        """The ground truth of an image; see `panoptic_ground_truth` for panoptic annotations."""
        rows, every = self.rows(image), slice(self.first[image], self.first[image + 1])
        boxes, shapes, size = self.boxes[rows], self.shapes, self.size(image)

        def masks(keep: NDArray[np.int64]) -> "Crops":
            assert shapes is not None  # given to objects with masks alone
            return shapes.crops(rows[keep], boxes[keep], size)

        return GroundTruth(
            boxes,
            self.labels[rows].astype(np.int64),
            self.boxes[every][self.crowd[every]],
            size,
            masks if shapes is not None else None,
        )

    def objects(self, image: int) -> ObjectLabels:
        """All objects of an image, crowds included, as they were read with `crowd_masks`."""
        rows, shapes, size = np.arange(self.first[image], self.first[image + 1]), self.shapes, self.size(image)
        boxes, areas = self.boxes[rows], self.areas[rows].astype(np.float64)
        areas = np.where(np.isnan(areas), (boxes[:, 2:] - boxes[:, :2]).prod(1), areas)

        def masks(keep: NDArray[np.int64]) -> "Crops":
            assert shapes is not None  # read with masks
            return shapes.crops(rows[keep], boxes[keep], size)

        return ObjectLabels(boxes, self.labels[rows].astype(np.int64), self.crowd[rows], areas, masks, size)


def _starts(lengths: Iterable[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenated ranges: `counts[i]` integers from `starts[i]`."""
    total = int(counts.sum())
    return np.asarray(np.arange(total) + np.repeat(starts - (counts.cumsum() - counts), counts), np.int64)


def _interleave(coded: NDArray[np.bool_], runs: "Crops", drawn: "Crops") -> "Crops":
    """Masks in the order of `coded` [N]: `runs` where it is true, else `drawn`."""
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


BEYOND = 1.0  # pixels that a box may reach beyond its image: tools round differently

Box = tuple[float, float, float, float]

_MAX_AREA = 1.01  # limit of the area of an object, times that of its box (widened by a pixel)


class BadValueError(Exception):
    """A bad value. keys: path from the record to it. line: what is wrong."""

    def __init__(self, keys: Keys, line: str) -> None:
        super().__init__(line)
        self.keys, self.line = keys, line


class ClippedBox(NamedTuple):
    """A box clipped to its image, and the message about it."""

    box: Box
    line: str


class PartialShape(NamedTuple):
    """The good polygons of an object, and the errors of the others."""

    rings: Rings
    bad: tuple[BadValueError, ...]


def check_box(value: Any, size: Size) -> Box | ClippedBox:
    """[x, y, width, height] -> (x1, y1, x2, y2), clipped to the image of (height, width) `size`.

    Returns a `ClippedBox` if more than `BEYOND` pixels are clipped.

    Raises:
        BadValueError: not four finite numbers, no area, or outside of the image.
    """
    if not is_box(value):
        raise BadValueError(("bbox",), f"{shown(value)}; expected [x, y, width, height]")
    x, y, w, h = map(_float, value)
    if not math.isfinite(x + y + w + h):
        raise BadValueError(("bbox",), f"{shown(value)}; expected finite numbers")
    if w <= 0 or h <= 0:
        raise BadValueError(("bbox",), f"{shown(value)}; expected width and height above 0")
    height, width = size
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    text = f"{shown(value)} %s the image of {width} x {height}"
    if x2 <= x1 or y2 <= y1:
        raise BadValueError(("bbox",), text % "lies outside of")
    if min(x, y) < -BEYOND or x + w > width + BEYOND or y + h > height + BEYOND:
        return ClippedBox((x1, y1, x2, y2), text % "reaches out of")
    return x1, y1, x2, y2


def is_box(value: Any) -> bool:
    """Whether a value is a list of four numbers."""
    return isinstance(value, list) and len(value) == 4 and set(map(type, value)) <= {int, float}


def check_area(value: Any, box: Box) -> float:
    """The area in square pixels; None means that of the box.

    Raises:
        BadValueError: no number from 0, or larger than the box.
    """
    w, h = box[2] - box[0], box[3] - box[1]
    if value is None:
        return w * h
    if type(value) not in (int, float) or not 0 <= _float(value) < math.inf:
        raise BadValueError(("area",), f"{shown(value)}; expected a number from 0")
    if value > _MAX_AREA * (w + 1 + BEYOND) * (h + 1 + BEYOND):
        raise BadValueError(("area",), f"{shown(value)} in a box of {w:.6g} x {h:.6g}")
    return float(value)


def check_shape(value: Any, size: Size, box: Box) -> Shape | PartialShape:
    """Polygons as arrays of points, or run lengths as a string; a `PartialShape` if some polygons are bad.

    Raises:
        BadValueError: neither, bad run lengths, or no good polygon.
    """
    if isinstance(value, Mapping):
        return _runs(value, size)
    if not isinstance(value, list) or not value:
        raise BadValueError(("segmentation",), f"{shown(value)}; expected polygons or run lengths")
    if not isinstance(value[0], list):
        raise BadValueError(
            ("segmentation",), f"{shown(value)}; expected a list of polygons: [[x, y, x, y, x, y, ...], ...]"
        )
    return _rings(value, size, box)


def are_fractions(boxes: Sequence[Sequence[float]]) -> bool:
    """Whether boxes (x, y, width, height) are fractions of their image: all lie within 0..1."""
    inside = all(min(x, y) >= 0 and x + w <= 1 and y + h <= 1 for x, y, w, h in boxes)
    return inside and any(not float(value).is_integer() for box in boxes for value in box)


def _rings(value: list[Any], size: Size, box: Box) -> Rings | PartialShape:
    rings: Rings = []
    bad: list[BadValueError] = []
    extent = [math.inf, math.inf, -math.inf, -math.inf]
    for i, ring in enumerate(value):
        try:
            low_x, low_y, high_x, high_y = _bounds(ring, i, size)
        except BadValueError as error:
            bad.append(error)
            continue
        extent = [min(extent[0], low_x), min(extent[1], low_y), max(extent[2], high_x), max(extent[3], high_y)]
        rings.append(np.array(ring, np.float32).reshape(-1, 2))
    if not rings:
        raise bad[0]
    if extent[0] > box[2] or extent[1] > box[3] or extent[2] < box[0] or extent[3] < box[1]:
        raise BadValueError(("segmentation",), f"lies outside of its bbox {[round(v, 3) for v in box]}")
    return PartialShape(rings, tuple(bad)) if bad else rings


def _bounds(ring: Any, number: int, size: Size) -> Box:
    """The bounds of a polygon. In plain Python: numpy is slow on ten numbers.

    Raises:
        BadValueError: no list of pairs of numbers, fewer than 3 points, or a point far outside of the image.
    """
    keys: Keys = ("segmentation", number)
    if not isinstance(ring, list) or not set(map(type, ring)) <= {int, float}:
        raise BadValueError(keys, f"{shown(ring)}; expected a list of numbers")
    if len(ring) % 2:
        raise BadValueError(keys, f"{len(ring)} numbers; expected pairs of x and y")
    if len(ring) < 6:
        raise BadValueError(keys, f"{len(ring) // 2} points; expected 3 at least")
    if any(map(_is_nan, ring)):
        raise BadValueError(keys, "a coordinate that is no number (NaN)")
    xs, ys = ring[::2], ring[1::2]
    bounds = min(xs), min(ys), max(xs), max(ys)
    height, width = size
    if bounds[0] < -width or bounds[1] < -height or bounds[2] > 2 * width or bounds[3] > 2 * height:
        line = f"the coordinate {_float(max(bounds, key=abs)):.6g} in an image of {width} x {height}"
        raise BadValueError(keys, line)
    return bounds


def _is_nan(value: float) -> bool:
    return value != value


def _runs(value: Mapping[str, Any], size: Size) -> str:
    try:
        lengths = run_lengths(value, size)
    except DataError as error:
        keys: Keys = ("segmentation", error.field) if error.field else ("segmentation",)
        raise BadValueError(keys, error.said) from None
    if not lengths[1::2].any():
        raise BadValueError(("segmentation", "counts"), "a mask without a pixel")
    counts = value["counts"]
    return counts if isinstance(counts, str) else spelled(value)


def _float(value: float) -> float:
    """The number as float; infinity for integers that are too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


class CocoOptions(NamedTuple):
    """How a COCO file is read.

    Attributes:
        root: of the dataset.
        folder: of the images, below the root.
        masks: read masks as well as boxes.
        files: check that the images exist.
        maps: folder of the PNGs of panoptic annotations; None: those are refused.
        panoptic: the file must be panoptic; else its content decides.
        crowds: read annotations marked `iscrowd: 1` as objects.
        stuff: of panoptic annotations, stuff is a class as well.
        crowd_masks: read masks of crowds, too.
    """

    root: Path
    folder: Path
    masks: bool
    files: bool = True
    maps: Path | None = None
    panoptic: bool = False
    crowds: bool = False
    stuff: bool = False
    crowd_masks: bool = False


@dataclass(frozen=True)
class Coco:
    """A COCO file that was read: good annotations, and flaws of the others.

    Attributes:
        annotations: good ones; labels are indices of `categories`.
        categories: of the file, or classes of the dataset.
        flaws: of the file.
        roots: categories without annotations that are supercategories of others; also in `categories`, unless another
            category has the same name.
        repaired: by index in `flaws`, what was repaired of an annotation that is kept: a box beyond its image is
            clipped, a bad polygon among good ones left out, a bad area replaced by that of the box.
        lost_by_category: numbers of lost and of all annotations of each category that loses some.
    """

    annotations: Annotations
    categories: tuple[Category, ...]
    flaws: tuple[Flaw, ...]
    roots: tuple[Category, ...] = ()
    repaired: Mapping[int, str] = field(default_factory=dict)
    lost_by_category: Mapping[Category, tuple[int, int]] = field(default_factory=dict)

    @property
    def dropped(self) -> dict[str, int]:
        """Counts of what was left out or repaired: {"images": 1, "annotations": 3, "boxes cut": 2}."""
        found = Counter(self.repaired.get(i, _kind(flaw)) for i, flaw in enumerate(self.flaws) if flaw.keys)
        return dict(sorted(found.items()))


def _kind(flaw: Flaw) -> str:
    """The kind of record with the flaw: "segments", or the list of the file."""
    return "segments" if len(flaw.keys) > 3 and flaw.keys[2] == "segments_info" else str(flaw.keys[0])
