"""The path aggregation network of Liu et al. 2018: a feature pyramid followed by a bottom-up path.

P5 ---------------------------------> + --3x3--> N5
                                      |  3x3, stride 2
P4 ---------------------> + --3x3--> N4
                          |  3x3, stride 2
P3 ---------> + --3x3--> N3
              |  3x3, stride 2
P2 --------> N2
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Chain, Parallel, chain
from torchfpn.nn.layers import Norm, linear_conv, norm_layer
from torchfpn.ops.resize import crop
from torchfpn.pyramids.fpn import FPN
from torchfpn.types import Level, Maps


class Merge(nn.Module):
    """(finer map N, map P) -> conv(P + shrink(N)) on P's grid: one step of the bottom-up path.

    shrink: 3x3 of stride 2 (of stride 1 where both have one stride); conv: 3x3.
    """

    def __init__(self, channels: int, ratio: int, *, norm: Norm = "none", act: bool = True) -> None:
        super().__init__()
        self.shrink = _conv(channels, ratio, norm, act)
        self.conv = _conv(channels, 1, norm, act)

    def forward(self, finer: Tensor, x: Tensor) -> Tensor:
        """Two maps of one width -> their merged map."""
        merged: Tensor = self.conv(x + crop(self.shrink(finer), x.shape[-2:]))
        return merged


class BottomUp(Parallel):
    """(P2, ..., P5) -> (N2, ..., N5): N2 = P2, and each next one is merged with the one before (`Merge`)."""

    def __init__(self, levels: Sequence[Level], *, norm: Norm = "none", act: bool = True) -> None:
        ratios = [b.stride // a.stride for a, b in pairwise(levels)]
        whole = all(b.stride == ratio * a.stride for ratio, (a, b) in zip(ratios, pairwise(levels), strict=True))
        if not whole or not set(ratios) <= {1, 2} or len({level.channels for level in levels}) > 1:
            raise ConfigError(
                f"levels {[tuple(level) for level in levels]}",
                field="pyramid",
                allowed="levels of one width, strides doubling from each to the next",
            )
        super().__init__(Merge(levels[0].channels, ratio, norm=norm, act=act) for ratio in ratios)

    def forward(self, xs: Maps) -> Maps:
        """Maps of one width, finest first -> as many, each knowing all."""
        outputs = [xs[0]]
        for merge, x in zip(self, xs[1:], strict=True):
            outputs.append(merge(outputs[-1], x))
        return tuple(outputs)


class PANet(Chain):
    """Maps C2..C5 -> N2..N5 of `channels` each, every one of which knows every level (Liu et al. 2018, section 3.1).

    norm, act: after each convolution of the bottom-up path. The paper has ReLU and no norm, the default; the authors'
    code has group norm and ReLU or neither; mmdetection's has neither. smooth: the 3x3 convolutions of the FPN.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        channels: int = 256,
        *,
        smooth: bool = True,
        norm: Norm = "none",
        act: bool = True,
    ) -> None:
        super().__init__()
        self.fpn = FPN(levels, channels, smooth=smooth)
        self.bottom_up = BottomUp(self.fpn.levels, norm=norm, act=act)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Channels and stride of each map given, finest first."""
        return self.fpn.levels


def _conv(channels: int, stride: int, norm: Norm, act: bool) -> nn.Module:
    conv = linear_conv(channels, channels, 3, stride=stride, bias=norm == "none")
    pieces: dict[str, nn.Module] = {"conv": conv}
    if norm != "none":
        pieces["norm"] = norm_layer(norm, channels)
    if act:
        pieces["act"] = nn.ReLU(inplace=True)
    return chain(**pieces) if len(pieces) > 1 else conv
