"""The first convolution of a pretrained network, adapted to any number of bands in one of four ways.

repeat   R G B R G ...  rescaled by 3/n    any bands; what timm does
mean     M M M M M ...  rescaled by 3/n    M is the mean of the three filters (Hazirbas et al. 2016 give it to depth)
copy     R G B M M ...  rescaled by 3/n    the bands that are red, green, blue keep their filters; others may be named
zero     R G B 0 0 ...                     at the start the output is that for red, green, blue alone

The first three keep the size of activations: a constant image gives the same output whatever the number of bands
("repeat": of three, six, nine bands; R G B R is a little redder).

Some stems of timm standardize their weights before they convolve (nf_*, nfnet, resnetv2 "bit"). "repeat" is timm's own
there; the other ways widen the standardized filters. A stem without a gain (StdConv2d of resnetv2) can only compute
with filters of unit variance, so those ways are refused.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

from torchfpn.backbones.names import BAND_INITS as WAYS
from torchfpn.errors import ConfigError, amount, nearest

COLORS = ("red", "green", "blue")
RGB = (0, 1, 2)
REPEAT = "take band_init=repeat, of three colours in the order red, green, blue"
SCALED, STANDARDISED = (ScaledStdConv2d, ScaledStdConv2dSame), (StdConv2d, StdConv2dSame)
ALIKE = 1e-4  # of the largest filter: what a standardised one may differ from the one that was asked for
BandInit = str | Mapping[int, str]  # one of WAYS, or "copy" with {band: colour} for bands that are not red, green, blue


def check_bands(in_channels: int, rgb: Sequence[int], how: BandInit = "repeat") -> None:
    """Passes what `widen` can do.

    Raises:
        ConfigError: fewer than one band, an unknown way or colour, or red, green, blue that are not three of the bands.
    """
    if not hasattr(in_channels, "__index__") or in_channels < 1:
        raise ConfigError(f"{in_channels}", field="in_channels", allowed="a whole number, 1 or more")
    if not isinstance(how, Mapping) and how not in WAYS:
        raise ConfigError(f'"{how}"', field="band_init", allowed=" | ".join(WAYS), hint=nearest(str(how), WAYS))
    rgb = list(rgb)
    if how in ("repeat", "mean") and rgb in ([], list(RGB)):
        return  # they need none
    none_needed = not isinstance(how, str) and not rgb
    three = len(rgb) == len(set(rgb)) == 3 and all(_is_band(band, in_channels) for band in rgb)
    if not three and not none_needed:
        found = f"{rgb} of {amount(in_channels, 'band')}"
        raise ConfigError(found, field="rgb", allowed="three different bands: red, green, blue")
    for band, colour in () if isinstance(how, str) else how.items():
        if not _is_band(band, in_channels) or colour not in COLORS:
            found = f"band {band}: {colour!r}"
            raise ConfigError(found, field="band_init", allowed=f"0..{in_channels - 1}, {' | '.join(COLORS)}")


def _is_band(band: Any, in_channels: int) -> bool:
    return hasattr(band, "__index__") and 0 <= band < in_channels


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


def widen_first_conv(
    network: nn.Module,
    in_channels: int,
    how: BandInit = "repeat",
    rgb: Sequence[int] = RGB,
    *,
    names: Sequence[str] = (),
) -> None:
    """Replaces the first convolution of `network` by one of its kind that takes `in_channels` bands, weights kept.

    names: the convolutions that see the images, where there are several side by side or the first is not found by
    walking: as timm's `first_conv` has them, before it flattened the network ("stem.0" for "stem_0").

    Raises:
        ConfigError: as `check_bands`; a convolution that is not given the three bands themselves; or one that
            standardises its weights and cannot compute with the widened ones.
    """
    check_bands(in_channels, rgb, how)
    found = _named(network, names) or first_convs(network)
    if not found:  # such as naflexvit, which multiplies rows of pixels by a matrix
        refused = f"{how!r} for a network without a first convolution"
        allowed = "networks that convolve the bands themselves"
        raise ConfigError(refused, field="band_init", allowed=allowed, hint=REPEAT)
    for name in found:
        conv = network.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        if conv.in_channels != 3:
            taken = f"{how!r} for a network whose first convolution takes {conv.in_channels} channels"
            raise ConfigError(
                taken, field="band_init", allowed="networks that convolve the bands themselves", hint=REPEAT
            )
        if in_channels != 3 or how != "repeat":
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _widened(conv, in_channels, how, rgb))


def _named(network: nn.Module, names: Sequence[str]) -> list[str]:
    """The convolutions of `network` that are meant by timm's names, which have dots where a flattened one has "_"."""
    wanted = {name.replace("_", ".") for name in names}
    convs = (name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    return [name for name in convs if name.removeprefix("model.").replace("_", ".") in wanted]


def first_convs(network: nn.Module) -> list[str]:
    """The name of the first convolution, where there is one."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)][:1]


def _widened(conv: nn.Conv2d, in_channels: int, how: BandInit, rgb: Sequence[int]) -> nn.Conv2d:
    wide: Any = copy.deepcopy(conv)  # whatever subclass it is: timm has some that pad by themselves
    wide.in_channels = in_channels
    wide.weight = nn.Parameter(widen(conv.weight.detach(), in_channels, how, rgb).contiguous())
    if isinstance(conv, SCALED):  # its scale is of the values that a filter sees
        wide.scale = conv.scale * (conv.in_channels / in_channels) ** 0.5
    if standardises(conv) and not set_filters(wide, widen(filters_of(conv), in_channels, how, rgb)):
        raise ConfigError(
            f"{how!r} for a network that standardises the weights of its first convolution",
            field="band_init",
            allowed="repeat",
            hint="or take another backbone",
        )
    return conv if wide.weight.shape == conv.weight.shape and torch.equal(wide.weight, conv.weight) else wide


def filters_of(conv: nn.Module) -> Tensor:
    """The filters [O, C, k, k] that a convolution computes with: its weights, or what it makes of them."""
    layer: Any = conv
    weight: Tensor = layer.weight.detach()
    if not standardises(conv):
        return weight
    rows = weight.flatten(1)
    variance, mean = torch.var_mean(rows, 1, correction=0, keepdim=True)
    rows = (rows - mean) / (variance + layer.eps).sqrt()
    if isinstance(conv, SCALED):
        rows = rows * layer.gain.detach().flatten(1) * layer.scale
    filters: Tensor = rows.view_as(weight)
    return filters


def standardises(conv: nn.Module) -> bool:
    """Whether a convolution standardises its weights before it computes: zero weights then do not stay zero."""
    return isinstance(conv, SCALED + STANDARDISED)


def add_bands(conv: nn.Module, weight: Tensor, places: Sequence[int]) -> bool:
    """Makes a wide convolution that standardises its weights answer as a narrow one to some of its bands.

    Args:
        conv: the wide one, with the gain of the narrow one.
        weight: of the narrow one, [O, C, k, k].
        places: of the C bands among those of `conv`; the others count for nothing.

    Returns:
        Whether it can.
    """
    narrow: Any = copy.deepcopy(conv)
    narrow.weight = nn.Parameter(weight.clone())
    if isinstance(conv, SCALED):
        narrow.scale *= (narrow.in_channels / weight.shape[1]) ** 0.5
    own = filters_of(narrow)
    filters = own.new_zeros(len(own), narrow.in_channels, *own.shape[2:])
    filters[:, list(places)] = own
    return set_filters(conv, filters)


def set_filters(conv: nn.Module, filters: Tensor) -> bool:
    """Fits a convolution that standardises its weights, so that it computes with these filters [O, C, k, k].

    Weights keep their variance, and a gain takes up the rest.

    Returns:
        Whether it does: filters of another mean than 0, or without a gain of another variance than 1, it cannot make.
    """
    layer: Any = conv
    with torch.no_grad():
        variance = layer.weight.flatten(1).var(1, correction=0)
        size = filters.flatten(1).std(1, correction=0)
        grown = torch.where(size > 0, (variance + layer.eps).sqrt() / size, 0.0)
        layer.weight.copy_(filters * grown[:, None, None, None])
        if isinstance(conv, SCALED):
            own = filters_of(conv) / layer.gain  # with a gain of 1
            gain = size / own.flatten(1).std(1, correction=0).clamp(min=torch.finfo(own.dtype).tiny)
            layer.gain.copy_(gain[:, None, None, None])
        return bool((filters_of(conv) - filters).abs().max() <= ALIKE * filters.abs().max())
