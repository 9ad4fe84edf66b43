"""Two backbones for two groups of bands, fused after each stage (FuseNet; Hazirbas et al. 2016) or at their end.

images --split--+-- red, green, blue --> main.c1 -+-> main.c2 -+-> ... -+-> C5
                |                                 |            |        |
                +-- all others --------> extra.c1 +-> extra.c2 +-> ... -+

The sum replaces the map of the main stream, for the next stage and for the pyramid; the extra stream is not changed.
Fusing after stages 1 to 4 is the paper's SF4, after 1 to 5 its SF5 (table 2).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from timm.models import FeatureListNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from torchfpn.backbones.first_conv import COLORS, BandInit, check_bands
from torchfpn.backbones.names import Fusion
from torchfpn.backbones.timm import TimmBackbone
from torchfpn.backbones.torchvision import TorchvisionBackbone
from torchfpn.errors import ConfigError, amount
from torchfpn.nn.containers import Chain, Stages, chain
from torchfpn.types import Level, Maps

TUPLES = ("selecsls42", "selecsls42b", "selecsls60", "selecsls60b", "selecsls84")  # hand lists from stage to stage


def stages_of(body: nn.Module) -> Stages | None:
    """The modules of `body` as Stages, each fed with the one before: children c1, c2, ...

    The first is named by its stride 2**k, the others are counted. They share their weights with `body` and give all of
    its maps, picked or not, in its own layout. None where the network cannot be run so: its maps come from inside its
    blocks, it runs several resolutions side by side, or its maps have to be laid on the grid of their strides.
    """
    if isinstance(body, TorchvisionBackbone):
        return body.stages
    if not isinstance(body, TimmBackbone) or body.grid is not None:  # stages alone would not be on one grid
        return None
    features: Any = body.features
    groups = _groups(features)
    if groups is None or body.name in TUPLES:
        return None
    strides = features.feature_info.reduction()
    stages = Stages()
    for name, group in zip(_names(strides), groups, strict=True):
        stages.add_module(name, group)
    return stages


def _groups(features: Any) -> list[Chain] | None:
    """Runs of children, each up to the one whose output is a map."""
    if isinstance(features, FeatureListNet):
        return _cut(features.named_children(), [name for name in features if name in features.return_layers])
    if isinstance(features, EfficientNetFeatures | MobileNetV3Features) and features.feature_hooks is None:
        stem = [(name, child) for name, child in features.named_children() if name != "blocks"]
        blocks = [(f"block{i + 1}", block) for i, block in enumerate(features.blocks)]
        ends = ["block" + str(i) if i else stem[-1][0] for i in sorted(features._stage_out_idx)]
        return _cut([*stem, *blocks], ends)
    return None


def _cut(children: Iterable[tuple[str, nn.Module]], ends: list[str]) -> list[Chain]:
    rest = iter(list(children))
    groups = []
    for end in ends:
        group = {}
        for name, child in rest:
            group[name] = child
            if name == end:
                break
        groups.append(chain(**group))
    return groups


def _names(strides: list[int]) -> list[str]:
    """c1..c5: the first by its stride, then counted: a dilated network has c3, c4, c5 of one stride."""
    first = strides[0].bit_length() - 1
    return [f"c{first + i}" for i in range(len(strides))]


class SplitBands(nn.Module):
    """images [B, C, H, W] -> ([B, 3, H, W] of the bands `main`, [B, C - 3, H, W] of all others, in their order)."""

    main: Tensor
    extra: Tensor

    def __init__(self, in_channels: int, main: Sequence[int]) -> None:
        super().__init__()
        rest = [band for band in range(in_channels) if band not in main]
        self.register_buffer("main", torch.tensor(list(main)), persistent=False)
        self.register_buffer("extra", torch.tensor(rest), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All bands -> main ones, other ones."""
        return images.index_select(1, self.main), images.index_select(1, self.extra)

    def extra_repr(self) -> str:
        """Which go where."""
        return f"main={self.main.tolist()}, extra={self.extra.tolist()}"


class StageFusion(nn.Module):
    """images -> maps of the main stream, with the extra stream's added to it after the stages named in `points`.

    main, extra: Stages of the same children (c1, c2, ...), as `stages_of` gives them; extra may end earlier.
    levels: of the maps to give, which are the stages `picked`. channels_last_maps: stages give [B, H, W, C].
    """

    def __init__(
        self,
        split: SplitBands,
        main: Stages,
        extra: Stages,
        *,
        points: Sequence[str],
        picked: Sequence[str],
        levels: Sequence[Level],
        channels_last_maps: bool = False,
    ) -> None:
        super().__init__()
        self.split, self.main, self.extra = split, main, extra
        self.points, self.picked, self.levels = tuple(points), tuple(picked), tuple(levels)
        self.in_channels = len(split.main) + len(split.extra)
        self.channels_last_maps = channels_last_maps

    def forward(self, images: Tensor) -> Maps:
        """[B, C, H, W] -> C2..C5."""
        x, y = self.split(images)
        extra = dict(self.extra.named_children())
        maps = []
        for name, stage in self.main.named_children():
            x = stage(x)
            y = extra[name](y) if name in extra else y
            x = x + y if name in self.points else x
            if name in self.picked:
                maps.append(x)
        return tuple(x.permute(0, 3, 1, 2).contiguous() for x in maps) if self.channels_last_maps else tuple(maps)

    def extra_repr(self) -> str:
        """Where the streams meet, and the levels."""
        return f"points={self.points}, levels={[tuple(level) for level in self.levels]}"


