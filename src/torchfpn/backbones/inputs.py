"""The first convolution of a pretrained network, for any number of bands: four ways to keep what it has learnt.

repeat   R G B R G ...  rescaled by 3/n    any bands; what timm does
mean     M M M M M ...  rescaled by 3/n    M is the mean of the three filters (Hazirbas et al. 2016 give it to depth)
copy     R G B M M ...  rescaled by 3/n    the bands that are red, green, blue keep their filters; others may be named
zero     R G B 0 0 ...                     at the start the network answers as it did to red, green, blue alone

The first three keep the size of activations: a constant image gives the same answer whatever the number of bands
("repeat": of three, six, nine bands; R G B R is a little redder).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.errors import ConfigError, nearest

COLORS = ("red", "green", "blue")
WAYS = ("repeat", "mean", "copy", "zero")
RGB = (0, 1, 2)
BandInit = str | Mapping[int, str]  # one of WAYS, or "copy" with {band: colour} for bands that are not red, green, blue


def check_bands(in_channels: int, rgb: Sequence[int], how: BandInit = "repeat") -> None:
    """Passes what `widen` can do.

    Raises:
        ConfigError: fewer than one band, an unknown way or colour, or red, green, blue that are not three of the bands.
    """
    if in_channels < 1:
        raise ConfigError(f"{in_channels}", field="in_channels", allowed="1 or more")
    if isinstance(how, str) and how not in WAYS:
        raise ConfigError(f'"{how}"', field="band_init", allowed=" | ".join(WAYS), hint=nearest(how, WAYS))
    if how in ("repeat", "mean"):
        return
    none_needed = not isinstance(how, str) and not rgb
    three = len(rgb) == len(set(rgb)) == 3 and all(0 <= band < in_channels for band in rgb)
    if not three and not none_needed:
        found = f"{list(rgb)} of {in_channels} bands"
        raise ConfigError(found, field="rgb", allowed="three different bands: red, green, blue")
    for band, colour in () if isinstance(how, str) else how.items():
        if not 0 <= band < in_channels or colour not in COLORS:
            found = f"band {band}: {colour!r}"
            raise ConfigError(found, field="band_init", allowed=f"0..{in_channels - 1}, {' | '.join(COLORS)}")


def widen(weight: Tensor, in_channels: int, how: BandInit = "repeat", rgb: Sequence[int] = RGB) -> Tensor:
    """[O, 3, k, k] -> [O, in_channels, k, k], in one of the ways above. rgb: which bands are red, green, blue.

    Oracle of "repeat": timm's `adapt_input_conv`.
    """
    old = weight.shape[1]
    if how == "repeat":
        if in_channels == old:
            return weight
        if in_channels == 1:
            return weight.sum(1, keepdim=True)
        return weight.repeat(1, -(-in_channels // old), 1, 1)[:, :in_channels] * (old / in_channels)
    if how == "zero":
        wide = weight.new_zeros(len(weight), in_channels, *weight.shape[2:])
        wide[:, list(rgb)] = weight
        return wide
    wide = weight.mean(1, keepdim=True).repeat(1, in_channels, 1, 1)
    if how != "mean":
        filters = dict(zip(rgb, range(3), strict=False))  # the bands of a second stream have no red, green, blue
        if not isinstance(how, str):
            filters |= {band: COLORS.index(colour) for band, colour in how.items()}
        for band, colour in filters.items():
            wide[:, band] = weight[:, colour]
    return wide * (old / in_channels)


def widen_first_conv(network: nn.Module, in_channels: int, how: BandInit = "repeat", rgb: Sequence[int] = RGB) -> None:
    """Replaces the first convolution of `network` by one of its kind that takes `in_channels` bands, weights kept.

    Raises:
        ConfigError: as `check_bands`.
    """
    check_bands(in_channels, rgb, how)
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                if child.in_channels != in_channels or how != "repeat":
                    setattr(parent, name, _widened(child, in_channels, how, rgb))
                return


def _widened(conv: nn.Conv2d, in_channels: int, how: BandInit, rgb: Sequence[int]) -> nn.Conv2d:
    wide: Any = copy.deepcopy(conv)  # whatever subclass it is: timm has some that pad by themselves
    wide.in_channels = in_channels
    with torch.no_grad():
        wide.weight = nn.Parameter(widen(conv.weight, in_channels, how, rgb).contiguous())
    return conv if wide.weight.shape == conv.weight.shape and torch.equal(wide.weight, conv.weight) else wide
