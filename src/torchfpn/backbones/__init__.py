"""Backbones, images -> maps: any timm model with feature maps, and torchvision's as ``torchvision/<name>``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfpn.backbones.names import BAND_INITS, FUSIONS, LUKEMELAS_PREFIX, Fusion, check_backbone
from torchfpn.errors import ConfigError, nearest
from torchfpn.recipe import Scaling

if TYPE_CHECKING:  # names of backbones are checked before torch is imported
    from torch import nn

    from torchfpn.backbones.timm import Published

OUTPUT_STRIDES = (8, 16, 32)


def backbone(
    name: str,
    *,
    in_channels: int = 3,
    pretrained: bool | str | Path = False,
    strides: Sequence[int] | None = None,
    output_stride: int = 32,
    rgb: Sequence[int] = (0, 1, 2),
    band_init: str | Mapping[int, str] = "repeat",
    fusion: Fusion = "none",
    points: Sequence[int] | None = None,
    **options: Any,
) -> "nn.Module":
    """[B, C, H, W] -> maps, finest first, with `.levels` and `.in_channels`.

    name: a timm model ("resnet50", "convnext_tiny.fb_in22k"), "torchvision/<name>" (ResNets, MobileNets,
    EfficientNets), or "lukemelas/efficientnet_b<n>" for weights that come from that project. pretrained: False; True
    downloads what the library publishes; of torchvision also one of its published weights by name ("IMAGENET1K_V1"); a
    path is a local .safetensors or .pth of the whole classifier, which must fit exactly. strides: which maps; by
    default all from 4 on, C2..C5. output_stride: 8 or 16 dilates the last stages instead of halving their maps.
    options: for timm's create_model, or the named class.

    More than three bands: rgb says which of them, counted from 0, are red, green and blue. band_init: how the one
    pretrained first convolution is widened, "repeat" | "mean" | "copy" | "zero", or {band: "red" | "green" | "blue"}
    (`torchfpn.backbones.first_conv`). fusion: "fusenet" gives the bands that are not red, green or blue to a second
    backbone of the same kind, whose maps are added to the main stream's at `points` (k for C_k; by default all);
    networks that cannot be run stage by stage, and "late", add the maps that are given (`torchfpn.backbones.fusion`).

    Raises:
        ConfigError: unknown name (the nearest ones are named), strides the model does not have, bands that cannot be.
        WeightsError: weights that do not fit, or cannot be downloaded.
    """
    check_backbone(name)
    check_words(fusion, band_init)
    _check_lists(strides=strides, rgb=rgb, points=points)
    if output_stride not in OUTPUT_STRIDES:
        raise ConfigError(f"{output_stride}", field="output_stride", allowed=" | ".join(map(str, OUTPUT_STRIDES)))
    if fusion == "none" and points is not None:
        raise ConfigError(
            f"{list(points)}", field="points", allowed='to come with fusion="fusenet"', hint="leave points out"
        )
    if isinstance(band_init, Mapping) and in_channels < len(rgb) and tuple(rgb) == (0, 1, 2):
        rgb = ()  # the default: there are no such bands, and those of the table are named
    common: dict[str, Any] = {"pretrained": pretrained, "strides": strides, **options}
    if output_stride != 32:
        common["output_stride"] = output_stride
    if fusion != "none":
        from torchfpn.backbones.fusion import fused

        return fused(
            name, fusion, build=backbone, in_channels=in_channels, rgb=rgb, band_init=band_init, points=points, **common
        )
    common |= {"in_channels": in_channels, "rgb": rgb, "band_init": band_init}
    if name.startswith("torchvision/"):
        from torchfpn.backbones.torchvision import TorchvisionBackbone

        return TorchvisionBackbone(name.removeprefix("torchvision/"), **common)
    if name.startswith(LUKEMELAS_PREFIX):
        from torchfpn.backbones.lukemelas import LukemelasBackbone

        return LukemelasBackbone(name.removeprefix(LUKEMELAS_PREFIX), **common)
    from torchfpn.backbones.timm import TimmBackbone

    return TimmBackbone(name, **common)


def published_weights(name: str) -> "Published | None":
    """What `pretrained=True` stands for in `backbone(name)`, and its local copy if there is one; asks no network."""
    if name.startswith(LUKEMELAS_PREFIX):
        return None
    if name.startswith("torchvision/"):
        from torchfpn.backbones.torchvision import published

        return published(name.removeprefix("torchvision/"))
    from torchfpn.backbones.timm import published as published_by_timm

    return published_by_timm(name)


def published_scaling(name: str) -> Scaling:
    """Raw 8-bit red, green, blue to what the published weights of `backbone(name)` learnt on.

    Args:
        name: as of `backbone`; a tag of timm's chooses the weights.

    Returns:
        Their mean and deviation times 255, of method "pretrained" where they are not ImageNet's; ImageNet's where
        nothing is published.
    """
    from torchfpn.backbones.weights import normalisation

    return normalisation(name)


def check_words(fusion: str, band_init: str | Mapping[Any, str]) -> None:
    """Passes a known way of fusing and of widening.

    Raises:
        ConfigError: another one, with the nearest names.
    """
    if fusion not in FUSIONS:
        raise ConfigError(
            f'"{fusion}"', field="fusion", allowed=" | ".join(FUSIONS), hint=nearest(str(fusion), FUSIONS)
        )
    if not isinstance(band_init, Mapping) and band_init not in BAND_INITS:
        allowed, hint = " | ".join(BAND_INITS), nearest(str(band_init), BAND_INITS)
        raise ConfigError(f'"{band_init}"', field="band_init", allowed=allowed, hint=hint)


def _check_lists(**values: Any) -> None:
    for field, value in values.items():
        if value is not None and (isinstance(value, str) or not hasattr(value, "__iter__")):
            raise ConfigError(f"{value!r}", field=field, allowed="a list of whole numbers")
