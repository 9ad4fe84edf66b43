"""The two functions of AdeelH/pytorch-fpn, with their names, arguments and defaults; they build models of this library.

fpn        backbone -> FPN (top-down) -> head on the finest map, which has context from every level
panoptic   backbone -> FPN (top-down) -> head that sums all levels (Panoptic FPN)
panet      backbone -> PANet (top-down, bottom-up) -> head that sums all levels

The original's panoptic has no top-down path, its panet discards the bottom-up path it computes, and both accept one
image size only. ``compat="pytorch-fpn"`` builds exactly those networks, for their checkpoints.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from torchfpn.backbones.names import TORCHVISION
from torchfpn.errors import ConfigError, WeightsError, nearest
from torchfpn.nn.any_size import AnySize
from torchfpn.tasks.model import check_name, create_model
from torchfpn.types import Size

TYPES: dict[str, dict[str, str]] = {
    "fpn": {"pyramid": "fpn", "head": "finest"},
    "panoptic": {"pyramid": "fpn", "head": "sum"},
    "panet": {"pyramid": "panet", "head": "sum"},
}

RESNETS = tuple(name for name in TORCHVISION if name.startswith(("resnet", "resnext", "wide_resnet")))

# timm publishes weights of its own b0 to b5; the larger ones are TensorFlow's, which pad differently. This is a table
# and no question to timm, so that weights published later do not change the network a state_dict was saved from.
EFFICIENTNETS = {f"efficientnet_b{size}": f"{'tf_' if size > 5 else ''}efficientnet_b{size}" for size in range(9)}

PUBLISHED = ("imagenet", "advprop")
OutSize = int | Sequence[int] | None
Compat = Literal["pytorch-fpn"]


class Resized(AnySize):
    """An AnySize whose answer is resized, bilinearly, to `out_size` = (height, width) whatever the images' size."""

    def __init__(self, *, multiple: int, out_size: Size, **pieces: nn.Module) -> None:
        super().__init__(multiple=multiple, **pieces)
        self.out_size = out_size

    def answer(self, maps: Any, images: Tensor) -> Tensor:
        """What `maps` gave for `images` -> [B, K, *out_size]."""
        return F.interpolate(super().answer(maps, images), size=self.out_size, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        """The multiple and the size of the answer."""
        return f"{super().extra_repr()}, out_size={self.out_size}"


def make_fpn_resnet(
    name: str = "resnet18",
    fpn_type: str = "fpn",
    out_size: OutSize = (224, 224),
    fpn_channels: int = 256,
    num_classes: int = 1000,
    pretrained: bool | str | Path | None = True,
    in_channels: int = 3,
    *,
    compat: Compat | None = None,
) -> nn.Sequential:
    """A ResNet of torchvision with a pyramid: normalised images [B, C, H, W] -> logits [B, num_classes, *out_size].

    The children of the nn.Sequential are `backbone`, `pyramid`, `head`; H and W are any. More than three bands make two
    ResNets, red, green and blue (the first three) in one and all others in the second, fused stage by stage.

    fpn_type: "fpn", "panoptic" or "panet". out_size: (height, width), or one number for both; None keeps the images'
    size. fpn_channels: width of the pyramid; the head has half of it.
    pretrained: True takes torchvision's IMAGENET1K_V1, the weights that the original took; the name of other weights of
    torchvision; the path of a local .safetensors or .pth; False and None take nothing and download nothing.
    compat: "pytorch-fpn" builds the original's own network, for a checkpoint saved from it (its keys, its output).
    Nothing is downloaded then: `pretrained` says only how more than three bands are wired, which the original made
    depend on it (pretrained: two fused ResNets; else one ResNet of that many bands).

    Raises:
        ConfigError: an unknown name, type or compat (the nearest is named), a number or a size below 1.
        WeightsError: pretrained weights that do not fit or cannot be had.
    """
    check_name("name", name, RESNETS)
    numbers = {"fpn_channels": fpn_channels, "num_classes": num_classes, "in_channels": in_channels}
    size = _checked_size(fpn_type, out_size, numbers)
    if compat is not None:
        return _original(compat, name, fpn_type, size, fused=bool(pretrained) and in_channels > 3, **numbers)
    weights = "IMAGENET1K_V1" if pretrained is True else pretrained or False
    return _model(f"torchvision/{name}", weights, fpn_type, size, **numbers)


def make_fpn_efficientnet(
    name: str = "efficientnet_b0",
    fpn_type: str = "fpn",
    out_size: OutSize = (224, 224),
    fpn_channels: int = 256,
    num_classes: int = 1000,
    pretrained: bool | str | Path | None = "imagenet",
    in_channels: int = 3,
    *,
    compat: Compat | None = None,
) -> nn.Sequential:
    """An EfficientNet of timm with a pyramid; arguments, result and errors as of `make_fpn_resnet`, but for these two.

    name: "efficientnet_b0" to "efficientnet_b8"; the last three are timm's "tf_efficientnet_b6" to "b8".
    pretrained: "imagenet" or True takes timm's default weights of that network; "advprop" those of Xie et al. 2020,
    learnt from values scaled to -1..1, with timm's "tf_efficientnet_bN" (also of b0 to b5); the path of a local
    .safetensors or .pth of timm's network; False and None take nothing and download nothing.
    With compat="pytorch-fpn" nothing is downloaded and `pretrained` says nothing: more than three bands are two fused
    networks in any case.
    """
    check_name("name", name, EFFICIENTNETS)
    numbers = {"fpn_channels": fpn_channels, "num_classes": num_classes, "in_channels": in_channels}
    size = _checked_size(fpn_type, out_size, numbers)
    if compat is not None:
        return _original(compat, name, fpn_type, size, fused=in_channels > 3, **numbers)
    network, weights = _efficientnet(name, pretrained)
    return _model(network, weights, fpn_type, size, **numbers)


def _checked_size(fpn_type: str, out_size: OutSize, numbers: dict[str, int]) -> Size | None:
    """(height, width), or None, after everything that needs no network has been looked at.

    Raises:
        ConfigError: an unknown type, a number below 1, a size that is none.
    """
    check_name("fpn_type", fpn_type, TYPES)
    for field, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{number}", field=field, allowed="1 or more")
    if out_size is None:
        return None
    size = (out_size, out_size) if isinstance(out_size, int) else tuple(out_size)
    if len(size) != 2 or min(size) < 1:
        allowed = "height and width, 1 or more, or None for the size of the images"
        raise ConfigError(f"{out_size}", field="out_size", allowed=allowed)
    return size


def _efficientnet(name: str, pretrained: bool | str | Path | None) -> tuple[str, bool | str | Path]:
    """The network's name in timm, and the weights as `create_model` takes them."""
    if pretrained == "advprop":
        return f"tf_{name}.ap_in1k", True
    if pretrained == "imagenet":
        return EFFICIENTNETS[name], True
    if isinstance(pretrained, str) and not Path(pretrained).is_file():
        allowed = " | ".join(f'"{known}"' for known in PUBLISHED) + " | True | False | a file"
        raise WeightsError("no such file", file=pretrained, allowed=allowed, hint=nearest(pretrained, PUBLISHED))
    return EFFICIENTNETS[name], pretrained or False


def _model(
    backbone: str,
    pretrained: bool | str | Path,
    fpn_type: str,
    size: Size | None,
    *,
    fpn_channels: int,
    num_classes: int,
    in_channels: int,
) -> AnySize:
    model = create_model(
        "semantic",
        backbone=backbone,
        pretrained=pretrained,
        in_channels=in_channels,
        fusion="fusenet" if in_channels > 3 else "none",
        num_classes=num_classes,
        channels=fpn_channels,
        head_channels=max(1, fpn_channels // 2),
        **TYPES[fpn_type],  # type: ignore[arg-type]
    )
    if size is None:
        return model
    return Resized(multiple=model.multiple, out_size=size, **dict(model.named_children()))


def _original(
    compat: str, name: str, fpn_type: str, size: Size | None, *, fused: bool, **numbers: int
) -> nn.Sequential:
    check_name("compat", compat, ("pytorch-fpn",))
    from torchfpn.tasks.pytorch_fpn import original  # a second set of networks, for those who ask for it

    return original(name, fpn_type, out_size=size, fused=fused, **numbers)
