"""ResNets, MobileNets and EfficientNets of torchvision as backbones, divided into the stages C2..C5."""

from collections.abc import Sequence
from http.client import HTTPException
from itertools import accumulate, pairwise
from operator import mul
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import Bottleneck

from torchfpn.backbones.first_conv import RGB, BandInit, check_bands, first_convs, widen_first_conv
from torchfpn.backbones.names import PREFIX
from torchfpn.backbones.timm import Published, pick_by_stride, unavailable
from torchfpn.backbones.weights import Wanted, fitting_weights, kin
from torchfpn.errors import ConfigError, WeightsError, nearest
from torchfpn.nn.containers import Chain, Pick, Stages, chain
from torchfpn.types import Level

# Where the `features` of each family are cut: the end of the last block of strides 2, 4, 8, 16, 32. Behind the last
# cut stands the 1x1 convolution that widens C5 for the classifier.
MOBILENET_CUTS = {"mobilenet_v2": (2, 4, 7, 14, 18), "mobilenet_v3_large": (2, 4, 7, 13, 16)}

EFFICIENTNET_CUTS = {"b": (2, 3, 4, 6, 8), "v2_s": (2, 3, 4, 6, 7), "v2_m": (2, 3, 4, 6, 8), "v2_l": (2, 3, 4, 6, 8)}
HEADS = ("classifier.", "fc.")  # of the classifier, which is not used
DILATED = "replace_stride_with_dilation"  # torchvision's argument


class TorchvisionBackbone(Chain):
    """images [B, C, H, W] -> maps at `strides`, finest first; the classifier's last layers are left out.

    final_conv: keeps the 1x1 convolution that MobileNets and EfficientNets have behind C5, as
    segmentation_models.pytorch does for MobileNetV2. What checkpoints of detectors ask for: cuts: where the blocks of a
    MobileNet or an EfficientNet are cut, in place of the end of each stride, (2, 4, 7, 13, 14, 17) for two maps of
    stride 32; stride_in_1x1: a ResNet's bottlenecks halve the map in their first convolution, as in He et al. 2015;
    norm_eps: of every batch norm.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        pretrained: bool | str | Path = False,
        strides: Sequence[int] | None = None,
        band_init: BandInit = "repeat",
        rgb: Sequence[int] = RGB,
        output_stride: int = 32,
        final_conv: bool = False,
        cuts: Sequence[int] | None = None,
        stride_in_1x1: bool = False,
        norm_eps: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if DILATED in options:  # the strides of the maps would not be the declared ones
            raise ConfigError(f"{options[DILATED]}", field=DILATED, allowed="output_stride says it: 8, 16 or 32")
        if output_stride != 32:
            options[DILATED] = _dilated(name, output_stride)
        network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
        _fill(network, name, pretrained, in_channels, band_init, rgb)
        self.name, self.in_channels = name, in_channels
        if stride_in_1x1:
            _stride_first(network, name, output_stride)
        for norm in network.modules():
            if norm_eps is not None and isinstance(norm, nn.BatchNorm2d):
                norm.eps = norm_eps
        stages = _stages(name, network, final_conv=final_conv, cuts=cuts)
        strides_given = list(accumulate((_stride(stage) for stage in stages), mul))
        available = [Level(_width(stage), stride) for stage, stride in zip(stages, strides_given, strict=True)]
        self.indices = picked = pick_by_stride(available, strides, name=f"torchvision/{name}")
        self.stages = Stages()
        for i, stage in enumerate(stages[: picked[-1] + 1]):
            self.stages.add_module(f"c{i + 1}", stage)
        if picked != tuple(range(len(self.stages))):
            self.pick = Pick(picked)
        self._levels = tuple(available[i] for i in picked)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Channels and stride of each map given, finest first."""
        return self._levels


def _dilated(name: str, output_stride: int) -> list[bool]:
    """Which of the stages C3, C4, C5 keep their size and grow their kernels apart instead."""
    deep = name in ("resnet50", "resnet101", "resnet152")  # torchvision's other blocks have no dilation
    if not deep or output_stride not in (8, 16):
        raise ConfigError(
            f"output_stride {output_stride}",
            field=f"backbone torchvision/{name}",
            allowed="8, 16 or 32, of resnet50, resnet101 and resnet152",
            hint=f"timm's {name} can be dilated" if name.startswith("resnet") else None,
        )
    return [False, output_stride == 8, True]


def _stride_first(network: nn.Module, name: str, output_stride: int) -> None:
    """Moves the stride of every bottleneck from its 3x3 convolution to the 1x1 before it."""
    blocks = [block for block in network.modules() if isinstance(block, Bottleneck)]
    if not blocks or output_stride != 32:
        allowed = "a network of bottlenecks, not dilated"
        raise ConfigError("stride_in_1x1=True", field=f"backbone torchvision/{name}", allowed=allowed)
    for block in blocks:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)


