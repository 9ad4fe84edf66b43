"""torchvision's ResNets, MobileNetV2 and EfficientNets as backbones, cut into the stages C2..C5."""

from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from torch import nn

from torchfpn.backbones.inputs import RGB, BandInit, widen_first_conv
from torchfpn.backbones.levels import pick_by_stride
from torchfpn.errors import ConfigError, WeightsError, nearest
from torchfpn.files.checkpoints import read_tensors
from torchfpn.nn.containers import Chain, Pick, Stages, chain
from torchfpn.types import Level

# Where the `features` of each family are cut: the end of the last block of strides 2, 4, 8, 16, 32. Behind the last
# cut stands the 1x1 convolution that widens C5 for the classifier.
MOBILENET_CUTS = (2, 4, 7, 14, 18)
EFFICIENTNET_CUTS = {"b": (2, 3, 4, 6, 8), "v2_s": (2, 3, 4, 6, 7), "v2_m": (2, 3, 4, 6, 8), "v2_l": (2, 3, 4, 6, 8)}
DILATED = "replace_stride_with_dilation"  # torchvision's argument


class TorchvisionBackbone(Chain):
    """images [B, C, H, W] -> maps at `strides`, finest first; the classifier's last layers are left out.

    final_conv: keeps the 1x1 convolution that MobileNetV2 and the EfficientNets have behind C5, as
    segmentation_models.pytorch does for MobileNetV2.
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
        **options: Any,
    ) -> None:
        super().__init__()
        if DILATED in options:  # the strides of the maps would not be the declared ones
            raise ConfigError(f"{options[DILATED]}", field=DILATED, allowed="output_stride says it: 8, 16 or 32")
        if output_stride != 32:
            options[DILATED] = _dilated(name, output_stride)
        network = _network(name, pretrained, options)
        widen_first_conv(network, in_channels, band_init, rgb)
        self.name, self.in_channels = name, in_channels
        stages = _stages(name, network, final_conv=final_conv)
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
    network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    if pretrained is not False:
        _load(network, _weights_file(name, pretrained), name)
    return network


def _weights_file(name: str, pretrained: Literal[True] | str | Path) -> Path:
    """The file itself, or that of weights which torchvision publishes: by their name, or True for its default ones.

    Raises:
        WeightsError: no such file and no such name, or a download that fails.
    """
    published = torchvision.models.get_model_weights(name).__members__
    wanted = "DEFAULT" if pretrained is True else pretrained
    if wanted in published:
        return _downloaded(name, published[wanted].url)
    if isinstance(wanted, str) and not Path(wanted).is_file():
        allowed = f"a file, or the name of weights of torchvision/{name}"
        raise WeightsError("no such file", file=wanted, allowed=allowed, hint=nearest(wanted, published))
    return Path(wanted)


def _downloaded(name: str, url: str) -> Path:
    """Where torch.hub keeps what lies at `url`, downloaded if it is not there.

    A download is checked against the hash in its name. A file that is there already is not, by torchvision neither: it
    is read as any local file, without running what it says, and has to fit.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2])
    except (OSError, HTTPException, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise WeightsError(
            f"the pretrained weights of torchvision/{name} could not be downloaded",
            hint="give a local file instead, pretrained=<path to .safetensors or .pth>, or pretrained=False",
        ) from error
    return path


def _load(network: nn.Module, path: Path, name: str) -> None:
    tensors, _ = read_tensors(path)
    own = network.state_dict()
    heads = ("classifier.", "fc.")  # class count may differ: the classifier is not used
    counters = {key for key in own if key.endswith(".num_batches_tracked")}  # torchvision's oldest files have none
    wanted = {key for key in own if not key.startswith(heads)} - (counters - tensors.keys())
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


def _stages(name: str, network: Any, *, final_conv: bool) -> list[nn.Module]:
    """The parts of strides 2, 4, 8, 16, 32, each an nn.Sequential that takes the output of the one before."""
    if name.startswith(("resnet", "resnext", "wide_resnet")):
        if final_conv:
            raise ConfigError("final_conv=True", field=f"backbone torchvision/{name}", allowed="a ResNet has none")
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
    ends = (*cuts[:-1], cuts[-1] + final_conv)
    return [network.features[a:b] for a, b in zip((0, *ends), ends, strict=False)]


def _width(stage: nn.Module) -> int:
    """Channels that a stage gives: those of its last batch norm (every stage here ends in one, at most then a ReLU)."""
    return [m.num_features for m in stage.modules() if isinstance(m, nn.BatchNorm2d)][-1]
