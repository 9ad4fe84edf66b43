"""The few layers the pyramids and heads are made of: a convolution with its norm and activation, and their weights."""

from typing import Literal

from torch import nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Chain, chain

Norm = Literal["batch", "group", "none"]


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """Batch norm, group norm of 32 groups (Wu & He 2018), or nothing, for maps of `channels`.

    Raises:
        ConfigError: unknown kind, or a width that 32 groups do not divide.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        if channels % 32:
            raise ConfigError(
                f"{channels} channels", field="norm", allowed="group norm takes a multiple of 32", hint="or norm=batch"
            )
        return nn.GroupNorm(32, channels)
    if kind == "none":
        return nn.Identity()
    raise ConfigError(f'"{kind}"', field="norm", allowed='"batch", "group" or "none"')


def conv_norm_act(in_channels: int, out_channels: int, kernel: int = 3, *, norm: Norm = "batch") -> Chain:
    """Convolution that keeps the size, norm, ReLU; the convolution has a bias only where no norm follows."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=norm == "none")
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if norm == "none":
        return chain(conv=conv, act=nn.ReLU(inplace=True))
    return chain(conv=conv, norm=norm_layer(norm, out_channels), act=nn.ReLU(inplace=True))


def linear_conv(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution that nothing non-linear follows, drawn as the FPN codebases draw it (uniform, fan-in, gain 1).

    Padded so that a map of n cells gives n / stride, rounded up.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=bias)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    nn.init.zeros_(conv.bias) if conv.bias is not None else None
    return conv
