"""torchvision's ResNets, MobileNetV2 and EfficientNets as backbones, cut into the stages C2..C5."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torchvision
from torch import nn

from torchfpn.backbones.inputs import RGB, BandInit, widen_first_conv
from torchfpn.backbones.levels import pick_by_stride
from torchfpn.errors import ConfigError, WeightsError
from torchfpn.files.checkpoints import read_tensors
from torchfpn.nn.containers import Chain, Pick, Stages, chain
from torchfpn.types import Level

# Where the `features` of each family are cut: the end of the last block of strides 2, 4, 8, 16, 32.
MOBILENET_CUTS = (2, 4, 7, 14, 18)
EFFICIENTNET_CUTS = {"b": (2, 3, 4, 6, 8), "v2_s": (2, 3, 4, 6, 7), "v2_m": (2, 3, 4, 6, 8), "v2_l": (2, 3, 4, 6, 8)}


class TorchvisionBackbone(Chain):
    """images [B, C, H, W] -> maps at `strides`, finest first; the classifier's last layers are left out."""

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
        **options: Any,
    ) -> None:
        super().__init__()
        if output_stride != 32:
            options["replace_stride_with_dilation"] = _dilated(name, output_stride)
        network = _network(name, pretrained, options)
        widen_first_conv(network, in_channels, band_init, rgb)
        self.name, self.in_channels = name, in_channels
        stages = _stages(name, network)
        available = [Level(_width(stage), min(2 ** (i + 1), output_stride)) for i, stage in enumerate(stages)]
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


def _network(name: str, pretrained: bool | str | Path, options: dict[str, Any]) -> nn.Module:
    weights = "DEFAULT" if pretrained is True else None
    try:
        network: nn.Module = torchvision.models.get_model(name, weights=weights, **options)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a damaged download is a RuntimeError
        raise WeightsError(
            f"the pretrained weights of torchvision/{name} could not be downloaded",
            hint="give a local file instead, pretrained=<path to .safetensors or .pth>, or pretrained=False",
        ) from error
    if not isinstance(pretrained, bool):
        _load(network, Path(pretrained), name)
    return network


def _load(network: nn.Module, path: Path, name: str) -> None:
    tensors, _ = read_tensors(path)
    own = network.state_dict()
    heads = ("classifier.", "fc.")  # class count may differ: the classifier is not used
    wanted = {key for key in own if not key.startswith(heads)}
    given = {key: value for key, value in tensors.items() if not key.startswith(heads)}
    wrong = [f"missing {key}" for key in sorted(wanted - given.keys())]
    wrong += [f"unknown {key}" for key in sorted(given.keys() - wanted)]
    wrong += [
        f"{key} is {list(given[key].shape)}, not {list(own[key].shape)}"
        for key in sorted(wanted & given.keys())
        if given[key].shape != own[key].shape
    ]
    if wrong:
        raise WeightsError(
            f"{len(wrong)} tensors do not fit torchvision/{name}: {', '.join(wrong[:5])}",
            file=path,
            hint="timm's files go with timm's names",
        )
    network.load_state_dict(own | given)


def _stages(name: str, network: Any) -> list[nn.Module]:
    """The parts of strides 2, 4, 8, 16, 32, each an nn.Sequential that takes the output of the one before."""
    if name.startswith(("resnet", "resnext", "wide_resnet")):
        stem = chain(conv=network.conv1, norm=network.bn1, act=network.relu)
        first = chain(pool=network.maxpool, blocks=network.layer1)
        return [stem, first, network.layer2, network.layer3, network.layer4]
    if name == "mobilenet_v2":
        cuts: Sequence[int] = MOBILENET_CUTS
    elif name.startswith("efficientnet_"):
        kind = name.removeprefix("efficientnet_")
        cuts = EFFICIENTNET_CUTS[kind if kind in EFFICIENTNET_CUTS else "b"]
    else:
        raise ConfigError(
            f'"torchvision/{name}"',
            field="backbone",
            allowed="ResNets, MobileNetV2 and EfficientNets",
            hint="timm has it",
        )
    return [network.features[a:b] for a, b in zip((0, *cuts), cuts, strict=False)]


def _width(stage: nn.Module) -> int:
    """Channels that a stage gives: those of its last batch norm (every stage here ends in one, at most then a ReLU)."""
    return [m.num_features for m in stage.modules() if isinstance(m, nn.BatchNorm2d)][-1]
