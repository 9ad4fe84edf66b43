"""The values that flow between the pieces: levels, maps, batches, results. No behaviour beyond len, index and to.

Shapes: B images, C channels or bands, K classes, H x W pixels.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchfpn.recipe import IGNORE as IGNORE

Maps = tuple[Tensor, ...]  # [B, C_i, H / s_i, W / s_i], finest first, always
Size = tuple[int, int]  # (height, width) in pixels


class Level(NamedTuple):
    """The whole contract between two pieces: what one map of a tuple looks like."""

    channels: int
    stride: int  # input pixels per cell


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    images: [B, C, H, W] float, raw values as in the files, NaN where there is none (nodata, padding).
    sizes: the true (height, width) of each image, before padding; the padding is at the right and the bottom.
    targets: semantic: [B, H, W] int64, 0-based class indices, `IGNORE` where nothing is known; None: no truth.
    names: where each image came from, for messages.
    """

    images: Tensor
    sizes: list[Size]
    targets: Any = None
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`."""
        targets = self.targets.to(device, non_blocking=True) if isinstance(self.targets, Tensor) else self.targets
        return replace(self, images=self.images.to(device, non_blocking=True), targets=targets)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, for a DataLoader with pin_memory."""
        targets = self.targets.pin_memory() if isinstance(self.targets, Tensor) else self.targets
        return replace(self, images=self.images.pin_memory(), targets=targets)


@dataclass(frozen=True)
class Semantic:
    """A class for every pixel of one image.

    labels: [H, W] int64, 0-based class indices, `IGNORE` where the image holds no data.
    scores: [H, W] float32, probability of that class, 0..1; 0 where the image holds no data.
    """

    labels: Tensor
    scores: Tensor

    def to(self, device: torch.device | str) -> "Semantic":
        """The same result on `device`."""
        return Semantic(self.labels.to(device), self.scores.to(device))
