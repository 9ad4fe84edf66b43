"""The first stage of a detector (region proposal network): dense predictions on every level, and proposals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Fork, Shared, chain
from torchfpn.ops.boxes import Stride, by_anchor, clip, decode, nms, picked, shapes, spread, strides_of
from torchfpn.types import Boxes, Level, Size

Dense = tuple[dict[str, Tensor], ...]
Rank = Literal["probabilities", "logits"]


def _conv(channels: int) -> nn.Module:
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # there is one
    return chain(conv=conv, act=nn.ReLU(inplace=True))


def _predict(channels: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, outputs, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class DenseHead(Shared):
    """Maps of one width -> for each level {"scores": [B, A, h, w], "deltas": [B, 4 A, h, w]}; the same weights for all.

        P2..P6 --3x3 conv, ReLU--> --1x1--> scores [B, A, h, w]
                                   --1x1--> deltas [B, 4 A, h, w]

    anchors: A, of a cell. depth: 3x3 convolutions, one in the paper. The deltas of one anchor are four channels in a
    row (dx, dy, dw, dh). Source: Lin et al. 2017, section 4.1. Equals torchvision's `RPNHead`.
    """

    def __init__(self, channels: int, *, anchors: int = 3, depth: int = 1) -> None:
        layers = {f"conv{i + 1}": _conv(channels) for i in range(depth)}
        predict = Fork({"scores": _predict(channels, anchors), "deltas": _predict(channels, 4 * anchors)})
        super().__init__(chain(**layers, predict=predict))
        self.anchors = anchors


@dataclass(frozen=True)
class Limits:
    """How many boxes. each: the best of every level that are considered. all: what is left of them, for each image."""

    each: int = 1000
    all: int = 1000


class Propose(nn.Module):
    """Scores and deltas of every level -> the anchors, and the best boxes that do not overlap each other too much.

    Of every level the best `limits.each` anchors are decoded, cut at the image's border, left out where they are
    smaller than `smallest` pixels (0: where they are empty) or less likely than `threshold`, suppressed within their
    level at an overlap of `iou`, and the best `limits.all` of all levels kept. Gradients end here: boxes are no
    function of the weights for the second stage.

    sizes: of the anchors of each level, one or several, as many on all levels, in pixels; ratios: height over width.
    rounded, stride: see `torchfpn.ops.boxes`. rank: what boxes are ordered by; probabilities of logits above 17 are
    all 1 in float32, and such boxes keep the order of their levels and cells. Source: Ren et al. 2015, section 3.3; Lin
    et al. 2017, section 4.1. Equals torchvision's `RegionProposalNetwork` with rounded=True, stride="measured",
    smallest=1e-3, and detectron2's `RPN` with smallest=0, rank="logits".

    Raises:
        ConfigError: sizes for another number of levels, or not as many on each; an unknown rank.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        sizes: Sequence[Sequence[float]] = ((32,), (64,), (128,), (256,), (512,)),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rounded: bool = False,
        stride: Stride = "declared",
        iou: float = 0.7,
        smallest: float = 1e-3,
        threshold: float = 0.0,
        rank: Rank = "probabilities",
        limits: Limits = Limits(),
    ) -> None:
        super().__init__()
        if len(sizes) != len(levels):
            found = f"anchors for {len(sizes)} levels"
            raise ConfigError(found, field="anchors", allowed=f"for each of the pyramid's {len(levels)}")
        if len({len(own) for own in sizes}) > 1:
            found = ", ".join("+".join(f"{size:g}" for size in own) for own in sizes)
            raise ConfigError(found, field="anchor_sizes", allowed="as many for each level: one head reads all levels")
        if rank not in ("probabilities", "logits"):
            raise ConfigError(f'"{rank}"', field="proposal_rank", allowed='"probabilities" or "logits"')
        self.rank = rank
        self.strides, self.sizes, self.ratios = [level.stride for level in levels], sizes, ratios
        self.rounded, self.stride, self.iou, self.smallest, self.limits = rounded, stride, iou, smallest, limits
        self.threshold = threshold
        for i, own in enumerate(sizes):
            self.register_buffer(f"cell{i}", shapes(own, ratios, rounded=rounded), persistent=False)

    @property
    def per_cell(self) -> int:
        """Anchors of a cell."""
        return len(self.sizes[0]) * len(self.ratios)

    def anchors(self, grids: Sequence[Size], frame: Size) -> list[Tensor]:
        """Of each level [h * w * A, 4]. grids: sizes of the maps. frame: of the image, padding included."""
        return [
            spread(self.get_buffer(f"cell{i}"), grid, strides_of(grid, frame, declared, self.stride))
            for i, (grid, declared) in enumerate(zip(grids, self.strides, strict=True))
        ]

    @torch.no_grad()
    def forward(self, dense: Dense, frame: Size, sizes: Tensor, limits: Limits | None = None) -> tuple[Tensor, Boxes]:
        """Dense predictions, frame, sizes [B, 2] (height, width) -> anchors [N, 4] and proposals, `limits.all` each."""
        limits = limits or self.limits
        anchors = self.anchors([(one["scores"].shape[-2], one["scores"].shape[-1]) for one in dense], frame)
        boxes, scores, levels = [], [], []
        for i, (one, own) in enumerate(zip(dense, anchors, strict=True)):
            flat = by_anchor(one["scores"], 1)[..., 0].float()  # [B, h w A]
            best, which = flat.topk(min(limits.each, flat.shape[1]))
            deltas = picked(by_anchor(one["deltas"], 4).float(), which)
            boxes.append(decode(deltas, own[which]))
            scores.append(best)
            levels.append(torch.full_like(which, i))
        table, logits = clip(torch.cat(boxes, 1), sizes), torch.cat(scores, 1)
        chances = logits.sigmoid()
        order = logits if self.rank == "logits" else chances
        sides = table[..., 2:] - table[..., :2]
        valid = ((sides >= self.smallest) & (sides > 0)).all(-1) & (chances >= self.threshold)
        index, counts, lost = nms(table, order, torch.cat(levels, 1), valid, iou=self.iou, keep=limits.all)
        found = Boxes(picked(table, index), chances.gather(1, index), torch.zeros_like(index), counts, lost)
        there = found.valid
        return torch.cat(anchors), found._replace(
            boxes=found.boxes.masked_fill(~there[..., None], 0), scores=found.scores.masked_fill(~there, 0)
        )

    def extra_repr(self) -> str:
        """What is considered and what is kept."""
        sizes = ", ".join("+".join(f"{size:g}" for size in own) for own in self.sizes)
        ratios = ", ".join(f"{ratio:g}" for ratio in self.ratios)
        return f"sizes {sizes}; ratios {ratios}; iou {self.iou}, {self.limits.each} a level, {self.limits.all} in all"
