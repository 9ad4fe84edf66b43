"""A backbone taken apart into stages that can be run one by one, so that something can be done between them."""

from collections.abc import Iterable
from typing import Any

from timm.models import FeatureListNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import nn

from torchfpn.backbones.timm import TimmBackbone
from torchfpn.backbones.torchvision import TorchvisionBackbone
from torchfpn.nn.containers import Chain, Stages, chain

TUPLES = ("selecsls42", "selecsls42b", "selecsls60", "selecsls60b", "selecsls84")  # hand lists from stage to stage


def stages_of(body: nn.Module) -> Stages | None:
    """The modules of `body` as Stages, each fed with the one before: children c1, c2, ...

    The first is named by its stride 2**k, the others are counted. They share their weights with `body` and give all of
    its maps, picked or not, in its own layout. None where the network cannot be run so: its maps come from inside its
    blocks, it runs several resolutions side by side, or its maps have to be laid on the grid of their strides.
    """
    if isinstance(body, TorchvisionBackbone):
        return body.stages
    if not isinstance(body, TimmBackbone) or body.grid is not None:  # stages alone would not be on one grid
        return None
    features: Any = body.features
    groups = _groups(features)
    if groups is None or body.name in TUPLES:
        return None
    strides = features.feature_info.reduction()
    stages = Stages()
    for name, group in zip(_names(strides), groups, strict=True):
        stages.add_module(name, group)
    return stages


def _groups(features: Any) -> list[Chain] | None:
    """Runs of children, each up to the one whose output is a map."""
    if isinstance(features, FeatureListNet):
        return _cut(features.named_children(), [name for name in features if name in features.return_layers])
    if isinstance(features, EfficientNetFeatures | MobileNetV3Features) and features.feature_hooks is None:
        stem = [(name, child) for name, child in features.named_children() if name != "blocks"]
        blocks = [(f"block{i + 1}", block) for i, block in enumerate(features.blocks)]
        ends = ["block" + str(i) if i else stem[-1][0] for i in sorted(features._stage_out_idx)]
        return _cut([*stem, *blocks], ends)
    return None


def _cut(children: Iterable[tuple[str, nn.Module]], ends: list[str]) -> list[Chain]:
    rest = iter(list(children))
    groups = []
    for end in ends:
        group = {}
        for name, child in rest:
            group[name] = child
            if name == end:
                break
        groups.append(chain(**group))
    return groups


def _names(strides: list[int]) -> list[str]:
    """c1..c5: the first by its stride, then counted: a dilated network has c3, c4, c5 of one stride."""
    first = strides[0].bit_length() - 1
    return [f"c{first + i}" for i in range(len(strides))]
