"""EfficientNet of lukemelas/EfficientNet-PyTorch, under the names of its tensors, for weights trained with it.

The "efficientnet-b*" encoders of segmentation_models.pytorch and the EfficientNets of pytorch-fpn are this network. It
differs from timm's in its padding: TensorFlow's "same" for images of one native size (224 for b0), whatever the size of
the image, so that convolutions of stride 2 may start a pixel further left. For new trainings use timm's.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from torchfpn.backbones.first_conv import RGB, BandInit, check_bands, widen_first_conv
from torchfpn.backbones.names import LUKEMELAS, LUKEMELAS_PREFIX
from torchfpn.backbones.timm import pick_by_stride
from torchfpn.backbones.weights import Wanted, fitting_weights
from torchfpn.errors import ConfigError, WeightsError, nearest
from torchfpn.types import Level, Maps

DROP_RATE = 0.2  # of the last block; those before it have their share of it


class Scale(NamedTuple):
    """What b0 is multiplied by, and the side of the images it was made for (Tan & Le 2019; their code)."""

    width: float
    depth: float
    size: int


SCALES = dict(
    zip(
        LUKEMELAS,
        (
            Scale(1.0, 1.0, 224),
            Scale(1.0, 1.1, 240),
            Scale(1.1, 1.2, 260),
            Scale(1.2, 1.4, 300),
            Scale(1.4, 1.8, 380),
            Scale(1.6, 2.2, 456),
            Scale(1.8, 2.6, 528),
            Scale(2.0, 3.1, 600),
            Scale(2.2, 3.6, 672),
        ),
        strict=True,
    )
)


class Row(NamedTuple):
    """A row of table 1 of Tan & Le 2019: a run of blocks; the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int


