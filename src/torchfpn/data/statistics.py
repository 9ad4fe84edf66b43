"""Statistics of a split: pixels and objects of each class, class weights.

How often each class occurs, and the weights of the loss that follow from it.

How many objects there are, of which classes and sizes: exact counts over some images.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.config import DatasetConfig
from torchfpn.data.parallel import Watch, each, unwatched
from torchfpn.data.reading import burning, pieces, read_pair, refuse_objects
from torchfpn.data.splits import Pair
from torchfpn.errors import ConfigError, DataError, nearest
from torchfpn.io.formats import is_vector
from torchfpn.recipe import IGNORE

METHODS = ("median-frequency", "sqrt-median-frequency", "inverse", "enet")


@dataclass(frozen=True)
class ClassCounts:
    """Exact counts over some label images, one number per class.

    pixels: of the class. images: that hold it. around: labelled pixels of those images, whatever their class.
    ignored: pixels that are not labelled or hold no data. files: images in all.
    """

    pixels: tuple[int, ...]
    images: tuple[int, ...]
    around: tuple[int, ...]
    ignored: int = 0
    files: int = 0

    @classmethod
    def empty(cls, classes: int) -> "ClassCounts":
        """Nothing counted yet."""
        none = (0,) * classes
        return cls(none, none, none)

    @classmethod
    def of(cls, target: NDArray[np.uint8], classes: int) -> "ClassCounts":
        """Of one image of class indices [H, W]."""
        return cls.of_bins(bins(target), classes)

    @classmethod
    def of_bins(cls, counts: NDArray[np.int64], classes: int) -> "ClassCounts":
        """Of one image, from the pixels of each index [256]; an image read by windows has the sum of theirs."""
        pixels = counts[:classes]
        around = np.where(pixels > 0, pixels.sum(), 0)
        return cls(_ints(pixels), _ints(pixels > 0), _ints(around), int(counts[IGNORE]), 1)

    def __add__(self, other: "ClassCounts") -> "ClassCounts":
        """Of both."""
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
        """Of each class in the labelled pixels; 0 where nothing is labelled."""
        return [n / max(self.labelled, 1) for n in self.pixels]


def class_counts(dataset: DatasetConfig, split: str = "train", *, watch: Watch = unwatched) -> ClassCounts:
    """The counts of a split as the loss will see it: pixels without image data count as ignored.

    Raises:
        DataError: a file that cannot be used, or polygons of which none is drawn on an image. ConfigError: a dataset of
            objects.
    """
    refuse_objects(dataset)
    classes = len(dataset.classes)
    total, image = ClassCounts.empty(classes), np.zeros(IGNORE + 1, np.int64)
    pairs = dataset.pairs(split)
    parts = pieces(dataset, pairs)
    counted = each(lambda piece: bins(read_pair(dataset, piece.pair, piece.window).target), parts, watch)
    for piece, after, counts in zip(parts, [*parts[1:], None], counted, strict=True):
        image += counts
        if after is None or after.window is None or after.pair is not piece.pair:
            total, image = total + ClassCounts.of_bins(image, classes), np.zeros_like(image)
    _refuse_undrawn(dataset, split, pairs, total)
    return total


def _refuse_undrawn(dataset: DatasetConfig, split: str, pairs: list[Pair], counts: ClassCounts) -> None:
    """Refuses labels from polygons that leave nothing but background.

    Raises:
        DataError: with the likely reason.
    """
    background = dataset.polygons.background
    files = list(dict.fromkeys(pair.label for pair in pairs if pair.label is not None and is_vector(pair.label)))
    drawn = counts.labelled - (0 if background is None else counts.pixels[background])
    if files and not drawn:
        reason = burning().why_unmet(dataset, files[0], [pair for pair in pairs if pair.label == files[0]])
        raise DataError(f'no polygon is drawn on an image of the split "{split}"; {reason}', file=files[0])


def bins(target: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[256]: the pixels of each class index."""
    return np.bincount(target.ravel(), minlength=IGNORE + 1).astype(np.int64)


