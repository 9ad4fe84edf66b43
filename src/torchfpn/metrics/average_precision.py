"""AP and AR of detections and masks, as COCO counts them: collected image by image, computed at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from torchfpn.errors import ConfigError, ShapeError, require
from torchfpn.metrics.coco_eval import evaluated
from torchfpn.metrics.image_record import ImageRecord, Shown, record
from torchfpn.metrics.object_matches import ImageMatches, matches
from torchfpn.metrics.precisions import LIMITS, Precisions
from torchfpn.ops.instances import Instances
from torchfpn.ops.masks import Crops
from torchfpn.types import Objects


class AveragePrecision:
    """How good the objects found in images are, of boxes, and with `masks` of masks, too.

    Memory follows the number of objects, not their size: masks are kept as run lengths. Oracle: pycocotools' and
    faster-coco-eval's evaluation of the same objects as COCO files.

    Args:
        classes: their names.
        masks: both sides have masks.
        most: detections of each image and class that AP counts; COCO's 100, or more.

    Raises:
        ConfigError: no class, `most` below 100, or the package that counts is not installed: said before the first
            image is predicted, not after the last.
    """

    def __init__(self, classes: Sequence[str], *, masks: bool = False, most: int = LIMITS[-1]) -> None:
        if not classes:
            raise ConfigError("no classes", field="classes")
        if len(set(classes)) < len(classes):
            raise ConfigError(", ".join(classes)[:200], field="classes", allowed="each name once")
        if most < LIMITS[-1]:
            raise ConfigError(f"{most}", field="most", allowed=f"{LIMITS[-1]} or more detections")
        require("objects", "the score of objects")
        self.classes, self.masks, self.most = tuple(classes), masks, most
        self._records: list[ImageRecord] = []

    def __len__(self) -> int:
        return len(self._in_order())

    def update(
        self,
        found: Instances,
        truth: Objects,
        *,
        areas: ArrayLike | None = None,
        crowd_labels: ArrayLike | None = None,
        crowd_masks: Crops | None = None,
        number: int | None = None,
    ) -> None:
        """One image; both sides in its pixels.

        Args:
            found: what a model says, in any order, on any device.
            truth: the objects; those of an image without any are none.
            areas: [N] of the true objects in square pixels, as their file says, which decide what is small; None: of
                their masks, or else boxes.
            crowd_labels: [M] the class of each of `truth.crowds`; None: each is of every class.
            crowd_masks: of each of them; None: their boxes.
            number: of the image. Images are counted in that order, and one that two processes saw once.

        Raises:
            ShapeError: masks that are not there, or not one area or class for each. DataError: labels that are no
            class, boxes or scores that are not finite.
        """
        self.append(
            record(
                found,
                truth,
                classes=len(self.classes),
                masks=self.masks,
                most=self.most,
                areas=areas,
                crowd_labels=crowd_labels,
                crowd_masks=crowd_masks,
                number=number,
            )
        )

    def append(self, image: ImageRecord) -> None:
        """An image whose record is made already."""
        self._records.append(image)

    def state(self) -> dict[str, Any]:
        """All that was seen, as lists and arrays, to be sent to another process."""
        records = [r._asdict() | {"truth": r.truth._asdict(), "found": r.found._asdict()} for r in self._records]
        return {"classes": list(self.classes), "masks": self.masks, "most": self.most, "records": records}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Adds what another one has seen.

        Raises:
            ShapeError: it is of other classes, masks or `most`.
        """
        mine, other = self._kind(), (list(state["classes"]), state["masks"], state["most"])
        if other != mine:
            raise ShapeError(f"average precision of {other}", allowed=f"classes, masks and most of {mine}")
        for each in state["records"]:
            sides = {name: Shown(**each[name]) for name in ("truth", "found")}
            self._records.append(ImageRecord(**{**each, **sides}))

    def compute(self) -> Precisions:
        """The scores of all images so far; NaN where there is nothing to score.

        Raises:
            ConfigError: faster-coco-eval is not installed.
        """
        records, count = self._in_order(), len(self.classes)
        boxes = evaluated(records, count, masks=False, most=self.most)
        masks = evaluated(records, count, masks=True, most=self.most) if self.masks else None
        crowded = sum(_largest(each) > self.most for each in records)
        return Precisions(self.classes, len(records), boxes, masks, self.most, crowded)

    def matches(self) -> list[ImageMatches]:
        """Of each image so far, which detections are an object at an IoU of .5: of masks, or of boxes.

        Raises:
            ConfigError: faster-coco-eval is not installed.
        """
        return [matches(each, masks=self.masks) for each in self._in_order()]

    def _in_order(self) -> list[ImageRecord]:
        """Images with a number by it, each once, then the others as they came."""
        numbered = {each.number: each for each in self._records if each.number is not None}
        rest = [each for each in self._records if each.number is None]
        return [numbered[number] for number in sorted(numbered)] + rest

    def _kind(self) -> tuple[list[str], bool, int]:
        return list(self.classes), self.masks, self.most


def _largest(image: ImageRecord) -> int:
    """Objects of the class that the image has most of."""
    labels = image.truth.labels[~image.crowd]
    return int(np.bincount(labels).max()) if len(labels) else 0
