"""Samples to a batch: padded at the right and the bottom with what means "nothing here"."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchfpn.data.region_sample import RegionSample
from torchfpn.data.sample import Sample
from torchfpn.types import IGNORE, Batch


def collate(samples: Sequence[Sample] | Sequence[RegionSample]) -> Batch:
    """A `Batch` of [B, C, H, W] images, NaN where padded, and their targets.

    Of classes of pixels: [B, H, W], `IGNORE` where padded. Of objects: a list, one `Objects` an image. H and W are the
    largest of the samples; `sizes` keeps the true ones.
    """
    sizes = [sample.size for sample in samples]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    images = _padded([sample.image for sample in samples], (height, width), torch.nan)
    targets = [sample.objects if isinstance(sample, RegionSample) else sample.target for sample in samples]
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