def class_weights(counts: ClassCounts, method: str = "median-frequency") -> list[float]:
    """A weight for each class, larger for rarer ones. p is the share of the class in the labelled pixels.

    * median-frequency: median(f) / f, where f is the share of the class in the images that hold it, and the median is
      over the classes that occur (Eigen and Fergus 2015, "Predicting Depth, Surface Normals and Semantic Labels").
    * sqrt-median-frequency: the square root of that, a milder correction.
    * inverse: 1 / (K p), where K classes occur; every class then weighs as much in all.
    * enet: 1 / ln(1.02 + p), between 1.4 and 50 (Paszke et al. 2016, "ENet").

    A class that does not occur gets 0: it cannot be learnt, and no formula gives it a finite weight worth having.

    Raises:
        ConfigError: an unknown method, or nothing labelled at all.
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


def _ints(values: NDArray[Any]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _summed(some: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(some, others, strict=True))


SIZES = ("small", "medium", "large")

_BOUNDS = (32.0**2, 96.0**2)  # square pixels of the box, as COCO has them


@dataclass(frozen=True)
class ObjectCounts:
    """The objects of some images.

    objects: of each class. holding: images that hold the class. sizes: small (below 32 x 32 pixels), medium (below 96 x
    96), large. crowds: areas of objects nobody told apart. images: in all; empty: those without an object. least, most:
    of the square roots of areas, in pixels; 0 without objects. dropped: labels left out. scattered: images of
    which the only object is a number in several separate parts; parts: of those images.
    """

    objects: tuple[int, ...]
    holding: tuple[int, ...]
    sizes: tuple[int, int, int] = (0, 0, 0)
    crowds: int = 0
    images: int = 0
    empty: int = 0
    least: float = 0.0
    most: float = 0.0
    dropped: int = 0
    scattered: int = 0
    parts: int = 0

    @classmethod
    def none(cls, classes: int) -> "ObjectCounts":
        """Nothing counted yet."""
        return cls((0,) * classes, (0,) * classes)

    @classmethod
    def of(
        cls, boxes: NDArray[np.float64], labels: NDArray[np.int64], classes: int, *, crowds: int = 0
    ) -> "ObjectCounts":
        """Of one image. boxes: [N, 4] (x1, y1, x2, y2) in pixels, as the image shows them. labels: [N]."""
        counts = np.bincount(labels, minlength=classes)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        place = np.bincount(np.searchsorted(_BOUNDS, areas, side="right"), minlength=3).tolist()
        return cls(
            tuple(int(n) for n in counts),
            tuple(int(n > 0) for n in counts),
            (place[0], place[1], place[2]),
            crowds,
            1,
            int(len(boxes) == 0),
            float(np.sqrt(areas.min())) if len(areas) else 0.0,
            float(np.sqrt(areas.max())) if len(areas) else 0.0,
        )

    @property
    def total(self) -> int:
        """Objects of all classes."""
        return sum(self.objects)

    def __add__(self, other: "ObjectCounts") -> "ObjectCounts":
        """Of both."""
        few = [one.least for one in (self, other) if one.total]
        small, medium, large = (a + b for a, b in zip(self.sizes, other.sizes, strict=True))
        return ObjectCounts(
            tuple(a + b for a, b in zip(self.objects, other.objects, strict=True)),
            tuple(a + b for a, b in zip(self.holding, other.holding, strict=True)),
            (small, medium, large),
            self.crowds + other.crowds,
            self.images + other.images,
            self.empty + other.empty,
            min(few, default=0.0),
            max(self.most, other.most),
            self.dropped + other.dropped,
            self.scattered + other.scattered,
            self.parts + other.parts,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "objects": self.total,
            "objects_of_class": list(self.objects),
            "images_with_class": list(self.holding),
            "images_without_objects": self.empty,
            "crowds": self.crowds,
            **dict(zip(SIZES, self.sizes, strict=True)),
            "least_side": self.least,
            "largest_side": self.most,
        }
