"""Any timm model that gives feature maps, as a backbone. timm is imported here and nowhere else."""

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub.constants as hub
import timm
import torch
import torch.nn.functional as F
from timm.layers.halo_attn import HaloAttn
from timm.layers.non_local_attn import BilinearAttnTransform
from timm.models import FeatureInfo, model_entrypoint
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from torchfpn.backbones.hub import Published, hub_file, offline, offline_if_unreachable, unavailable
from torchfpn.backbones.inputs import RGB, BandInit, check_bands, widen_first_conv
from torchfpn.backbones.levels import pick_by_stride
from torchfpn.backbones.recognise import kin
from torchfpn.backbones.swin import shift_by_size
from torchfpn.backbones.weights import Fitting, Wanted, fitting_weights
from torchfpn.errors import ConfigError
from torchfpn.ops.padding import crop
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


class Grid(NamedTuple):
    """What the images of a network have to be so that its maps can be laid on the grid of their strides.

    multiple: of which both sides are multiples. least: pixels that a side has at least.
    """

    multiple: int
    least: int = 1


# By the module that defines them. Convolutions without padding: maps are smaller than images over strides, by as many
# cells on each side, and images below `least` pixels have none.
UNPADDED = Grid(32, 96)
GRIDS = dict.fromkeys(("inception_v3", "inception_v4", "inception_resnet_v2", "xception"), UNPADDED)
GRIDS["csatv2"] = Grid(64)  # rounds sides of maps down
EVEN = Grid(64)  # mobilevitv2: maps are resampled to an even number of cells
RED_GREEN_BLUE = ("csatv2",)  # by module: turns colours into luma and chroma itself
_building = threading.RLock()  # timm's logger and the hub client's settings are those of the process


class TimmBackbone(nn.Module):
    """images [B, C, H, W] -> maps at `strides`, finest first, always NCHW whatever the model's own layout.

    Maps have H and W over their stride, rounded up, of every network: where a network needs certain sizes, images are
    grown at the right and the bottom, and its maps are laid on the grid.
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
        **options: Any,
    ) -> None:
        super().__init__()
        check_bands(in_channels, rgb, band_init)
        if in_channels != 3 and _family(name) in RED_GREEN_BLUE:
            found, allowed = f"{in_channels} bands for {name}", "3: it takes red, green and blue apart itself"
            raise ConfigError(found, field="in_channels", allowed=allowed, hint="take another backbone")
        self.name, self.in_channels = name, in_channels
        bands = in_channels if band_init == "repeat" else 3  # timm's own way is "repeat"
        given: Fitting | bool = (
            pretrained if isinstance(pretrained, bool) else _from_file(name, pretrained, in_channels)
        )
        if isinstance(given, Fitting) and given.bands == in_channels != 3:
            bands, band_init = in_channels, "repeat"  # of a file that has learnt from as many: taken as they are
        self.features = _features(name, bands, given, options)
        available = _levels(self.features)
        self.indices = pick_by_stride(available, strides, name=name)
        self.levels = tuple(available[index] for index in self.indices)
        self._whole = (bands, options)
        if self.indices[-1] < len(available) - 1:  # what lies behind the last map is left out
            kept = _out_indices(self.features)[: self.indices[-1] + 1]
            self.features = _features(name, bands, given, {**options, "out_indices": kept})
        _cut_unread(self.features)
        if band_init != "repeat":
            widen_first_conv(self.features, in_channels, band_init, rgb, names=_first_convs(name))
        shift_by_size(self.features)
        self.channels_last_maps = str(getattr(self.features, "output_fmt", "NCHW")).endswith("NHWC")
        self.grid = _grid(name, self.features)

    def forward(self, images: Tensor) -> Maps:
        """[B, C, H, W] -> C2..C5, each of H and W over its stride, rounded up."""
        grown = images if self.grid is None else _grown(images, self.grid)
        maps = self.features(grown)
        picked = tuple(maps[index] for index in self.indices)
        if self.channels_last_maps:
            picked = tuple(x.permute(0, 3, 1, 2).contiguous() for x in picked)
        if self.grid is None:
            return picked
        size, whole = images.shape[-2:], grown.shape[-2:]
        return tuple(_on_grid(x, level.stride, size, whole) for x, level in zip(picked, self.levels, strict=True))

    def unread(self) -> dict[str, torch.Size]:
        """Names and shapes of the network's tensors behind the last map, which this module does not have."""
        bands, options = self._whole
        whole = _features(self.name, bands, False, options).state_dict()
        own = self.state_dict()
        return {key: whole[name].shape for name in whole if (key := f"features.{name}") not in own}

    def extra_repr(self) -> str:
        """Name and levels."""
        return f"{self.name}, levels={[tuple(level) for level in self.levels]}"


