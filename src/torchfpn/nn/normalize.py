"""Raw pixel values to what a network sees: per-band offset and scale, and zero where there is no data."""

from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.errors import ShapeError
from torchfpn.recipe import LARGEST_VALUE, Scaling


class Normalize(nn.Module):
    """raw [B, C, H, W] of any dtype -> float32 ``(raw - offset) / scale``; no data becomes 0, the mean of its band.

    No data is NaN, infinity, a value that is beyond `LARGEST_VALUE` when it is scaled, or the value `nodata`; with
    `together`, that value only where every band holds it (in unsigned data it is mostly 0, which a dark pixel can have
    in one band as well). Offset and scale are buffers that are not saved: they belong to the recipe.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, scaling: Scaling, *, nodata: float | None = None, together: bool = False) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor(scaling.offset).view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(scaling.scale).view(-1, 1, 1), persistent=False)
        self.scaling, self.nodata, self.together = scaling, nodata, together

    def _apply(self, fn: Any, recurse: bool = True) -> "Normalize":
        """Moves to devices, and stays float32 where the task is cast to less: raw values are of up to 16 bits."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.offset.dtype != torch.float32:
            for name, numbers in (("offset", self.scaling.offset), ("scale", self.scaling.scale)):
                self._buffers[name] = torch.tensor(numbers, device=self.offset.device).view(-1, 1, 1)
        return self

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Raw -> (images [B, C, H, W] float32, valid [B, H, W] bool: every band holds data).

        Raises:
            ShapeError: when there are not as many bands as scales.
        """
        if raw.ndim != 4 or raw.shape[1] != len(self.offset):
            raise ShapeError(f"images {list(raw.shape)}", allowed=f"[B, {len(self.offset)}, H, W], one scale per band")
        raw = raw.float()
        known = raw.isfinite()
        if self.nodata is not None:
            missing = raw == self.nodata
            known = known & ~(missing.all(1, keepdim=True) if self.together else missing)
        scaled = (raw - self.offset) / self.scale
        known = known & (scaled.abs() <= LARGEST_VALUE)
        return torch.where(known, scaled, 0.0), known.all(1)

    def overflowing(self, raw: Tensor) -> Tensor:
        """Raw [B, C, H, W] -> [B, H, W] bool: where a value that is not NaN is beyond `LARGEST_VALUE` when scaled."""
        scaled = (raw.float() - self.offset) / self.scale
        return (~(scaled.abs() <= LARGEST_VALUE) & ~raw.isnan()).any(1)

    def extra_repr(self) -> str:
        """The numbers."""
        return f"offset={self.offset.flatten().tolist()}, scale={self.scale.flatten().tolist()}"