def _stride(stage: nn.Module) -> int:
    """By how much a stage shrinks its input: the strides of its pieces; those of a block's shortcut count once."""
    strides = 1
    for name, module in stage.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and "downsample" not in name:
            strides *= int(module.stride if isinstance(module.stride, int) else module.stride[0])
    return strides


def published(name: str, which: str = "DEFAULT") -> Published | None:
    """The weights of that name that torchvision publishes, None where there are none; asks no network."""
    weights = torchvision.models.get_model_weights(name).__members__.get(which)
    if weights is None:
        return None
    place = _place(weights.url)
    how = f"put {place.name} (from {weights.url}) into {place.parent}"
    return Published(f"torchvision's {weights}", how, place if place.is_file() else None)


def _weights_file(name: str, pretrained: Literal[True] | str | Path) -> Path:
    """The file itself, or that of weights which torchvision publishes: by their name, or True for its default ones.

    Raises:
        WeightsError: no such file and no such name, or a download that fails.
    """
    known = torchvision.models.get_model_weights(name).__members__
    wanted = "DEFAULT" if pretrained is True else pretrained
    if wanted in known:
        return _downloaded(name, str(wanted), known[wanted].url)
    if pretrained is True:
        raise unavailable(PREFIX + name, None)
    if isinstance(wanted, str) and not Path(wanted).is_file():
        allowed = f"a file, or the name of weights of torchvision/{name}"
        raise WeightsError("no such file", file=wanted, allowed=allowed, hint=nearest(wanted, known))
    return Path(wanted)


def _place(url: str) -> Path:
    """Where torch.hub keeps what lies at `url`."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


def _downloaded(name: str, which: str, url: str) -> Path:
    """The local copy of what lies at `url`, downloaded if it is not there.

    A download is checked against the hash in its name. A file that is there already is not, by torchvision neither: it
    is read as any local file, without running what it says, and has to fit.
    """
    path = _place(url)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2])
    except (OSError, HTTPException, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise unavailable(PREFIX + name, published(name, which)) from error
    return path


def _fill(
    network: nn.Module,
    name: str,
    pretrained: bool | str | Path,
    in_channels: int,
    band_init: BandInit,
    rgb: Sequence[int],
) -> None:
    """The weights that are asked for, and a first convolution that takes the bands."""
    check_bands(in_channels, rgb, band_init)
    if pretrained is False or not _load(network, _weights_file(name, pretrained), name, in_channels):
        widen_first_conv(network, in_channels, band_init, rgb)


def _load(network: nn.Module, path: Path, name: str, in_channels: int) -> bool:
    """The file's tensors into `network`; whether its first convolution takes `in_channels` bands then."""
    own = {key: tuple(each.shape) for key, each in network.state_dict().items() if not key.startswith(HEADS)}
    full = PREFIX + name
    first = f"{first_convs(network)[0]}.weight"
    given = fitting_weights(path, Wanted(full, own, HEADS, (first,), lambda found: kin(found, full)), in_channels)
    if given.bands != 3:
        widen_first_conv(network, in_channels)
    tensors = {key: tensor for key, tensor in given.renamed.items() if not key.startswith(HEADS)}
    network.load_state_dict(network.state_dict() | tensors)
    return given.bands == in_channels != 3


def _stages(name: str, network: Any, *, final_conv: bool, cuts: Sequence[int] | None) -> list[nn.Module]:
    """The parts of strides 2, 4, 8, 16, 32, each an nn.Sequential that takes the output of the one before."""
    if name.startswith(("resnet", "resnext", "wide_resnet")):
        if final_conv or cuts:
            found = "final_conv=True" if final_conv else f"cuts {list(cuts or ())}"
            raise ConfigError(found, field=f"backbone torchvision/{name}", allowed="none: a ResNet has no such option")
        stem = chain(conv=network.conv1, norm=network.bn1, act=network.relu)
        first = chain(pool=network.maxpool, blocks=network.layer1)
        return [stem, first, network.layer2, network.layer3, network.layer4]
    own: Sequence[int]
    if name in MOBILENET_CUTS:
        own = MOBILENET_CUTS[name]
    elif name.startswith("efficientnet_"):
        kind = name.removeprefix("efficientnet_")
        own = EFFICIENTNET_CUTS[kind if kind in EFFICIENTNET_CUTS else "b"]
    else:
        raise ConfigError(
            f'"torchvision/{name}"',
            field="backbone",
            allowed="ResNets, MobileNets and EfficientNets",
            hint="timm has it",
        )
    ends = tuple(cuts or (*own[:-1], own[-1] + final_conv))
    if not all(a < b <= len(network.features) for a, b in pairwise((0, *ends))):
        allowed = f"rising, up to {len(network.features)}"
        raise ConfigError(f"cuts {list(ends)}", field=f"backbone torchvision/{name}", allowed=allowed)
    return [network.features[a:b] for a, b in pairwise((0, *ends))]


def _width(stage: nn.Module) -> int:
    """Channels that a stage gives: those of its last batch norm (every stage here ends in one, at most then a ReLU)."""
    return [m.num_features for m in stage.modules() if isinstance(m, nn.BatchNorm2d)][-1]
