"""The concatenating head of the COCO-Stuff 2017 entry by FAIR and of robosat: maps -> class logits.

P5 --3x3--3x3-- x8 --+
P4 --3x3--3x3-- x4 --+
P3 --3x3--3x3-- x2 --+-- concat --classifier-- x4 --> logits
P2 --3x3--3x3--------+
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from torchfpn.errors import ConfigError
from torchfpn.heads.classify import classifier, enlarger
from torchfpn.nn.containers import Chain, Concat, Parallel, chain
from torchfpn.nn.layers import Norm, conv_norm_act, linear_conv
from torchfpn.types import Level

Classifier = Literal["conv3x3", "bottleneck"]


class ConcatHead(Chain):
    """Maps -> logits [B, num_classes, H, W], H and W the finest map's times its stride.

    Described by Kirillov et al. 2019, section 4.2; robosat's has no norm, no ReLU and no bias (norm="none", act=False,
    bias=False) and enlarges by mode="nearest". classifier: "conv3x3", or "bottleneck": 1x1, norm, ReLU, spatial
    dropout, 1x1. dropout: rate of spatial dropout (whole maps are dropped) before the last convolution. bias: of the
    3x3 convolutions of each level where neither norm nor ReLU follows.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        num_classes: int,
        channels: int = 128,
        *,
        norm: Norm = "batch",
        act: bool = True,
        bias: bool = True,
        mode: Literal["bilinear", "nearest"] = "bilinear",
        classifier: Classifier = "conv3x3",
        dropout: float = 0.0,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        stride = levels[0].stride
        for level in levels:
            if level.stride % stride:
                found = f"strides {[level.stride for level in levels]}"
                raise ConfigError(found, field="head", allowed="multiples of the finest")
        self.num_classes = num_classes
        self.scale = Parallel(
            chain(
                conv1=_conv(level.channels, channels, norm, act, bias),
                conv2=_conv(channels, channels, norm, act, bias),
                up=enlarger(level.stride // stride, align_corners=align_corners, mode=mode),
            )
            for level in levels
        )
        self.concat = Concat()
        self.classify = _classify(classifier, len(levels) * channels, channels, num_classes, norm, dropout)
        if stride > 1:
            self.enlarge = enlarger(stride, align_corners=align_corners)


def _conv(in_channels: int, channels: int, norm: Norm, act: bool, bias: bool) -> nn.Module:
    if act and not bias and norm == "none":
        raise ConfigError("bias=False with activation", field="head", allowed='act=False, or norm="batch"')
    if act:
        return conv_norm_act(in_channels, channels, norm=norm)
    if norm != "none":
        raise ConfigError(f'norm="{norm}" without activation', field="head", allowed='act=True, or norm="none"')
    return linear_conv(in_channels, channels, 3, bias=bias)


def _classify(kind: Classifier, width: int, channels: int, num_classes: int, norm: Norm, dropout: float) -> Chain:
    drop = {"dropout": nn.Dropout2d(dropout)} if dropout else {}
    if kind == "conv3x3":
        return chain(**drop, conv=classifier(width, num_classes, 3))
    if kind == "bottleneck":
        return chain(
            reduce=conv_norm_act(width, channels, 1, norm=norm), **drop, conv=classifier(channels, num_classes)
        )
    raise ConfigError(f'"{kind}"', field="classifier", allowed='"conv3x3" or "bottleneck"')
