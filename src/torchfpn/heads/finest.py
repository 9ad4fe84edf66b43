"""The lightest semantic head: class logits from the finest map alone.

(P3 .. P5 are not read)
P2 --3x3--1x1-- x4 --> logits
"""

from collections.abc import Sequence

from torch import nn

from torchfpn.heads.classify import classifier, enlarger
from torchfpn.nn.containers import Chain, Pick
from torchfpn.nn.layers import Norm, conv_norm_act
from torchfpn.types import Level


class FinestHead(Chain):
    """Maps -> logits [B, num_classes, H, W] of the first map, H and W its size times its stride.

    Of an FPN that map knows every level through the top-down path; build it with ``FPN(levels, outputs=1)``, so that no
    output is made that nobody reads. PANet's finest map comes before its bottom-up path, which would be dead.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        num_classes: int,
        channels: int = 128,
        *,
        norm: Norm = "batch",
        dropout: float = 0.0,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        width, stride = levels[0]
        self.num_classes = num_classes
        self.finest = Pick(0)
        self.refine = conv_norm_act(width, channels, norm=norm)
        if dropout:
            self.dropout = nn.Dropout2d(dropout)
        self.classify = classifier(channels, num_classes)
        if stride > 1:
            self.enlarge = enlarger(stride, align_corners=align_corners)
