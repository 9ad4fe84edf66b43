"""How many objects there are, of which classes and sizes: exact counts over some images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZES = ("small", "medium", "large")
_BOUNDS = (32.0**2, 96.0**2)  # square pixels of the box, as COCO has them


@dataclass(frozen=True)
class ObjectCounts:
    """The objects of some images.

    objects: of each class. holding: images that hold the class. sizes: small (below 32 x 32 pixels), medium (below 96 x
    96), large. crowds: areas of objects nobody told apart. images: in all; empty: those without an object. least, most:
    of the square roots of areas, in pixels; 0 without objects. dropped: labels left out, see `Truth`. scattered: images
    of which the only object is a number in several separate parts; parts: of those images.
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
