"""Levels coarser than the backbone's: P6 by pooling (Lin et al. 2017), P6 and P7 by convolution (RetinaNet).

They are pieces that follow a pyramid: ``chain(fpn=FPN(levels), extra=PoolLevel(fpn.levels))``.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import nn

from torchfpn.nn.containers import Chain, Parallel
from torchfpn.nn.layers import linear_conv
from torchfpn.types import Level, Maps


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
