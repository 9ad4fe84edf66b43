"""The feature pyramid network of Lin et al. 2017: lateral 1x1, top-down sum, smoothing 3x3.

C5 --lateral----------------------> top ----smooth--> P5
                                     |  x2
C4 --lateral-----------------------> + -----smooth--> P4
                                     |  x2
C3 --lateral-----------------------> + -----smooth--> P3
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Chain, Parallel, Pick
from torchfpn.nn.layers import linear_conv
from torchfpn.types import Level, Maps


class TopDown(nn.Module):
    """Adds every map, enlarged to the next finer one, into it. No weights.

    Enlarges by nearest neighbour to the size of the finer map, so odd sizes need no padding.
    """

    def forward(self, xs: Maps) -> Maps:
        """Maps of one width, finest first -> sums, finest first."""
        merged = [xs[-1]]
        for x in reversed(xs[:-1]):
            merged.append(F.interpolate(merged[-1], size=x.shape[-2:], mode="nearest").add_(x))
        return tuple(reversed(merged))


class FPN(Chain):
    """Maps C2..C5 -> P2..P5 of `channels` each (Lin et al. 2017, section 3 and figure 3).

    Equals `torchvision.ops.FeaturePyramidNetwork` bit for bit with the same weights. `smooth=False` leaves out the
    3x3 convolutions, as segmentation models that convolve every level anyway do. outputs: how many maps are given, the
    finest ones, all of which know every level; by default as many as come in.
    """

    def __init__(
        self, levels: Sequence[Level], channels: int = 256, *, smooth: bool = True, outputs: int | None = None
    ) -> None:
        if not levels or channels < 1:
            raise ConfigError(
                f"{len(levels)} levels, {channels} channels", field="pyramid", allowed="at least one each"
            )
        given = len(levels) if outputs is None else outputs
        if not 1 <= given <= len(levels):
            raise ConfigError(f"{outputs}", field="outputs", allowed=f"1 to {len(levels)}")
        super().__init__()
        self.lateral = Parallel(linear_conv(level.channels, channels, 1) for level in levels)
        self.top_down = TopDown()
        if given < len(levels):
            self.finest = Pick(range(given))
        if smooth:
            self.smooth = Parallel(linear_conv(channels, channels, 3) for _ in range(given))
        self._levels = tuple(Level(channels, level.stride) for level in levels[:given])

    @property
    def levels(self) -> tuple[Level, ...]:
        """Channels and stride of each map given, finest first."""
        return self._levels
