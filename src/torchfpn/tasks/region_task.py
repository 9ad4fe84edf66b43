"""The Task of detection and instance segmentation: two stages, and between them a sample of boxes against the targets.

raw images --scaling--> model --> Regions --+--> criterion(., choice)  -> {name: loss}
                  choose ^                  +--> postprocess(., sizes) -> [Instances, ...]
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from torchfpn.data.resize import times
from torchfpn.errors import DataError, ShapeError
from torchfpn.heads.propose import Limits
from torchfpn.nn.detector import as_sizes
from torchfpn.ops.pillow_resize import is_8_bit, resize_8_bit, resize_float, rounded_size
from torchfpn.tasks.finite import Named, check_regions
from torchfpn.tasks.task import Task
from torchfpn.types import Batch, Regions, Size

MOST_RESIZED = 2**24  # pixels that a model's rule enlarges an image to: as many as are read whole by default
TRAINING = Limits(2000, 2000)  # proposals that are sampled from; twice what is looked at in inference


class RegionTask(Task):
    """As `Task`, of a model that gives `Regions`; results are `Instances`."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each term of the criterion by name; the loss is their sum. Images without objects are learnt from as well.

        Boxes are sampled with torch's global generator on the CPU.

        Raises:
            ShapeError: no Batch, one without targets, or of another number of them than images.
        """
        self._check_batch(batch)
        targets = batch.targets
        if not isinstance(targets, Sequence) or len(targets) != len(batch.images):
            found = f"{len(targets)} targets" if isinstance(targets, Sequence) else f"targets {targets}"
            raise ShapeError(found, allowed=f"a list of {len(batch.images)} Objects, one for each image")
        choice = self.criterion.joints(targets)  # type: ignore[operator]  # a RegionCriterion
        images, _ = self._normalized(batch.images)
        regions: Regions = self.model(
            images,
            as_sizes(batch.sizes, images),
            choose=choice.choose,
            detect=choice.detect,
            limits=TRAINING,
        )
        losses: dict[str, Tensor] = self.criterion(regions, choice)
        return losses

    def _predict(self, raw: Tensor, sizes: Sequence[Size], names: Sequence[Named] = ()) -> list[Any]:
        weight = next(self.model.parameters())
        device, dtype = weight.device, weight.dtype
        images, _ = self.normalize(raw.to(device))
        rule = self.recipe.rules.get("resize")
        if rule is None:
            regions: Regions = self.model(images.to(dtype), as_sizes(sizes, images))
            check_regions(regions, names)
            return list(self.postprocess(regions, sizes))
        found: list[Any] = []
        each = names or [(f"image {number} of {len(raw)}", None) for number in range(1, len(raw) + 1)]
        for name, own, image, (height, width) in zip(each, raw, images, sizes, strict=True):  # by factors of their own
            resized = self._resized(own[:, :height, :width], image[None, :, :height, :width], rule)
            size = (resized.shape[-2], resized.shape[-1])
            regions = self.model(resized.to(dtype), as_sizes([size], images))
            check_regions(regions, [name])
            found += self.postprocess(regions, [size], [(height, width)])
        return found

    def _resized(self, raw: Tensor, image: Tensor, rule: dict[str, Any]) -> Tensor:
        """What the network is shown [1, C, h, w] of an image as it is in the file [C, H, W], and normalised.

        Raises:
            DataError: the rule enlarges it beyond all bounds: a narrow image to a large shorter side.
        """
        check_resized((raw.shape[-2], raw.shape[-1]), rule)
        if rule.get("pillow") and is_8_bit(raw):
            size = rounded_size((raw.shape[-2], raw.shape[-1]), rule["shorter"], rule["longer"])
            normalised: Tensor = self.normalize(resize_8_bit(raw, size)[None].to(image.device))[0]
            return normalised
        return resize(image, **rule)


def check_resized(size: Size, rule: dict[str, Any]) -> None:
    """Passes an image of `size` (height, width) that the rule shrinks, or enlarges to `MOST_RESIZED` pixels at most.

    Raises:
        DataError: it becomes larger than that.
    """
    factor = _factor(size, rule["shorter"], rule["longer"])
    height, width = (round(side * factor) for side in size)
    if factor > 1 and height * width > MOST_RESIZED:
        raise DataError(
            f"{size[1]:,} x {size[0]:,} pixels, which the model's rule enlarges to {width:,} x {height:,}",
            field="rules.resize",
            allowed=f"at most {MOST_RESIZED:,} pixels",
            hint="cut the image into less narrow ones, or take a model with a smaller rule",
        )


def _factor(size: Size, shorter: int | None, longer: int | None) -> float:
    return min([side / of for side, of in ((shorter, min(size)), (longer, max(size))) if side], default=1.0)


def resize(
    image: Tensor, shorter: int | None, longer: int | None, *, antialias: bool = False, pillow: bool = False
) -> Tensor:
    """[1, C, H, W] with a shorter side of `shorter` pixels, or a longer one of `longer` where that is less.

    shorter, longer: None: any. antialias: as in our own training; without, as torchvision's detectors see their images.
    pillow: of a size rounded as detectron2 rounds it; both sides are given then.
    """
    height, width = image.shape[-2:]
    if pillow and shorter and longer:
        return resize_float(image, rounded_size((height, width), shorter, longer))
    factor = _factor((height, width), shorter, longer)
    if antialias:
        size = times((height, width), factor)
        return F.interpolate(image, size, mode="bilinear", antialias=True) if size != (height, width) else image
    return F.interpolate(image, scale_factor=factor, mode="bilinear", recompute_scale_factor=True, align_corners=False)
