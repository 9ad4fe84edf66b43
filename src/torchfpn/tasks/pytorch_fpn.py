"""The models of AdeelH/pytorch-fpn (2021) under the names of their tensors, for old checkpoints.

They compute what the original computes, its oddities included; `torchfpn.make_fpn_resnet` builds better ones.

- fpn: every level has its own classifier, but only the output of the finest one is used.
- panoptic: no top-down path; level k passes k convolutions, the last enlarged to the finest map.
- panet: the output is taken where the bottom-up path begins, so the path itself is never used.

Unused weights are kept, so that a state_dict fits whole, but nothing is computed with them. The original accepts one
image size; here every map is enlarged to the size of the map it is added to, which is the same at that size.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from torchfpn.backbones.fusion import SplitBands
from torchfpn.backbones.lukemelas import LukemelasEfficientNet
from torchfpn.errors import ConfigError, amount, nearest
from torchfpn.nn.containers import Parallel, Stages, Sum, chain
from torchfpn.types import Maps, Size

GROUPS = 32  # of every group norm


def original(
    name: str,
    fpn_type: str,
    *,
    out_size: Size | None,
    fpn_channels: int,
    num_classes: int,
    in_channels: int,
    fused: bool,
) -> nn.Sequential:
    """Images [B, C, H, W] -> logits [B, num_classes, *out_size], or of the images' size where out_size is None.

    name: of a torchvision ResNet, or efficientnet_b0 to b8. fused: two backbones, one for the first three bands and one
    for the rest: FuseNet's wiring for ResNets, a sum of the maps for EfficientNets.

    Raises:
        ConfigError: an unknown name or type, a width that 32 groups do not divide.
    """
    if fpn_type not in NECKS:
        raise ConfigError(f'"{fpn_type}"', field="fpn_type", allowed=" | ".join(NECKS), hint=nearest(fpn_type, NECKS))
    if fused and in_channels < 4:
        raise ConfigError(amount(in_channels, "band"), field="fused", allowed="more than three bands")
    build = _efficientnet if name.startswith("efficientnet_") else _resnet
    backbone, widths = build(name, in_channels, num_classes, fused=fused)
    return Original(backbone, NECKS[fpn_type](widths, fpn_channels, num_classes), Resize(out_size))


class Original(nn.Sequential):
    """The three of them in a row; the last one is told the size of the images."""

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K, H, W], or the size that was asked for."""
        backbone, neck, resize = self
        logits: Tensor = resize(neck(backbone(images)), images.shape[-2:])
        return logits


class Resize(nn.Module):
    """Bilinear, to `size` or to the size that the call names."""

    def __init__(self, size: Size | None) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """[B, K, h, w] -> [B, K, H, W]."""
        return F.interpolate(x, size=self.size or tuple(size), mode="bilinear")

    def extra_repr(self) -> str:
        """The size."""
        return str(self.size or "as the images")


class FusedStages(nn.Sequential):
    """(image, maps of the other stream) -> six maps: those of each stage, and the sum of the last two streams' maps."""

    def forward(self, both: tuple[Tensor, Maps]) -> Maps:
        """A stage is fed with the sum of both streams; what it gives is handed on before the next sum."""
        x, others = both
        stem, *stages = self
        maps = [stem(x)]
        for stage, other in zip(stages, others, strict=True):
            maps.append(stage((maps[-1], other)))
        return tuple(maps)


class AddAcross(nn.Module):
    """(maps, maps) -> their sums, level by level."""

    def forward(self, streams: tuple[Maps, Maps]) -> Maps:
        """Two times n maps -> n maps."""
        return tuple(a + b for a, b in zip(*streams, strict=True))


class Finest(nn.Sequential):
    """maps -> what the finest level's convolution gives: the only path through the original's FPN that is read.

    Children 1 and 3 are the 1x1 and 3x3 convolutions, the coarsest level's first unless the maps come coarsest first.
    """

    def __init__(self, widths: Sequence[int], channels: int, outputs: int) -> None:
        super().__init__()
        self.add_module("1", Parallel(nn.Conv2d(width, channels, 1) for width in reversed(widths)))
        self.add_module("3", Parallel(nn.Conv2d(channels, outputs, 3, padding=1) for _ in widths))

    def _parts(self) -> tuple[Any, Any]:
        lateral, smooth = self
        return lateral, smooth

    def forward(self, maps: Maps) -> Tensor:
        """Maps, finest first -> [B, outputs, h, w] on the finest one's grid."""
        lateral, smooth = self._parts()
        x, *finer = lateral(tuple(reversed(maps)))
        for y in finer:
            x = y + F.interpolate(x, size=y.shape[-2:], mode="bilinear")
        answer: Tensor = smooth[-1](x)
        return answer


