"""Heads of semantic segmentation, maps -> class logits: Panoptic FPN's, a concatenating one, and the finest map's."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Chain, Concat, Parallel, Pick, Sum, chain
from torchfpn.nn.layers import Norm, conv_norm_act, linear_conv
from torchfpn.types import Level

Classifier = Literal["conv3x3", "bottleneck"]


def classifier(channels: int, num_classes: int, kernel: int = 1) -> nn.Conv2d:
    """The last convolution, features -> one logit per class, near zero at the start so that no class is favoured.

    Raises:
        ConfigError: no class at all.
    """
    if num_classes < 1:
        raise ConfigError(f"{num_classes}", field="num_classes", allowed="1 or more")
    conv = nn.Conv2d(channels, num_classes, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def enlarger(factor: int, *, align_corners: bool = False, mode: str = "bilinear") -> nn.Module:
    """Map -> the map `factor` times as high and wide; nothing to do for a factor of 1."""
    if factor == 1:
        return nn.Identity()
    return nn.Upsample(scale_factor=factor, mode=mode, align_corners=align_corners if mode == "bilinear" else None)


def upscaler(
    level: Level, channels: int, stride: int, *, norm: Norm = "batch", align_corners: bool = False
) -> nn.Sequential:
    """Map of one level -> `channels` at `stride`: one conv-norm-ReLU-x2 per doubling, one without x2 if there is none.

    Raises:
        ConfigError: when the strides are not a power of two apart.
    """
    ratio = level.stride // stride
    if stride * ratio != level.stride or ratio & (ratio - 1):
        raise ConfigError(f"strides {level.stride} and {stride}", field="head", allowed="levels a power of two apart")
    stages: list[nn.Module] = []
    width = level.channels
    for _ in range(max(1, ratio.bit_length() - 1)):
        stage = conv_norm_act(width, channels, norm=norm)
        if ratio > 1:
            stage.add_module("up", enlarger(2, align_corners=align_corners))
        stages.append(stage)
        width = channels
    return nn.Sequential(*stages)


class SemanticHead(Chain):
    """Maps -> logits [B, num_classes, H, W], H and W the finest map's times its stride.

    The semantic branch of Panoptic FPN (Kirillov et al. 2019, section 3.1 and figure 3):

        P5 --[conv-norm-ReLU-x2] x 3--+
        P4 --[conv-norm-ReLU-x2] x 2--+
        P3 --[conv-norm-ReLU-x2] x 1--+-- sum --1x1--> x4 --> logits
        P2 --[conv-norm-ReLU]---------+

    norm: "batch" by default: a statistic that does not look at the whole map, so tiles equal the whole image; "group"
    as in the paper. dropout: rate of spatial dropout before the classifier. align_corners: False as in detectron2,
    the oracle; True as in segmentation_models.pytorch. merge: "concat" puts the levels side by side instead of
    adding them (that library's merge_policy="cat").
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
        merge: Literal["sum", "concat"] = "sum",
    ) -> None:
        super().__init__()
        if merge not in ("sum", "concat"):
            raise ConfigError(f'"{merge}"', field="merge", allowed='"sum" or "concat"')
        stride = levels[0].stride
        self.num_classes = num_classes
        self.scale = Parallel(
            upscaler(level, channels, stride, norm=norm, align_corners=align_corners) for level in levels
        )
        if merge == "sum":
            self.sum = Sum()
        else:
            self.concat = Concat()
        if dropout:
            self.dropout = nn.Dropout2d(dropout)
        self.classify = classifier(channels * (1 if merge == "sum" else len(levels)), num_classes)
        if stride > 1:
            self.enlarge = enlarger(stride, align_corners=align_corners)


class ConcatHead(Chain):
    """Maps -> logits [B, num_classes, H, W], H and W the finest map's times its stride.

        P5 --3x3--3x3-- x8 --+
        P4 --3x3--3x3-- x4 --+
        P3 --3x3--3x3-- x2 --+-- concat --classifier-- x4 --> logits
        P2 --3x3--3x3--------+

    The head of FAIR's entry to COCO-Stuff 2017 (Kirillov et al. 2019, section 4.2) and of robosat, which has no norm,
    no ReLU and no bias (norm="none", act=False, bias=False) and enlarges by mode="nearest".

    classifier: "conv3x3", or "bottleneck": 1x1, norm, ReLU, spatial dropout, 1x1. dropout: rate of spatial dropout
    (whole maps are dropped) before the last convolution. bias: of the 3x3 convolutions of each level where neither norm
    nor ReLU follows.
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


class FinestHead(Chain):
    """Maps -> logits [B, num_classes, H, W] of the first map, H and W its size times its stride.

    Only P2 is used: P2 --3x3--1x1-- x4 --> logits. In an FPN it has context from every level through the top-down path;
    build the pyramid with ``FPN(levels, outputs=1)``, so that no unused output is made. PANet's finest map comes before
    its bottom-up path, which would be unused.
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
