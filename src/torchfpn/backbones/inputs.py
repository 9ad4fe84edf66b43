"""The first convolution of a pretrained network, for any number of bands."""

import torch
from torch import Tensor, nn

from torchfpn.errors import ConfigError


def widen(weight: Tensor, in_channels: int) -> Tensor:
    """[O, 3, k, k] -> [O, in_channels, k, k]: filters repeated over the bands and rescaled by 3 / in_channels.

    A constant image gives the same answer as before, whatever the number of bands; one band takes the sum of the three
    filters. The rule is timm's (`adapt_input_conv`), so that both families of backbones treat bands alike.
    """
    old = weight.shape[1]
    if in_channels == old:
        return weight
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-in_channels // old), 1, 1)[:, :in_channels]
    return repeated * (old / in_channels)


def widen_first_conv(network: nn.Module, in_channels: int) -> None:
    """Replaces the first convolution of `network` by one that takes `in_channels` bands, weights kept (`widen`).

    Raises:
        ConfigError: fewer than one band.
    """
    if in_channels < 1:
        raise ConfigError(f"{in_channels}", field="in_channels", allowed="1 or more")
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                if child.in_channels != in_channels:
                    setattr(parent, name, _widened(child, in_channels))
                return


def _widened(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    wide = nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        dilation=conv.dilation,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    with torch.no_grad():
        wide.weight.copy_(widen(conv.weight, in_channels))
        if conv.bias is not None and wide.bias is not None:
            wide.bias.copy_(conv.bias)
    return wide
