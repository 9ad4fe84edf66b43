"""Counts of the classes and objects of a split, and class weights for the loss."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.config import DatasetConfig, split_annotations
from torchfpn.data.labels.coco_annotations import Annotations
from torchfpn.data.labels.ground_truth import GroundTruth, clip_boxes
from torchfpn.data.labels.load import read_ground_truth
from torchfpn.data.parallel import Watch, map_threads, unwatched
from torchfpn.data.reading import (
    ImagePart,
    image_parts,
    mask_target,
    polygon_labels,
    read_pair,
    read_picture,
    require_semantic,
    whole_size,
)
from torchfpn.data.splits import Pair
from torchfpn.errors import ConfigError, DataError, nearest
from torchfpn.io.formats import is_vector
from torchfpn.recipe import IGNORE

METHODS = ("median-frequency", "sqrt-median-frequency", "inverse", "enet")

SIZES = ("small", "medium", "large")

_BOUNDS = (32.0**2, 96.0**2)  # square pixels of the box, as in COCO


@dataclass(frozen=True)
class ClassCounts:
    """Exact counts over label images, one number per class.

    Attributes:
        pixels: of the class.
        images: that contain the class.
        around: labelled pixels, of any class, of the images that contain the class.
        ignored: pixels that are not labelled or without data.
        files: all images.
    """

    pixels: tuple[int, ...]
    images: tuple[int, ...]
    around: tuple[int, ...]
    ignored: int = 0
    files: int = 0

    @classmethod
    def empty(cls, classes: int) -> "ClassCounts":
        """Counts of no image."""
        none = (0,) * classes
        return cls(none, none, none)

    @classmethod
    def of(cls, target: NDArray[np.uint8], classes: int) -> "ClassCounts":
        """Counts of one image of class indices [H, W]."""
        return cls.of_bins(count_indices(target), classes)

    @classmethod
    def of_bins(cls, counts: NDArray[np.int64], classes: int) -> "ClassCounts":
        """Counts of one image from the pixels of each class index [256], summed over its windows."""
        pixels = counts[:classes]
        around = np.where(pixels > 0, pixels.sum(), 0)
        return cls(_ints(pixels), _ints(pixels > 0), _ints(around), int(counts[IGNORE]), 1)

    def __add__(self, other: "ClassCounts") -> "ClassCounts":
        """Counts of both."""
        return ClassCounts(
            _summed(self.pixels, other.pixels),
            _summed(self.images, other.images),
            _summed(self.around, other.around),
            self.ignored + other.ignored,
            self.files + other.files,
        )

    @property
    def labelled(self) -> int:
        """Pixels of any class."""
        return sum(self.pixels)

    @property
    def shares(self) -> list[float]:
        """Fraction of each class in the labelled pixels; 0 if nothing is labelled."""
        return [n / max(self.labelled, 1) for n in self.pixels]


def class_counts(dataset: DatasetConfig, split: str = "train", *, watch: Watch = unwatched) -> ClassCounts:
    """Counts the pixels of each class in a split as the loss sees them: pixels without image data are ignored.

    Args:
        dataset: with labelled pixels.
        split: its name.
        watch: shows the progress.

    Raises:
        ConfigError: a dataset of objects alone.
        DataError: a file that cannot be used, or polygons of which none is drawn on an image.
    """
    if not dataset.is_panoptic:
        require_semantic(dataset)
    classes = len(dataset.classes)
    total, image = ClassCounts.empty(classes), np.zeros(IGNORE + 1, np.int64)
    pairs = dataset.pairs(split)
    annotations = split_annotations(dataset, split)
    parts = image_parts(dataset, pairs)
    counted = map_threads(lambda piece: _count_part(dataset, piece, annotations), parts, watch)
    for piece, after, counts in zip(parts, [*parts[1:], None], counted, strict=True):
        image += counts
        if after is None or after.window is None or after.pair is not piece.pair:
            total, image = total + ClassCounts.of_bins(image, classes), np.zeros_like(image)
    _refuse_undrawn(dataset, split, pairs, total)
    return total


def _count_part(dataset: DatasetConfig, part: ImagePart, annotations: Annotations | None) -> NDArray[np.int64]:
    """Pixels of each class index of an image or window, [256]."""
    if not dataset.is_panoptic:
        return count_indices(read_pair(dataset, part.pair, part.window).target)
    picture = read_picture(dataset, part.pair.image, part.window)
    size = whole_size(dataset, part.pair.image, picture, part.window)
    semantic = read_ground_truth(dataset, part.pair, size, annotations, part.window).semantic
    semantic = np.full(picture.size, IGNORE, np.uint8) if semantic is None else semantic
    return count_indices(mask_target(semantic, picture.valid))


def _refuse_undrawn(dataset: DatasetConfig, split: str, pairs: list[Pair], counts: ClassCounts) -> None:
    """Refuses labels from polygons that leave only background."""
    background = dataset.polygons.background
    files = list(dict.fromkeys(pair.label for pair in pairs if pair.label is not None and is_vector(pair.label)))
    drawn = counts.labelled - (0 if background is None else counts.pixels[background])
    if files and not drawn:
        reason = polygon_labels().explain_no_overlap(
            dataset, files[0], [pair for pair in pairs if pair.label == files[0]]
        )
        raise DataError(f'no polygon is drawn on an image of the split "{split}"; {reason}', file=files[0])


def count_indices(target: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels of each class index, [256]."""
    return np.bincount(target.ravel(), minlength=IGNORE + 1).astype(np.int64)


