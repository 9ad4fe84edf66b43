"""Any timm model that gives feature maps, as a backbone. timm is imported here and nowhere else."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import FeatureInfo, load_pretrained, model_entrypoint
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from torchfpn.backbones.hub import offline_if_unreachable
from torchfpn.backbones.inputs import RGB, BandInit, check_bands, widen_first_conv
from torchfpn.backbones.levels import pick_by_stride
from torchfpn.errors import ConfigError, WeightsError
from torchfpn.files.checkpoints import read_tensors
from torchfpn.types import Level, Maps

# What the transformers must be told so that they take images of any size, by the module that defines them.
ANY_SIZE: dict[str, dict[str, Any]] = {
    "vision_transformer": {"dynamic_img_size": True},
    "deit": {"dynamic_img_size": True},
    "eva": {"dynamic_img_size": True},
    "swin_transformer": {"strict_img_size": False},
    "swin_transformer_v2": {"strict_img_size": False},
    "swin_transformer_v2_cr": {"strict_img_size": False},
    "xcit": {},
}


class TimmBackbone(nn.Module):
    """images [B, C, H, W] -> maps at `strides`, finest first, always NCHW whatever the model's own layout."""

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        pretrained: bool | str | Path = False,
        strides: Sequence[int] | None = None,
        band_init: BandInit = "repeat",
        rgb: Sequence[int] = RGB,
        **options: Any,
    ) -> None:
        super().__init__()
        check_bands(in_channels, rgb, band_init)
        self.name, self.in_channels = name, in_channels
        bands = in_channels if band_init == "repeat" else 3  # timm's own way is "repeat"
        self.features = _features(name, bands, pretrained, options)
        available = _levels(self.features)
        self.indices = pick_by_stride(available, strides, name=name)
        self.levels = tuple(available[index] for index in self.indices)
        self._whole = (bands, options)
        if self.indices[-1] < len(available) - 1:  # what lies behind the last map is left out
            kept = _out_indices(self.features)[: self.indices[-1] + 1]
            self.features = _features(name, bands, pretrained, {**options, "out_indices": kept})
        _cut_unread(self.features)
        if band_init != "repeat":
            widen_first_conv(self.features, in_channels, band_init, rgb, names=_first_convs(name))
        self.channels_last_maps = str(getattr(self.features, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> Maps:
        """[B, C, H, W] -> C2..C5."""
        maps = self.features(images)
        picked = tuple(maps[index] for index in self.indices)
        return tuple(x.permute(0, 3, 1, 2).contiguous() for x in picked) if self.channels_last_maps else picked

    def unread(self) -> dict[str, torch.Size]:
        """Names and shapes of the network's tensors behind the last map, which this module does not have."""
        bands, options = self._whole
        whole = _features(self.name, bands, False, options).state_dict()
        own = self.state_dict()
        return {key: whole[name].shape for name in whole if (key := f"features.{name}") not in own}

    def extra_repr(self) -> str:
        """Name and levels."""
        return f"{self.name}, levels={[tuple(level) for level in self.levels]}"


def _levels(features: Any) -> list[Level]:
    info: FeatureInfo = features.feature_info
    return [Level(c, r) for c, r in zip(info.channels(), info.reduction(), strict=True)]


def _first_convs(name: str) -> tuple[str, ...]:
    """What timm says sees the images: of networks with branches more than one convolution."""
    config = timm.get_pretrained_cfg(name)
    names = config.first_conv if config is not None else None
    return (names,) if isinstance(names, str) else tuple(names or ())


def _out_indices(features: Any) -> tuple[int, ...]:
    """Which of timm's maps come out, in the order of `_levels`."""
    return tuple(features.feature_info.out_indices)


def _cut_unread(features: Any) -> None:
    """Takes off the blocks behind the last map, which timm leaves on two of its families."""
    if isinstance(features, EfficientNetFeatures | MobileNetV3Features) and features.feature_hooks is None:
        features.blocks = features.blocks[: max(features._stage_out_idx)]


def _features(name: str, in_channels: int, pretrained: bool | str | Path, options: dict[str, Any]) -> nn.Module:
    options = {**_any_size(name, options), **options}
    overlay = {}
    if not isinstance(pretrained, bool):
        overlay = {"pretrained_cfg_overlay": {"state_dict": _checked(name, Path(pretrained))}}
    try:
        with _quiet(), offline_if_unreachable() if pretrained is True else nullcontext():
            network: nn.Module = timm.create_model(
                name, features_only=True, in_chans=in_channels, pretrained=bool(pretrained), **overlay, **options
            )
    except Exception as error:  # the hub client has many ways to say that there is no network
        if isinstance(error, TypeError) and (unknown := _refused(error, options)):
            raise ConfigError(f"{name} has no such option", field=f"backbone_options.{unknown}") from error
        if pretrained is True:
            raise WeightsError(
                f"the pretrained weights of {name} could not be downloaded",
                hint="give a local file instead, pretrained=<path to .safetensors or .pth>, or pretrained=False",
            ) from error
        if "output_stride" in options:
            found = f"output_stride {options['output_stride']}"
            hint = "resnet50 and most of timm's other CNNs can be"
            raise ConfigError(found, field="backbone", hint=f"{name} cannot be dilated; {hint}") from error
        raise ConfigError(f'"{name}" gives no feature maps: {error}', field="backbone") from error
    return network


def _refused(error: TypeError, options: dict[str, Any]) -> str | None:
    """Which of the options the network's function or class does not have; of output_stride that is said elsewhere."""
    names = (name for name in options if name != "output_stride")
    return next((name for name in names if f"unexpected keyword argument '{name}'" in str(error)), None)


def _any_size(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What makes the model take any size.

    Raises:
        ConfigError: nothing does, and no size was chosen.
    """
    family, config = _family(name), timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size and family not in ANY_SIZE and "img_size" not in options:
        raise ConfigError(
            f'"{name}" takes images of one size',
            field="backbone",
            allowed="networks for images of any size",
            hint='or choose the size: backbone_options={"img_size": 256}, and give it no other',
        )
    return ANY_SIZE.get(family, {})


def _family(name: str) -> str:
    """The module of timm that defines the model."""
    return str(model_entrypoint(name.split(".", 1)[0]).__module__.rpartition(".")[2])


def _checked(name: str, path: Path) -> dict[str, Tensor]:
    """The file's tensors, after proving on the whole network that every tensor of it is in the file.

    timm loads feature extractors non-strictly, which would leave the wrong file unnoticed: the network is filled with
    NaN first, and what is still NaN afterwards was not in the file.
    """
    tensors, _ = read_tensors(path)
    network = timm.create_model(name, num_classes=0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
    rename = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    config = {**network.pretrained_cfg, "state_dict": dict(tensors)}
    try:
        with _quiet():
            load_pretrained(network, config, num_classes=0, filter_fn=rename, strict=False)
        missing = [key for key, value in network.state_dict().items() if value.isnan().any()]
        problem = f"{len(missing)} tensors are missing: {', '.join(missing[:5])}" if missing else ""
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
    if problem:
        raise WeightsError(f"not {name}: {problem}", file=path, hint="torchvision's files go with torchvision/<name>")
    return tensors


@contextmanager
def _quiet() -> Iterator[None]:
    """Without timm's list of the classifier's tensors, which are left out on purpose."""
    logger = logging.getLogger("timm.models._builder")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
