"""Any timm model with feature maps as a backbone, its published weights, and Swin transformers at any image size."""

import logging
import re
import socket
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import urlsplit

import huggingface_hub.constants as hub
import timm
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from timm.layers.halo_attn import HaloAttn
from timm.layers.non_local_attn import BilinearAttnTransform
from timm.models import FeatureInfo, model_entrypoint
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from timm.models.swin_transformer_v2_cr import SwinTransformerV2CrBlock
from torch import Tensor, nn

from torchfpn.backbones.first_conv import RGB, BandInit, check_bands, widen_first_conv
from torchfpn.backbones.weights import Fitting, Wanted, fitting_weights, kin
from torchfpn.errors import ConfigError, WeightsError
from torchfpn.nn.layers import shapes_only
from torchfpn.ops.resize import crop
from torchfpn.types import Level, Maps

FINEST = 4  # C2: what lies above it (C1) is left out of the pyramid, as in Lin et al. 2017
LONGEST = 120  # characters of a library's message in ours
IMAGENET = re.compile(r"imagenet|in(?:1|12|21|22)k", re.IGNORECASE)
APART = -100.0  # added to the logits of two cells that are no neighbours; as timm has it

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

RED_GREEN_BLUE = ("csatv2",)  # by module: turns colours into luma and chroma itself
_building = threading.RLock()  # timm's logger and the hub client's settings are those of the process


def pick_by_stride(available: Sequence[Level], strides: Sequence[int] | None, *, name: str) -> tuple[int, ...]:
    """Indices of the maps of the wanted strides, finest first; the last maps of a stride that several share.

    None: every map from stride 4 on, which is C2..C5 of a classification network, also of a dilated one (4, 8, 8, 8).
    Of a network whose maps all have one stride (a plain vision transformer) it is the last.

    Raises:
        ConfigError: a stride that the network does not give, or not that often; those it gives are named.
    """
    given = [level.stride for level in available]
    if strides is None:
        if len(set(given)) == 1:
            return (len(given) - 1,)
        return tuple(i for i, stride in enumerate(given) if stride >= FINEST)
    wanted = Counter(strides)
    if not wanted or any(count > given.count(stride) for stride, count in wanted.items()):
        choices = sorted(given)
        raise ConfigError(
            f"strides {list(strides)}",
            field=f"backbone {name}",
            allowed=f"some of its strides {choices}",
            hint=f"choose with strides=({', '.join(map(str, choices))},)",
        )
    picked: list[int] = []
    for stride, count in wanted.items():
        picked += [i for i, s in enumerate(given) if s == stride][-count:]
    return tuple(sorted(picked))


class Published(NamedTuple):
    """Weights that a library publishes.

    name: "timm/resnet50.a1_in1k", "torchvision's ResNet50_Weights.IMAGENET1K_V2". how: what to do on a machine with a
    network, and where the file goes. file: the local copy; None without one.
    """

    name: str
    how: str
    file: Path | None

    def __str__(self) -> str:
        return f"{'ImageNet' if IMAGENET.search(self.name) else 'published'}, from {self.name}"


def hub_file(repository: str, names: tuple[str, ...]) -> Path | None:
    """The local copy of the first of these files of a repository of the model hub; asks no network."""
    for name in names:
        found = try_to_load_from_cache(repository, name, cache_dir=hub.HF_HUB_CACHE)
        if isinstance(found, str):
            return Path(found)
    return None


def unavailable(backbone: str, weights: Published | None, error: Exception | None = None) -> WeightsError:
    """What to raise where published weights cannot be had, with the ways to go on. error: what the library said."""
    other = "pretrained=False (--model.pretrained false) starts from random weights"
    if weights is None:
        hint = f"give a file, pretrained=FILE (--model.pretrained FILE); {other}"
        return WeightsError(f"no pretrained weights of {backbone} are published", field="pretrained", hint=hint)
    if weights.file is not None:
        found = f"the local copy of {weights.name} cannot be loaded ({' '.join(str(error).split())[:LONGEST]})"
        return WeightsError(found, file=weights.file, hint=f"delete it, it is downloaded again; {other}")
    return WeightsError(
        f"the pretrained weights of {backbone} could not be downloaded",
        field="pretrained",
        hint=f"{weights.how}; or give a local file, pretrained=FILE (--model.pretrained FILE); {other}",
    )