def class_weights(counts: ClassCounts, method: str = "median-frequency") -> list[float]:
    """A weight for each class, larger for rarer classes; 0 for a class that does not occur.

    With p the fraction of the class in the labelled pixels:

    * median-frequency: median(f) / f, where f is the fraction of the class in the images that contain it, and the
      median is over the classes that occur (Eigen and Fergus 2015, "Predicting Depth, Surface Normals and Semantic
      Labels").
    * sqrt-median-frequency: the square root of that, a milder correction.
    * inverse: 1 / (K p), where K classes occur, so that all classes have the same total weight.
    * enet: 1 / ln(1.02 + p), between 1.4 and 50 (Paszke et al. 2016, "ENet").

    Args:
        counts: of the training split.
        method: one of the four.

    Raises:
        ConfigError: an unknown method, or no labelled pixel.
    """
    if method not in METHODS:
        raise ConfigError(f'no method "{method}"', field="method", hint=nearest(method, METHODS))
    if counts.labelled == 0:
        raise ConfigError("no labelled pixel, so no weights", hint="look at the labels with fpn check")
    pixels = np.array(counts.pixels, dtype=np.float64)
    there = pixels > 0
    share = pixels / counts.labelled
    weights = np.zeros(len(pixels))
    if method == "enet":
        weights[there] = 1 / np.log(1.02 + share[there])
    elif method == "inverse":
        weights[there] = 1 / (there.sum() * share[there])
    else:
        frequency = pixels[there] / np.array(counts.around, dtype=np.float64)[there]
        weights[there] = np.median(frequency) / frequency
        if method == "sqrt-median-frequency":
            weights = np.sqrt(weights)
    return [float(w) for w in weights]


@dataclass(frozen=True)
class ObjectCounts:
    """Exact counts of objects over images.

    Attributes:
        objects: of each class.
        images_with_class: images that contain the class.
        sizes: small (below 32 x 32 pixels), medium (below 96 x 96) and large objects.
        crowds: areas of objects that are not told apart.
        images: all images.
        empty: images without an object.
        min_side: smallest square root of an area in pixels; 0 without objects.
        max_side: largest square root of an area in pixels.
        dropped: labels left out.
        scattered: images whose only object is a number in several separate parts.
        parts: the parts in those images.
        overlapping: of panoptic datasets, pixels on which several objects are labelled.
        hidden: of panoptic datasets, objects that others cover entirely; not counted in `objects`.
    """

    objects: tuple[int, ...]
    images_with_class: tuple[int, ...]
    sizes: tuple[int, int, int] = (0, 0, 0)
    crowds: int = 0
    images: int = 0
    empty: int = 0
    min_side: float = 0.0
    max_side: float = 0.0
    dropped: int = 0
    scattered: int = 0
    parts: int = 0
    overlapping: int = 0
    hidden: int = 0

    @classmethod
    def none(cls, classes: int) -> "ObjectCounts":
        """Counts of no image."""
        return cls((0,) * classes, (0,) * classes)

    @classmethod
    def of(
        cls, boxes: NDArray[np.float64], labels: NDArray[np.int64], classes: int, *, crowds: int = 0
    ) -> "ObjectCounts":
        """Counts of one image. boxes: [N, 4] (x1, y1, x2, y2) in pixels, clipped to it. labels: [N] class indices."""
        counts = np.bincount(labels, minlength=classes)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        place = np.bincount(np.searchsorted(_BOUNDS, areas, side="right"), minlength=3).tolist()
        return cls(
            _ints(counts),
            _ints(counts > 0),
            (place[0], place[1], place[2]),
            crowds,
            1,
            int(len(boxes) == 0),
            float(np.sqrt(areas.min())) if len(areas) else 0.0,
            float(np.sqrt(areas.max())) if len(areas) else 0.0,
        )

    @classmethod
    def of_truth(cls, truth: GroundTruth, classes: int) -> "ObjectCounts":
        """Counts of one image, of objects as far as they are on it."""
        boxes, _, shown = clip_boxes(truth.boxes.astype(np.float64), truth.size)
        crowds = clip_boxes(truth.crowds.astype(np.float64), truth.size)[0]
        areas = int((crowds[:, 2:] > crowds[:, :2]).all(1).sum())
        counts = cls.of(boxes[shown], truth.labels[shown], classes, crowds=areas)
        return replace(counts, dropped=truth.dropped, overlapping=truth.overlapping, hidden=truth.hidden)

    @property
    def total(self) -> int:
        """Objects of all classes."""
        return sum(self.objects)

    def __add__(self, other: "ObjectCounts") -> "ObjectCounts":
        """Counts of both."""
        few = [one.min_side for one in (self, other) if one.total]
        small, medium, large = (a + b for a, b in zip(self.sizes, other.sizes, strict=True))
        return ObjectCounts(
            _summed(self.objects, other.objects),
            _summed(self.images_with_class, other.images_with_class),
            (small, medium, large),
            self.crowds + other.crowds,
            self.images + other.images,
            self.empty + other.empty,
            min(few, default=0.0),
            max(self.max_side, other.max_side),
            self.dropped + other.dropped,
            self.scattered + other.scattered,
            self.parts + other.parts,
            self.overlapping + other.overlapping,
            self.hidden + other.hidden,
        )

    def to_dict(self) -> dict[str, Any]:
        """The counts as plain values for JSON."""
        return {
            "objects": self.total,
            "objects_of_class": list(self.objects),
            "images_with_class": list(self.images_with_class),
            "images_without_objects": self.empty,
            "crowds": self.crowds,
            **dict(zip(SIZES, self.sizes, strict=True)),
            "least_side": self.min_side,
            "largest_side": self.max_side,
        }


def _ints(values: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _summed(some: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(some, others, strict=True))