class Beginning(Finest):
    """map -> where a second FPN begins, walked from the finest map to the coarsest: the rest of it is not read."""

    def forward(self, finest: Any) -> Tensor:
        """[B, C, h, w] -> [B, outputs, h, w]."""
        lateral, smooth = self._parts()
        answer: Tensor = smooth[0](lateral[0](finest))
        return answer


class Levels(nn.Sequential):
    """maps -> the sum of all levels, each through as many convolutions as there are levels above it; then classes."""

    def __init__(self, widths: Sequence[int], channels: int, num_classes: int) -> None:
        if channels % (2 * GROUPS):
            found = f"{channels} channels"
            raise ConfigError(found, field="fpn_channels", allowed=f"a multiple of {2 * GROUPS} in 'panoptic'")
        half = channels // 2
        deeper = [[_block(channels, channels) for _ in range(k)] for k in range(len(widths) - 1)]
        super().__init__(
            Parallel(nn.Conv2d(width, channels, 1) for width in widths),
            nn.ModuleList(
                [
                    _block(channels, half),
                    *(nn.ModuleList([*blocks, _block(channels, half)]) for blocks in deeper),
                ]
            ),
            Sum(),
            nn.Conv2d(half, num_classes, 1),
        )

    def forward(self, maps: Maps) -> Tensor:
        """Maps, finest first -> [B, K, h, w] on the finest one's grid."""
        pieces: list[Any] = list(self)
        lateral, (finest, *ladders), merge, classify = pieces
        first, *others = lateral(maps)
        scaled = [finest(first)]
        for x, ladder in zip(others, ladders, strict=True):
            *blocks, last = ladder
            for block in blocks:
                x = F.interpolate(block(x), scale_factor=2.0, mode="bilinear")
            scaled.append(F.interpolate(last(x), size=first.shape[-2:], mode="bilinear"))
        logits: Tensor = classify(merge(tuple(scaled)))
        return logits


def _block(in_channels: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, channels), nn.ReLU(inplace=True))


def _fpn(widths: Sequence[int], channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(Finest(widths, channels, num_classes))


def _panet(widths: Sequence[int], channels: int, num_classes: int) -> nn.Sequential:
    inner = nn.Sequential()
    inner.add_module("0", Finest(widths, channels, channels))
    inner.add_module("2", Beginning([channels] * len(widths), channels, num_classes))
    return nn.Sequential(inner)


NECKS = {"fpn": _fpn, "panoptic": Levels, "panet": _panet}


def _resnet(name: str, in_channels: int, num_classes: int, *, fused: bool) -> tuple[nn.Module, list[int]]:
    main = _resnet_stages(name, 3 if fused else in_channels)
    last = main[-1][-1]  # the last block
    top = (last.bn3 if hasattr(last, "bn3") else last.bn2).num_features
    widths = [64, top // 8, top // 4, top // 2, top]
    if not fused:
        return chain(m=Stages(*main)), widths
    others = Stages(*_resnet_stages(name, in_channels - 3))
    stages = FusedStages(main[0], *(nn.Sequential(Sum(), stage) for stage in main[1:]), Sum())
    split = SplitBands(in_channels, (0, 1, 2))
    return nn.Sequential(split, Parallel([nn.Identity(), chain(m=others)]), chain(m=stages)), [*widths, top]


def _resnet_stages(name: str, in_channels: int) -> list[Any]:
    try:
        network: Any = torchvision.models.get_model(name, weights=None)
        stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    except (ValueError, AttributeError) as error:
        raise ConfigError(f'"{name}"', field="name", allowed="a ResNet of torchvision, efficientnet_b0..b8") from error
    if in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    return [nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool), *stages]


def _efficientnet(name: str, in_channels: int, num_classes: int, *, fused: bool) -> tuple[nn.Module, list[int]]:
    def network(bands: int) -> LukemelasEfficientNet:
        return LukemelasEfficientNet(name, in_channels=bands, head=True, num_classes=num_classes)

    main = network(3 if fused else in_channels)
    widths = [level.channels for level in main.all_levels]
    if not fused:
        return chain(m=main), widths
    both = Parallel([chain(m=main), chain(m=network(in_channels - 3))])
    return nn.Sequential(SplitBands(in_channels, (0, 1, 2)), both, AddAcross()), widths
