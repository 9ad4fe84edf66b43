"""How every semantic head ends: a convolution that gives the classes, and the way back to the pixels."""

from torch import nn

from torchfpn.errors import ConfigError


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
