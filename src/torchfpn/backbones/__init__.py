"""Images -> maps: any timm model with feature maps, and torchvision's by the name ``torchvision/<name>``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.backbones.names import check_backbone

if TYPE_CHECKING:  # names of backbones are checked before torch is imported
    from torch import nn

STRIDES = (4, 8, 16, 32)  # C2..C5: what Lin et al. 2017 feed to the pyramid


def backbone(
    name: str,
    *,
    in_channels: int = 3,
    pretrained: bool | str | Path = False,
    strides: Sequence[int] = STRIDES,
    **options: Any,
) -> "nn.Module":
    """[B, C, H, W] -> maps at `strides`, finest first, with `.levels` and `.in_channels`.

    name: a timm model ("resnet50", "convnext_tiny.fb_in22k") or "torchvision/<name>" (ResNets, MobileNetV2,
    EfficientNets). pretrained: False; True downloads what the library publishes; a path is a local .safetensors or
    .pth of the whole classifier, which must fit exactly. in_channels other than 3 keeps the pretrained filters: they
    are repeated over the bands and rescaled, so that activations keep their size. options: for timm's create_model.

    Raises:
        ConfigError: unknown name (the nearest ones are named), or strides the model does not have.
        WeightsError: weights that do not fit, or cannot be downloaded.
    """
    check_backbone(name)
    if name.startswith("torchvision/"):
        from torchfpn.backbones.torchvision import TorchvisionBackbone

        return TorchvisionBackbone(
            name.removeprefix("torchvision/"),
            in_channels=in_channels,
            pretrained=pretrained,
            strides=strides,
            **options,
        )
    from torchfpn.backbones.timm import TimmBackbone

    return TimmBackbone(name, in_channels=in_channels, pretrained=pretrained, strides=strides, **options)
