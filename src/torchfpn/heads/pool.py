"""What the maps of a pyramid hold inside of boxes, as small maps of one size (RoIAlign; He et al. 2017, section 3)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchfpn.errors import ConfigError
from torchfpn.ops.roi_align import pool_levels
from torchfpn.ops.roi_levels import roi_levels
from torchfpn.types import Level, Maps


class RoIPool(nn.Module):
    """Maps, boxes [B, K, 4] -> [B * K, C, size, size]: each box from the map that fits its size. No weights.

    levels: of the maps that are read; coarser ones may follow them. sampling: points a bin along each side, 0: as many
    as cells. aligned: pixel centres at halves, as detectron2 has them; torchvision's detectors do not. inside: see
    `torchfpn.ops.roi_levels`. Equals torchvision's `MultiScaleRoIAlign`.
    """

    def __init__(
        self, levels: Sequence[Level], size: int, *, sampling: int = 0, aligned: bool = True, inside: bool = False
    ) -> None:
        super().__init__()
        names = [math.log2(level.stride) for level in levels]
        if any(name != names[0] + i for i, name in enumerate(names)) or names[0] % 1:
            found = ", ".join(str(level.stride) for level in levels)
            raise ConfigError(f"strides {found}", field="pyramid", allowed="powers of two, each twice the one before")
        self.first, self.scales = int(names[0]), [1 / level.stride for level in levels]
        self.size, self.sampling, self.aligned, self.inside = size, sampling, aligned, inside

    def forward(self, maps: Maps, boxes: Tensor) -> Tensor:
        """[B, C, h, w] each, [B, K, 4] -> [B * K, C, size, size]."""
        images, rows = boxes.shape[:2]
        number = torch.arange(images, device=boxes.device, dtype=boxes.dtype)[:, None].expand(images, rows)
        rois = torch.cat([number[..., None], boxes], -1).flatten(0, 1)
        count = len(self.scales)
        levels = roi_levels(rois[:, 1:], first=self.first, last=self.first + count - 1, inside=self.inside)
        size = (self.size, self.size)
        return pool_levels(maps[:count], rois, levels, size, self.scales, self.sampling, self.aligned)

    def extra_repr(self) -> str:
        """Size, sampling, alignment."""
        sampling = "adaptive" if self.sampling == 0 else f"{self.sampling} x {self.sampling}"
        return f"{self.size} x {self.size}, P{self.first}..P{self.first + len(self.scales) - 1}, {sampling} samples" + (
            ", aligned" if self.aligned else ""
        )