class LateFusion(nn.Module):
    """images -> the sum, level by level, of what two backbones give for their bands."""

    def __init__(self, split: SplitBands, main: nn.Module, extra: nn.Module) -> None:
        super().__init__()
        self.split, self.main, self.extra = split, main, extra
        self.in_channels = len(split.main) + len(split.extra)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Channels and stride of each map given, finest first."""
        levels: tuple[Level, ...] = self.main.levels  # type: ignore[assignment]
        return levels

    def forward(self, images: Tensor) -> Maps:
        """[B, C, H, W] -> C2..C5."""
        main, extra = self.split(images)
        return tuple(x + y for x, y in zip(self.main(main), self.extra(extra), strict=True))


def fused(
    name: str,
    kind: Fusion,
    *,
    build: Callable[..., nn.Module],
    in_channels: int,
    rgb: Sequence[int],
    band_init: BandInit = "repeat",
    points: Sequence[int] | None = None,
    **common: Any,
) -> StageFusion | LateFusion:
    """Two backbones of one kind, fused; see `torchfpn.backbones.backbone`, which calls this.

    build: `torchfpn.backbones.backbone`.
    The main one is the plain three-band backbone, weights untouched. band_init widens the extra one's first
    convolution: "repeat" | "mean" | {band: colour}, bands counted in the whole image.

    Raises:
        ConfigError: three bands or fewer, points that are no stages.
    """
    if in_channels < 4:
        found = amount(in_channels, "band")
        raise ConfigError(found, field="fusion", allowed="more than red, green and blue", hint="fusion=none")
    check_bands(in_channels, rgb, "copy")
    split = SplitBands(in_channels, rgb)
    main = build(name, in_channels=3, **common)
    extra = build(name, in_channels=in_channels - 3, **_extra_init(band_init, split), **common)
    main_stages, extra_stages = (stages_of(main), stages_of(extra)) if kind == "fusenet" else (None, None)
    if main_stages is None or extra_stages is None:
        if points is not None:
            why = "the maps themselves are added" if kind == "late" else f"{name} cannot be run stage by stage"
            raise ConfigError(f"{list(points)}", field="points", hint=f"{why}; leave points out")
        return LateFusion(split, main, extra)
    return _staged(split, main, main_stages, extra_stages, points)


def _staged(split: SplitBands, body: Any, main: Stages, extra: Stages, points: Sequence[int] | None) -> StageFusion:
    names = [name for name, _ in main.named_children()]
    wanted = names if points is None else [f"c{k}" for k in sorted(set(points))]
    if not wanted or not set(wanted) <= set(names):
        allowed = "some of " + ", ".join(name.removeprefix("c") for name in names)
        raise ConfigError(f"{list(points or ())}", field="points", allowed=allowed)
    last = names.index(wanted[-1]) + 1
    kept = Stages()
    for name, stage in list(extra.named_children())[:last]:  # what lies behind the last meeting would never be read
        kept.add_module(name, stage)
    return StageFusion(
        split,
        main,
        kept,
        points=wanted,
        picked=[names[index] for index in body.indices],
        levels=body.levels,
        channels_last_maps=getattr(body, "channels_last_maps", False),
    )


def _extra_init(how: BandInit, split: SplitBands) -> dict[str, Any]:
    """How the extra stream starts: `how`, its bands renumbered among the extra ones."""
    if how in ("repeat", "mean"):
        return {"band_init": how}
    if isinstance(how, Mapping):
        numbers = {band: i for i, band in enumerate(split.extra.tolist())}
        strange = [band for band in how if band not in numbers]
        if strange or any(colour not in COLORS for colour in how.values()):
            found = f"{dict(how)}"
            allowed = f"bands {sorted(numbers)}, {' | '.join(COLORS)}"
            raise ConfigError(found, field="band_init", allowed=allowed)
        return {"band_init": {numbers[band]: colour for band, colour in how.items()}, "rgb": ()}
    raise ConfigError(f"{how!r}", field="band_init", allowed="repeat | mean | {band: colour}")
