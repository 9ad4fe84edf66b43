"""The feature pyramid network of Lin et al. 2017, and coarser levels (P6, P7) that follow a pyramid."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Chain, Parallel, Pick, chain
from torchfpn.nn.layers import Norm, linear_conv, norm_layer
from torchfpn.types import Level, Maps

Mode = Literal["nearest", "bilinear"]


class TopDown(nn.Module):
    """Adds every map, enlarged to the next finer one, into it. No weights.

    Enlarges to the size of the finer map, so odd sizes need no padding; mode: "nearest", the paper's, or "bilinear".
    """

    def __init__(self, mode: Mode = "nearest", *, align_corners: bool = False) -> None:
        super().__init__()
        if mode not in ("nearest", "bilinear"):
            raise ConfigError(f'"{mode}"', field="mode", allowed='"nearest" or "bilinear"')
        self.mode, self.align_corners = mode, align_corners if mode == "bilinear" else None

    def forward(self, xs: Maps) -> Maps:
        """Maps of one width, finest first -> sums, finest first."""
        merged = [xs[-1]]
        for x in reversed(xs[:-1]):
            size = x.shape[-2:]
            enlarged = F.interpolate(merged[-1], size=size, mode=self.mode, align_corners=self.align_corners)
            merged.append(enlarged.add_(x))
        return tuple(reversed(merged))

    def extra_repr(self) -> str:
        """How maps are enlarged, where that is not the paper's way."""
        return "" if self.mode == "nearest" else f"{self.mode}, align_corners={self.align_corners}"


class FPN(Chain):
    """Maps C2..C5 -> P2..P5 of `channels` each (Lin et al. 2017, section 3 and figure 3).

        C5 --lateral 1x1--> top ----smooth 3x3--> P5
                             |  x2
        C4 --lateral 1x1---> + -----smooth 3x3--> P4
                             |  x2
        C3 --lateral 1x1---> + -----smooth 3x3--> P3

    Equals `torchvision.ops.FeaturePyramidNetwork` bit for bit with the same weights. `smooth=False` leaves out the
    3x3 convolutions, as segmentation models that convolve every level anyway do; "finer" has them on all maps but the
    coarsest, to which nothing was added (kuangliu's). outputs: how many maps are given, the finest ones, all of which
    know every level; by default as many as come in. mode, align_corners: of the top-down path. bias: of all
    convolutions. norm: behind each, which then has no bias (torchvision's second detectors).
    """

    def __init__(
        self,
        levels: Sequence[Level],
        channels: int = 256,
        *,
        smooth: bool | Literal["finer"] = True,
        outputs: int | None = None,
        mode: Mode = "nearest",
        align_corners: bool = False,
        bias: bool = True,
        norm: Norm = "none",
    ) -> None:
        if not levels or channels < 1:
            raise ConfigError(
                f"{len(levels)} levels, {channels} channels", field="pyramid", allowed="at least one each"
            )
        if smooth not in (True, False, "finer"):
            raise ConfigError(f"{smooth!r}", field="smooth", allowed='True, False or "finer"')
        given = len(levels) if outputs is None else outputs
        if not 1 <= given <= len(levels):
            raise ConfigError(f"{outputs}", field="outputs", allowed=f"1 to {len(levels)}")
        super().__init__()
        self.lateral = Parallel(_conv(level.channels, channels, 1, bias, norm) for level in levels)
        self.top_down = TopDown(mode, align_corners=align_corners)
        if given < len(levels):
            self.finest = Pick(range(given))
        if smooth:
            smoothed = given - (smooth == "finer" and given == len(levels))
            convs: list[nn.Module] = [_conv(channels, channels, 3, bias, norm) for _ in range(smoothed)]
            self.smooth = Parallel([*convs, *(nn.Identity() for _ in range(given - smoothed))])
        self._levels = tuple(Level(channels, level.stride) for level in levels[:given])

    @property
    def levels(self) -> tuple[Level, ...]:
        """Channels and stride of each map given, finest first."""
        return self._levels


def _conv(inputs: int, outputs: int, kernel: int, bias: bool, norm: Norm) -> nn.Module:
    if norm == "none":
        return linear_conv(inputs, outputs, kernel, bias=bias)
    return chain(conv=linear_conv(inputs, outputs, kernel, bias=False), norm=norm_layer(norm, outputs))


class PoolLevel(nn.Module):
    """(P2, ..., P5) -> (P2, ..., P5, P6): every second cell of the coarsest map. No weights.

    Lin et al. 2017, section 4.1, footnote 2; equals torchvision's `LastLevelMaxPool`.
    """

    def __init__(self, levels: Sequence[Level]) -> None:
        super().__init__()
        self.levels = (*levels, Level(levels[-1].channels, 2 * levels[-1].stride))

    def forward(self, xs: Maps) -> Maps:
        """Maps -> one more, half the size of the last, rounded up."""
        return (*xs, F.max_pool2d(xs[-1], kernel_size=1, stride=2))


class ConvLevels(Parallel):
    """(P3, ..., P5) -> (P3, ..., P5, P6, P7): 3x3 convolutions of stride 2, a ReLU before each but the first.

    Lin et al. 2017b (RetinaNet), footnote 2, on P5 as later codebases do; `FromBackbone` makes them start at C5 as the
    paper has it. Equals torchvision's `LastLevelP6P7` with the same weights.
    """

    def __init__(self, levels: Sequence[Level], channels: int = 256, *, count: int = 2) -> None:
        widths = [levels[-1].channels, *([channels] * count)]
        super().__init__(linear_conv(a, b, 3, stride=2) for a, b in pairwise(widths))
        stride = levels[-1].stride
        self.levels = (*levels, *(Level(channels, stride * 2 ** (i + 1)) for i in range(count)))

    def forward(self, xs: Maps) -> Maps:
        """Maps -> `count` more, each half the size of the one before, rounded up."""
        for i, conv in enumerate(self):
            xs = (*xs, conv(F.relu(xs[-1]) if i else xs[-1]))
        return xs


class FromBackbone(nn.Module):
    """Backbone maps -> the pyramid's maps, and behind them those that `extra` adds to the backbone's own."""

    def __init__(self, pyramid: Chain, extra: PoolLevel | ConvLevels) -> None:
        super().__init__()
        self.pyramid, self.extra = pyramid, extra
        added = 1 if isinstance(extra, PoolLevel) else len(extra)  # the pyramid may give more or fewer than it is given
        self.levels = (*pyramid.levels, *extra.levels[-added:])

    def forward(self, xs: Maps) -> Maps:
        """C3..C5 -> P3..P5 and P6, P7 made of C5."""
        maps: Maps = self.pyramid(xs)
        return (*maps, *self.extra(xs)[len(xs) :])
