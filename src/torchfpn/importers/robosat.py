"""robosat's FPNSegmentation (branch issue/60, 2018): ResNet-50, FPN, two 3x3 a level, concatenation.

No bias, norm or ReLU in pyramid and head but for the classifier's bias; maps are concatenated coarsest first. Images
are red, green, blue from 0 to 255, normalised with ImageNet's mean and deviation.
"""

import torch

from torchfpn.importers.family import Asked, Family, Found, Tensors, renamed, resnet_name, shape
from torchfpn.recipe import Inputs, Scaling

LEVELS = 4


def read(tensors: Tensors, asked: Asked) -> Found:
    """The state_dict of an FPNSegmentation, of any number of filters and classes."""
    backbone = resnet_name(tensors, "fpn.resnet.layer{}", asked)
    channels = shape(tensors, "fpn.lateral4.block.weight", asked)[0]
    width = shape(tensors, "head1.1.block.weight", asked)[0]
    num_classes = shape(tensors, "final.weight", asked)[0]
    bands = shape(tensors, "fpn.resnet.conv1.weight", asked)[1]
    return Found(
        model={
            "backbone": backbone,
            "pyramid": "fpn",
            "channels": channels,
            "pyramid_options": {"bias": False},
            "head": "concat",
            "head_channels": width,
            "norm": "none",
            "head_options": {"act": False, "bias": False, "mode": "nearest"},
        },
        tensors={**tensors, "final.weight": finest_first(tensors["final.weight"], LEVELS)},
        name_of=_name_of,
        first_convs=("backbone.features.conv1.weight",),
        in_channels=bands,
        num_classes=num_classes,
        scaling=Scaling.imagenet() if bands == 3 else Scaling.identity(bands),
        inputs=Inputs.eight_bit() if bands == 3 else Inputs.unknown(),
        about=f"FPNSegmentation on {backbone}",
        unread=r"fpn\.resnet\.fc\..*",
    )


def finest_first(weight: torch.Tensor, levels: int) -> torch.Tensor:
    """[K, levels * C, k, k] for maps concatenated coarsest first -> the same for finest first."""
    return torch.cat(weight.chunk(levels, dim=1)[::-1], dim=1)


def _name_of(ours: str) -> str:
    for level in range(LEVELS):
        ours = renamed(
            ours,
            (rf"pyramid\.lateral\.{level}\.", f"fpn.lateral{level + 1}.block."),
            (rf"pyramid\.smooth\.{level}\.", f"fpn.smooth{level + 1}.block."),
            (rf"head\.scale\.{level}\.conv1\.", f"head{level + 1}.0.block."),
            (rf"head\.scale\.{level}\.conv2\.", f"head{level + 1}.1.block."),
        )
    return renamed(ours, (r"backbone\.features\.", "fpn.resnet."), (r"head\.classify\.conv\.", "final."))


ROBOSAT = Family("robosat", r"fpn\.(resnet|lateral\d|smooth\d)\.|head\d\.\d\.block\.", read)
