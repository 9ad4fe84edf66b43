"""One sample on its way to a batch: image, target or objects; collating.

One image with its labels, on the way from a file to a batch.

One image with its objects, on the way from a file to a batch.

Samples to a batch: padded at the right and the bottom with what means "nothing here".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchfpn.recipe import IGNORE
from torchfpn.types import Batch, Objects


@dataclass(frozen=True)
class Sample:
    """An image and its labels.

    image: [C, H, W] float32, raw values, NaN in every band of a pixel without data. target: [H, W] int64, 0-based
    class indices, `IGNORE` where nothing is labelled and wherever the image is NaN. name: of the file.

    Before augmentation the image may still have the type of its file, the target be uint8, and `valid` [H, W] say
    where there is data.
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
    def may_miss(self) -> bool:
        """Whether pixels may be without data."""
        return self.valid is not None or self.image.is_floating_point()

    def finished(self) -> "Sample":
        """The same sample as float32 and int64, in memory of its own, NaN and `IGNORE` where there is no data."""
        image = self.image.to(torch.float32, copy=True)
        target = self.target.to(torch.int64, copy=True)
        if self.may_miss:
            missing = image.isnan().any(0) if self.valid is None else ~self.valid
            image.masked_fill_(missing, torch.nan)
            target.masked_fill_(missing, IGNORE)
        return Sample(image, target, self.name)


@dataclass(frozen=True)
class ObjectSample:
    """An image and its objects.

    image: [C, H, W] float32, raw values, NaN in every band of a pixel without data. objects: in its pixels. name: of
    the file.
    """

    image: Tensor
    objects: Objects
    name: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]


def without_gaps(image: Tensor) -> Tensor:
    """[C, H, W] float32 with NaN in every band of a pixel where one has it."""
    return image.masked_fill_(image.isnan().any(0), torch.nan)


def collate(samples: Sequence[Sample] | Sequence[ObjectSample]) -> Batch:
    """A `Batch` of [B, C, H, W] images, NaN where padded, and their targets.

    Of classes of pixels: [B, H, W], `IGNORE` where padded. Of objects: a list, one `Objects` an image. H and W are the
    largest of the samples; `sizes` keeps the true ones.
    """
    sizes = [sample.size for sample in samples]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    images = _padded([sample.image for sample in samples], (height, width), torch.nan)
    targets = [sample.objects if isinstance(sample, ObjectSample) else sample.target for sample in samples]
    maps = [target for target in targets if isinstance(target, Tensor)]
    padded = _padded(maps, (height, width), IGNORE) if maps else targets
    return Batch(images, sizes, padded, [sample.name for sample in samples])


def _padded(parts: list[Tensor], size: tuple[int, int], value: float) -> Tensor:
    if all(part.shape[-2:] == size for part in parts):
        return torch.stack(parts)
    out = parts[0].new_full((len(parts), *parts[0].shape[:-2], *size), value)
    for row, part in zip(out, parts, strict=True):
        row[..., : part.shape[-2], : part.shape[-1]] = part
    return out