@contextmanager
def offline() -> Iterator[None]:
    """Inside, the hub client takes what is in its cache and asks no network."""
    with patch.object(hub, "HF_HUB_OFFLINE", True):
        yield


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Inside, the hub client is offline when the hub's name cannot be resolved (a proxy resolves for itself).

    Without this the client tries each file six times with growing pauses, most of a minute, before it says so.
    """
    if urllib.request.getproxies() or _resolves(urlsplit(hub.ENDPOINT).hostname or ""):
        yield
        return
    with offline():
        yield


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def shift_by_size(features: nn.Module) -> None:
    """Makes the blocks of a Swin transformer of any size shift their windows where a map is larger than a window.

    A map no larger than a window is one window, which is not shifted (Liu et al. 2021, section 3.2). timm decides that
    once, for the image size a network is built for: built for 224 pixels, the last stage, 7 x 7 cells in windows of 7,
    would not be shifted for larger images either. Here each forward pass decides.
    """
    for module in features.modules():
        block: Any = module
        kind = KINDS.get(type(module))
        if kind is None or block.always_partition or not block.dynamic_mask or not any(block.target_shift_size):
            continue
        if tuple(block.target_shift_size) == tuple(side // 2 for side in block.window_size):  # else the window was cut
            block.__class__ = kind


def windows_attend(block: Any, x: Tensor) -> Tensor:
    """Attention within shifted windows: [B, H, W, C] -> the same shape. Equals timm's of a network built for that size.

    block: with `window_size`, `target_shift_size`, and `attn` of windows [N, cells, C] and a mask [n, cells, cells].
    """
    images, height, width, channels = x.shape
    rows, columns = block.window_size
    down = _shift(height, rows, block.target_shift_size[0])
    right = _shift(width, columns, block.target_shift_size[1])
    moved = F.pad(torch.roll(x, (-down, -right), (1, 2)), (0, 0, 0, -width % columns, 0, -height % rows))
    tall, wide = moved.shape[1] // rows, moved.shape[2] // columns
    windows = moved.view(images, tall, rows, wide, columns, channels).transpose(2, 3)
    regions = 3 * _regions(tall * rows, rows, down, x)[:, None] + _regions(wide * columns, columns, right, x)
    cells = regions.view(tall, rows, wide, columns).transpose(1, 2).reshape(tall * wide, rows * columns)
    mask = (cells[:, None] != cells[:, :, None]).to(x.dtype) * APART
    seen = block.attn(windows.reshape(-1, rows * columns, channels), mask=mask)
    seen = seen.view(images, tall, wide, rows, columns, channels).transpose(2, 3)
    seen = seen.reshape(images, tall * rows, wide * columns, channels)[:, :height, :width]
    return torch.roll(seen, (down, right), (1, 2))


def _shift(size: int, window: int, shift: int) -> int:
    if isinstance(size, torch.SymInt):  # an exported graph must hold for either case
        chosen: int = torch.sym_ite(size > window, shift, 0)
        return chosen
    return shift if size > window else 0


def _regions(length: int, window: int, shift: int, like: Tensor) -> Tensor:
    """0, 1 or 2 for each cell along a side: before the last window, in it, and what was moved there from the start."""
    place = torch.arange(length, device=like.device)
    return (place >= length - window).long() + (place >= length - shift).long()


class _Block(SwinTransformerBlock):  # type: ignore[misc]  # timm has no types
    def _attn(self, x: Tensor) -> Tensor:
        return windows_attend(self, x)


class _BlockV2(SwinTransformerV2Block):  # type: ignore[misc]
    def _attn(self, x: Tensor) -> Tensor:
        return windows_attend(self, x)


class _BlockV2Cr(SwinTransformerV2CrBlock):  # type: ignore[misc]
    def _shifted_window_attn(self, x: Tensor) -> Tensor:
        return windows_attend(self, x)


KINDS: dict[type, type] = {
    SwinTransformerBlock: _Block,
    SwinTransformerV2Block: _BlockV2,
    SwinTransformerV2CrBlock: _BlockV2Cr,
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
        with shapes_only():
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
