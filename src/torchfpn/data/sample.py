"""Samples on their way to a batch: an image with its target or its objects; collating."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchfpn.data.labels.segments import SegmentMap
from torchfpn.recipe import IGNORE
from torchfpn.types import Batch, Objects, PanopticTargets


@dataclass(frozen=True)
class Sample:
    """An image and the classes of its pixels.

    Before augmentation the image may have the dtype of its file, the target be uint8, and `valid` say where there is
    data; afterwards dtypes are as below and pixels without data are NaN.

    Attributes:
        image: [C, H, W] float32, raw values, NaN in every band of a pixel without data.
        target: [H, W] int64 class indices; `IGNORE` where nothing is labelled and where the image is NaN.
        name: of the file.
        valid: [H, W] bool, where there is data; None: everywhere, but for NaN in the image.
    """

    image: Tensor
    target: Tensor
    name: str = ""
    valid: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def may_have_nodata(self) -> bool:
        """Whether pixels may be without data."""
        return self.valid is not None or self.image.is_floating_point()

    def finalized(self) -> "Sample":
        """A copy as float32 and int64, with NaN and `IGNORE` where there is no data."""
        image = self.image.to(torch.float32, copy=True)
        target = self.target.to(torch.int64, copy=True)
        if self.may_have_nodata:
            missing = image.isnan().any(0) if self.valid is None else ~self.valid
            image.masked_fill_(missing, torch.nan)
            target.masked_fill_(missing, IGNORE)
        return Sample(image, target, self.name)


@dataclass(frozen=True)
class ObjectSample:
    """An image and its objects, and in panoptic datasets the classes of its pixels.

    Attributes:
        image: [C, H, W] float32, raw values, NaN in every band of a pixel without data.
        objects: in pixels of the image.
        name: of the file.
        semantic: [H, W] int64 class indices of things and stuff, `IGNORE` where unknown and where the image is NaN;
            None outside of panoptic datasets.
        segments: of panoptic samples without augmentation and resizing, the truth of `PanopticQuality`.
    """

    image: Tensor
    objects: Objects
    name: str = ""
    semantic: Tensor | None = None
    segments: SegmentMap | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]


def spread_nan(image: Tensor) -> Tensor:
    """[C, H, W] with NaN in every band of a pixel where one band is NaN."""
    return image.masked_fill_(image.isnan().any(0), torch.nan)


def ignore_nan(labels: Tensor, image: Tensor | None) -> Tensor:
    """Labels [H, W] with `IGNORE` where the image [C, H, W] is NaN; None: nowhere."""
    return labels if image is None else labels.masked_fill_(image[0].isnan(), IGNORE)


def collate(samples: Sequence[Sample] | Sequence[ObjectSample]) -> Batch:
    """Stacks samples, padded at the right and the bottom to the largest height and width.

    Returns:
        Images [B, C, H, W], NaN where padded; targets [B, H, W], `IGNORE` where padded, or a list of `Objects`, or in
        panoptic datasets `PanopticTargets` of both; `sizes` with the true (height, width) of each image; names.
    """
    sizes = [sample.size for sample in samples]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    images = _padded([sample.image for sample in samples], (height, width), torch.nan)
    names = [sample.name for sample in samples]
    objects = [sample for sample in samples if isinstance(sample, ObjectSample)]
    maps = [sample.semantic if isinstance(sample, ObjectSample) else sample.target for sample in samples]
    known = [labels for labels in maps if labels is not None]
    if not known:
        return Batch(images, sizes, [sample.objects for sample in objects], names)
    padded = _padded(known, (height, width), IGNORE)
    if not objects:
        return Batch(images, sizes, padded, names)
    segments = [sample.segments for sample in objects if sample.segments is not None]
    whole = segments if len(segments) == len(objects) else None
    return Batch(images, sizes, PanopticTargets(padded, [sample.objects for sample in objects], whole), names)


def _padded(parts: list[Tensor], size: tuple[int, int], value: float) -> Tensor:
    if all(part.shape[-2:] == size for part in parts):
        return torch.stack(parts)
    out = parts[0].new_full((len(parts), *parts[0].shape[:-2], *size), value)
    for row, part in zip(out, parts, strict=True):
        row[..., : part.shape[-2], : part.shape[-1]] = part
    return out