def _grid(name: str, features: nn.Module) -> Grid | None:
    """What images a network needs; None: any."""
    inner: list[Any] = [module for module in features.modules() if isinstance(module, HaloAttn | BilinearAttnTransform)]
    blocks = [int(module.block_size) for module in inner]
    if blocks:  # attention within blocks of whole cells
        return Grid(32 * max(blocks))
    return EVEN if name.startswith("mobilevitv2") else GRIDS.get(_family(name))


def _grown(images: Tensor, grid: Grid) -> Tensor:
    """Images with zeros at the right and the bottom, as a network needs them."""
    height, width = images.shape[-2:]
    rows, columns = (max(side, grid.least) for side in (height, width))
    size = [side + -side % grid.multiple for side in (rows, columns)]
    return F.pad(images, (0, size[1] - width, 0, size[0] - height))


def _on_grid(x: Tensor, stride: int, size: Sequence[int], grown: Sequence[int]) -> Tensor:
    """A map of images of size `grown` -> the cells of images of size `size`: as many as their sides over the stride.

    A map that is too small has lost cells at all four sides; those that are nearest stand for them.
    """
    rows, columns = (-(-whole // stride) - side for whole, side in zip(grown, x.shape[-2:], strict=True))
    if rows > 0 or columns > 0:
        top, left = (max(missing, 0) - max(missing, 0) // 2 for missing in (rows, columns))
        x = F.pad(x, (left, max(columns, 0) - left, top, max(rows, 0) - top), mode="replicate")
    return crop(x, [-(-side // stride) for side in size])


def _config(name: str) -> Any:
    """What timm knows of the network and its published weights; None of networks it does not list.

    Raises:
        ConfigError: the network has no weights of that tag.
    """
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        architecture = name.partition(".")[0]
        tags = [known for known in timm.list_pretrained(f"{architecture}.*") if known.startswith(f"{architecture}.")]
        raise ConfigError(f'"{name}"', field="backbone", allowed=" | ".join([architecture, *tags])) from error


def _levels(features: Any) -> list[Level]:
    info: FeatureInfo = features.feature_info
    return [Level(c, r) for c, r in zip(info.channels(), info.reduction(), strict=True)]


def _first_convs(name: str) -> tuple[str, ...]:
    """What timm says sees the images: of networks with branches more than one convolution."""
    config = _config(name)
    names = config.first_conv if config is not None else None
    return (names,) if isinstance(names, str) else tuple(names or ())


def _out_indices(features: Any) -> tuple[int, ...]:
    """Which of timm's maps come out, in the order of `_levels`."""
    return tuple(features.feature_info.out_indices)


def _cut_unread(features: Any) -> None:
    """Takes off the blocks behind the last map, which timm leaves on two of its families."""
    if isinstance(features, EfficientNetFeatures | MobileNetV3Features) and features.feature_hooks is None:
        features.blocks = features.blocks[: max(features._stage_out_idx)]


def _features(name: str, in_channels: int, pretrained: Fitting | bool, options: dict[str, Any]) -> nn.Module:
    options = {**_any_size(name, options), **options}
    overlay: dict[str, Any] = {}
    if isinstance(pretrained, Fitting):
        overlay = {"state_dict": dict(pretrained.tensors)}
        if pretrained.bands == in_channels:  # else timm would adapt what fits as it is
            config = _config(name)
            size = config.input_size[1:] if config is not None else (224, 224)
            overlay |= {"input_size": (in_channels, *size), "first_conv": None}
        overlay = {"pretrained_cfg_overlay": overlay}
    try:
        with _building, _quiet(), _asking(name) if pretrained is True else nullcontext():
            network: nn.Module = timm.create_model(
                name, features_only=True, in_chans=in_channels, pretrained=pretrained is not False, **overlay, **options
            )
    except Exception as error:  # the hub client has many ways to say that there is no network
        if isinstance(error, TypeError) and (unknown := _refused(error, options)):
            raise ConfigError(f"{name} has no such option", field=f"backbone_options.{unknown}") from error
        if pretrained is True:
            raise unavailable(name, published(name), error) from error
        if "output_stride" in options:
            found = f"output_stride {options['output_stride']}"
            hint = "resnet50 and most of timm's other CNNs can be"
            raise ConfigError(found, field="backbone", hint=f"{name} cannot be dilated; {hint}") from error
        raise ConfigError(f'"{name}" gives no feature maps: {error}', field="backbone") from error
    return network


def published(name: str) -> Published | None:
    """The weights that timm publishes for the network, None where there are none; asks no network."""
    config = _config(name)
    if config is None or not config.has_weights:
        return None
    if config.hf_hub_id:
        repository, file = config.hf_hub_id, config.hf_hub_filename
        names = (file,) if file else ("model.safetensors", "pytorch_model.bin")
        folder = Path(hub.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")
        how = f"on a machine with a network `hf download {repository}` keeps {names[0]}: copy the folder to {folder}"
        return Published(repository, how, hub_file(repository, names))
    place = Path(torch.hub.get_dir(), "checkpoints", str(config.url).rpartition("/")[2])
    how = f"put {place.name} (from {config.url}) into {place.parent}"
    return Published(f"timm's {place.name}", how, place if place.is_file() else None)


def _asking(name: str) -> AbstractContextManager[None]:
    """Inside, timm downloads what is not here yet; a local copy is taken without asking whether it is the newest."""
    weights = published(name)
    return offline() if weights is not None and weights.file is not None else offline_if_unreachable()


def _refused(error: TypeError, options: dict[str, Any]) -> str | None:
    """Which of the options the network's function or class does not have; of output_stride that is said elsewhere."""
    names = (name for name in options if name != "output_stride")
    return next((name for name in names if f"unexpected keyword argument '{name}'" in str(error)), None)


def _any_size(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What makes the model take any size.

    Raises:
        ConfigError: nothing does, and no size was chosen.
    """
    family, config = _family(name), _config(name)
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


def _from_file(name: str, path: str | Path, in_channels: int) -> Fitting:
    """The tensors of a file of the whole network.

    timm loads feature extractors non-strictly, which would leave the wrong file unnoticed, so that they are compared
    with the whole network here: every tensor of it must be in the file, and no others but the classifier's.
    """
    network = _without_storage(name, num_classes=0)
    rename = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)

    def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if rename is None:
            return tensors
        try:
            return dict(rename(tensors, network))
        except TypeError:  # some take the tensors alone
            return dict(rename(tensors))

    wanted = Wanted(
        name,
        {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()},
        _classifiers(name, network),
        tuple(f"{conv}.weight" for conv in _first_convs(name)),
        lambda tensors: kin(tensors, name),
        renamed,
    )
    return fitting_weights(path, wanted, in_channels)


def _without_storage(name: str, **options: int) -> nn.Module:
    """The whole network, for names and shapes; with storage where it cannot be without."""
    try:
        with torch.device("meta"):
            network: nn.Module = timm.create_model(name, **options)
    except (RuntimeError, NotImplementedError):  # torch raises these where an operator cannot run on meta tensors
        network = timm.create_model(name, **options)
    return network


def _classifiers(name: str, headless: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of the classifier's tensors."""
    config = _config(name)
    names = config.classifier if config is not None else None
    own = headless.state_dict()
    only = (key for key in _without_storage(name).state_dict() if key not in own)
    return (*(f"{each}." for each in ((names,) if isinstance(names, str) else names or ())), *only, "AuxLogits.")


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
