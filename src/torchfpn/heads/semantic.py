"""The semantic branch of Panoptic FPN (Kirillov et al. 2019, section 3.1 and figure 3): maps -> class logits.

P5 --[conv-norm-ReLU-x2] x 3--+
P4 --[conv-norm-ReLU-x2] x 2--+
P3 --[conv-norm-ReLU-x2] x 1--+-- sum --1x1--> x4 --> logits
P2 --[conv-norm-ReLU]---------+
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from torchfpn.errors import ConfigError
from torchfpn.heads.classify import classifier, enlarger
from torchfpn.nn.containers import Chain, Concat, Parallel, Sum
from torchfpn.nn.layers import Norm, conv_norm_act
from torchfpn.types import Level


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