ROWS = (
    Row(1, 3, 1, 1, 16),
    Row(2, 3, 2, 6, 24),
    Row(2, 5, 2, 6, 40),
    Row(3, 3, 2, 6, 80),
    Row(3, 5, 1, 6, 112),
    Row(4, 5, 2, 6, 192),
    Row(1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "same" would for maps of `size` cells a side, whatever map it gets."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, size: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=stride, groups=groups, bias=False)
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        self.before, self.behind = total // 2, total - total // 2

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, H / stride, W / stride]."""
        return super().forward(F.pad(x, (self.before, self.behind, self.before, self.behind)))


class MBConv(nn.Module):
    """An inverted residual block with squeeze and excitation (Sandler et al. 2018; Tan & Le 2019)."""

    def __init__(self, in_channels: int, row: Row, *, stride: int, size: int, drop: float) -> None:
        super().__init__()
        wide, squeezed = in_channels * row.expand, max(1, in_channels // 4)
        self.expands = row.expand != 1
        if self.expands:
            self._expand_conv = SameConv(in_channels, wide, 1, size=size)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv(wide, wide, row.kernel, size=size, stride=stride, groups=wide)
        self._bn1 = _norm(wide)
        self._se_reduce = nn.Conv2d(wide, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, wide, 1)
        self._project_conv = SameConv(wide, row.width, 1, size=size)
        self._bn2 = _norm(row.width)
        self.drop = StochasticDepth(drop, "row") if stride == 1 and in_channels == row.width else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, row.width, H / stride, W / stride]."""
        wide = F.silu(self._bn0(self._expand_conv(x))) if self.expands else x
        y: Tensor = F.silu(self._bn1(self._depthwise_conv(wide)))
        squeezed = F.silu(self._se_reduce(y.mean((2, 3), keepdim=True)))
        y = self._bn2(self._project_conv(y * self._se_expand(squeezed).sigmoid()))
        return y if self.drop is None else x + self.drop(y)


class LukemelasEfficientNet(nn.Module):
    """images -> maps of strides 2, 4, 8, 16, 32; with `head`, a sixth of stride 32 behind the last 1x1 convolution.

    name: "efficientnet_b0" to b8. num_classes: keeps the unused classifier that checkpoints of whole networks have.
    """

    def __init__(self, name: str, *, in_channels: int = 3, head: bool = False, num_classes: int | None = None) -> None:
        super().__init__()
        if name not in SCALES:
            hint = nearest(name, SCALES)
            raise ConfigError(f'"{name}"', field="backbone", allowed=f"{LUKEMELAS_PREFIX}<name>", hint=hint)
        scale = SCALES[name]
        size, width = scale.size, rounded(32, scale.width)
        self._conv_stem = SameConv(in_channels, width, 3, size=size, stride=2)
        self._bn0 = _norm(width)
        self._blocks = nn.ModuleList()
        self.ends: list[int] = []  # the block after which each map is taken
        levels, stride = [], 2
        for row, block_stride, block_size, drop in _blocks(scale):
            if block_stride == 2:
                self.ends.append(len(self._blocks) - 1)
                levels.append(Level(width, stride))
                stride *= 2
            self._blocks.append(MBConv(width, row, stride=block_stride, size=block_size, drop=drop))
            width = row.width
        self.ends.append(len(self._blocks) - 1)
        levels.append(Level(width, stride))
        self.head = head
        if head:
            top = rounded(1280, scale.width)
            self._conv_head = SameConv(width, top, 1, size=1)
            self._bn1 = _norm(top)
            levels.append(Level(top, stride))
        if num_classes is not None:
            self._fc = nn.Linear(rounded(1280, scale.width), num_classes)
        self.all_levels = tuple(levels)

    def forward(self, images: Tensor) -> Maps:
        """[B, C, H, W] -> maps, finest first."""
        x = F.silu(self._bn0(self._conv_stem(images)))
        maps = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in self.ends:
                maps.append(x)
        if self.head:
            maps.append(F.silu(self._bn1(self._conv_head(x))))
        return tuple(maps)


class LukemelasBackbone(LukemelasEfficientNet):
    """images [B, C, H, W] -> maps at `strides`, finest first. pretrained: a file of the whole network, or False.

    ends: the block after which each map is taken, where that is not the last one of its stride.
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
        ends: Sequence[int] | None = None,
    ) -> None:
        super().__init__(name)
        self.ends = list(self.ends if ends is None else ends)
        if pretrained is True:
            raise WeightsError(
                f"no weights of {LUKEMELAS_PREFIX}{name} to download",
                hint="give their file, pretrained=<path>, or take timm's tf_efficientnet",
            )
        check_bands(in_channels, rgb, band_init)
        if not pretrained or not _load(self, Path(pretrained), name, in_channels):
            widen_first_conv(self, in_channels, band_init, rgb)
        self.name, self.in_channels = name, in_channels
        self.indices = pick_by_stride(self.all_levels, strides, name=f"{LUKEMELAS_PREFIX}{name}")
        self.levels = tuple(self.all_levels[i] for i in self.indices)
        self._blocks = self._blocks[: self.ends[self.indices[-1]] + 1]  # what lies behind the last map is left out

    def forward(self, images: Tensor) -> Maps:
        """[B, C, H, W] -> C2..C5."""
        maps = super().forward(images)
        return tuple(maps[i] for i in self.indices)

    def extra_repr(self) -> str:
        """Name and levels."""
        return f"{self.name}, levels={[tuple(level) for level in self.levels]}"


def blocks_and_width(name: str) -> tuple[int, int]:
    """How many blocks the network has, and the channels behind its last 1x1 convolution: no two have both alike."""
    return len(list(_blocks(SCALES[name]))), rounded(1280, SCALES[name].width)


def rounded(channels: int, factor: float) -> int:
    """`channels` times `factor`, to the nearest multiple of 8 that is not more than a tenth below."""
    wanted = channels * factor
    near = max(8, int(wanted + 4) // 8 * 8)
    return near + 8 if near < 0.9 * wanted else near


def _blocks(scale: Scale) -> Iterator[tuple[Row, int, int, float]]:
    """Each block: its row with scaled width, its own stride, the side of its input, its drop rate."""
    repeats = [-(-round(row.repeats * scale.depth * 10) // 10) for row in ROWS]
    size, done = -(-scale.size // 2), 0
    for row, count in zip(ROWS, repeats, strict=True):
        scaled = row._replace(width=rounded(row.width, scale.width))
        for i in range(count):
            stride = row.stride if i == 0 else 1
            yield scaled, stride, size, DROP_RATE * done / sum(repeats)
            size, done = -(-size // stride), done + 1


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _load(network: nn.Module, path: Path, name: str, in_channels: int) -> bool:
    """The file's tensors into `network`; whether its first convolution takes `in_channels` bands then.

    The last convolution's and the classifier's, which the network does not have, are left out.
    """
    full, unused = LUKEMELAS_PREFIX + name, ("_conv_head.", "_bn1.", "_fc.")
    own = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    given = fitting_weights(path, Wanted(full, own, unused, ("_conv_stem.weight",), _kin), in_channels)
    if given.bands != 3:
        widen_first_conv(network, in_channels)
    tensors = {key: tensor for key, tensor in given.renamed.items() if key in own}
    network.load_state_dict(network.state_dict() | tensors)
    return given.bands == in_channels != 3


def _kin(tensors: Mapping[str, Tensor]) -> str | None:
    """The network whose depth and last width these are."""
    depth = len({key.split(".")[1] for key in tensors if key.startswith("_blocks.")})
    last = tensors.get("_conv_head.weight")
    fitting = (name for name in SCALES if last is not None and blocks_and_width(name) == (depth, len(last)))
    found = next(fitting, None)
    return found and LUKEMELAS_PREFIX + found
