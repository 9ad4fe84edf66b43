"""The two-stage head of Faster and Mask R-CNN: maps -> dense predictions -> proposals -> boxes -> detections -> masks.

Every stage is "boxes in, predictions out", and every joint between two stages is a function of boxes. Inference and
export use the built-in joints; training replaces them by its own, which see the targets:

maps --dense--> scores, deltas --propose--> proposals --[choose]--> rois --[detect]--> detections --> masks
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.errors import ConfigError
from torchfpn.heads.roi import BoxHead, Detect, Kind, MaskHead, RoIPool, by_image
from torchfpn.heads.rpn import DenseHead, Limits, Propose, Rank
from torchfpn.nn.layers import Norm
from torchfpn.ops.boxes import Stride
from torchfpn.types import Boxes, Level, Maps, Regions, Size

Choose = Callable[[Boxes], Boxes]
Detections = Callable[[dict[str, Tensor], Boxes], Boxes]
MOST_BOXES = 100_000  # proposals or detections of an image
SMALLEST_ANCHOR, LARGEST_ANCHOR = 0.001, 100_000  # pixels, and ratios of their sides
MOST_SAMPLES = 64  # points along a side of a bin
ANCHOR = 8  # cells of its level that an anchor is wide: 32 pixels on P2, 512 on P6


class RegionHead(nn.Module):
    """Maps -> `Regions`. The only door for targets is `choose`: boxes -> boxes.

    dense: maps -> scores and deltas of each level. propose: those -> proposals. pool: maps, boxes [B, K, 4] -> RoIs
    [B * K, C, s, s]. box: RoIs -> scores and deltas. detect: those -> detections. mask_pool, mask: the same for masks.
    """

    def __init__(
        self,
        *,
        dense: nn.Module,
        propose: nn.Module,
        pool: nn.Module,
        box: nn.Module,
        detect: nn.Module,
        mask_pool: nn.Module | None = None,
        mask: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.dense, self.propose, self.pool, self.box, self.detect = dense, propose, pool, box, detect
        if mask is not None:
            self.mask_pool, self.mask = mask_pool, mask

    def forward(
        self,
        maps: Maps,
        frame: Size,
        sizes: Tensor,
        *,
        choose: Choose | None = None,
        detect: Detections | None = None,
        limits: Limits | None = None,
    ) -> Regions:
        """Maps of images of `frame` (padding included), of which `sizes` [B, 2] (height, width) are image -> Regions.

        choose: proposals -> the boxes that the second stage sees. detect: its answer -> the boxes that get masks.
        """
        dense = self.dense(maps)
        anchors, proposals = self.propose(dense, frame, sizes, limits)
        chosen = trimmed(proposals) if choose is None else choose(proposals)
        images = len(sizes)
        said = _of_real_rows(self.box, self.pool(maps, chosen.boxes), chosen.valid)
        rois = {name: by_image(rows, images) for name, rows in said.items()}
        found = trimmed(self.detect(rois, chosen, sizes)) if detect is None else detect(rois, chosen)
        masks: Any = None
        if hasattr(self, "mask"):
            pooled = self.mask_pool(maps, found.boxes)  # type: ignore[misc]  # both or none
            masks = by_image(_of_real_rows(self.mask, pooled, found.valid), images)
        return Regions(dense, anchors, chosen, rois, found, masks)


def _of_real_rows(head: nn.Module, rois: Tensor, there: Tensor) -> Any:
    """What `head` says of RoIs [B * K, C, s, s]: a tensor of as many rows, or several by name.

    there: [B, K] bool, which rows are boxes. In training the head sees no others, so that batch norm is of boxes alone;
    the rest of the answer is 0. In inference no row sees another.
    """
    keep = there.flatten()
    if not head.training or torch.compiler.is_compiling():
        return head(rois)
    said = head(rois[keep])
    if isinstance(said, dict):
        return {name: _spread(rows, keep) for name, rows in said.items()}
    return _spread(said, keep)


def _spread(rows: Tensor, keep: Tensor) -> Tensor:
    """The rows at the places that `keep` [N] tells, 0 elsewhere."""
    return rows.new_zeros(len(keep), *rows.shape[1:]).index_put((keep.nonzero()[:, 0],), rows)


def trimmed(boxes: Boxes) -> Boxes:
    """The table without the rows that no image needs; in a graph of fixed sizes as it is.

    What follows is computed for every row. The answers are the same: no row sees another.
    """
    if torch.compiler.is_compiling():
        return boxes
    rows = int(boxes.counts.max())
    return boxes._replace(boxes=boxes.boxes[:, :rows], scores=boxes.scores[:, :rows], labels=boxes.labels[:, :rows])


def two_stage(
    levels: Sequence[Level],
    num_classes: int,
    *,
    masks: bool = False,
    anchor_sizes: Sequence[Sequence[float]] | None = None,
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    anchor_stride: Stride = "declared",
    rounded_anchors: bool = False,
    dense_depth: int = 1,
    proposals: int = 1000,
    proposal_iou: float = 0.7,
    proposal_smallest: float = 1e-3,
    proposal_threshold: float = 0.0,
    proposal_rank: Rank = "probabilities",
    roi_levels: int = 4,
    sampling: int = 0,
    aligned: bool = True,
    inside: bool = False,
    box: Kind = "2fc",
    hidden: int = 1024,
    norm: Norm = "batch",
    mask_hidden: int = 256,
    mask_norm: Norm = "none",
    threshold: float = 0.05,
    smallest: float = 1e-2,
    iou: float = 0.5,
    detections: int = 100,
) -> RegionHead:
    """Levels, classes -> the head of a detector, or, with `masks`, of instance segmentation.

    anchor_sizes: of each level, in pixels; by default one of eight cells. anchor_stride, rounded_anchors: see
    `ops.anchors`. dense_depth: convolutions of the first stage. proposals: of each level, and of all; their iou,
    smallest, threshold and rank: see `Propose`. roi_levels: maps that boxes are read from, the finest ones. sampling,
    aligned, inside: see `RoIPool`. box, hidden, norm: see `BoxHead`. mask_hidden, mask_norm: of the mask head's
    convolutions. threshold, smallest, iou, detections: see `Detect`.

    Raises:
        ConfigError: levels of several widths, or numbers that cannot be.
    """
    widths = {level.channels for level in levels}
    if len(widths) != 1:
        raise ConfigError(f"widths {sorted(widths)}", field="pyramid", allowed="one width for all levels")
    if not 1 <= roi_levels <= len(levels):
        raise ConfigError(f"{roi_levels}", field="roi_levels", allowed=f"1 to {len(levels)}, the pyramid's levels")
    _check_counts(dense_depth=dense_depth, proposals=proposals, hidden=hidden, mask_hidden=mask_hidden,
                  detections=detections)  # fmt: skip
    _check_shares(proposal_iou=proposal_iou, proposal_threshold=proposal_threshold, threshold=threshold, iou=iou)
    _check_anchors(anchor_sizes, anchor_ratios)
    for name, least in (("proposal_smallest", proposal_smallest), ("smallest", smallest), ("sampling", sampling)):
        if not least >= 0:
            raise ConfigError(f"{least}", field=name, allowed="0 or more")
    if sampling > MOST_SAMPLES:
        raise ConfigError(f"{sampling}", field="sampling", allowed=f"at most {MOST_SAMPLES}")
    (channels,) = widths
    sizes = anchor_sizes or [(ANCHOR * level.stride,) for level in levels]
    propose = Propose(
        levels,
        sizes=[tuple(own) for own in sizes],
        ratios=tuple(anchor_ratios),
        rounded=rounded_anchors,
        stride=anchor_stride,
        iou=proposal_iou,
        smallest=proposal_smallest,
        threshold=proposal_threshold,
        rank=proposal_rank,
        limits=Limits(proposals, proposals),
    )
    read = levels[:roi_levels]
    return RegionHead(
        dense=DenseHead(channels, anchors=propose.per_cell, depth=dense_depth),
        propose=propose,
        pool=RoIPool(read, 7, sampling=sampling, aligned=aligned, inside=inside),
        box=BoxHead(channels, num_classes, kind=box, hidden=hidden, norm=norm),
        detect=Detect(threshold=threshold, iou=iou, limit=detections, smallest=smallest),
        mask_pool=RoIPool(read, 14, sampling=sampling, aligned=aligned, inside=inside) if masks else None,
        mask=MaskHead(channels, num_classes, hidden=mask_hidden, norm=mask_norm) if masks else None,
    )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not 1 <= count <= MOST_BOXES:
            raise ConfigError(f"{count}", field=name, allowed=f"a whole number from 1 to {MOST_BOXES:,}")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"{share}", field=name, allowed="a share from 0 to 1")


def _check_anchors(sizes: Sequence[Sequence[float]] | None, ratios: Sequence[float]) -> None:
    if sizes is not None and len({len(own) for own in sizes}) != 1:
        raise ConfigError(f"{list(sizes)}"[:60], field="anchor_sizes", allowed="as many for each level")
    for name, numbers in (("anchor_sizes", [x for own in sizes or [[1.0]] for x in own]), ("anchor_ratios", ratios)):
        if not numbers or not all(SMALLEST_ANCHOR <= x <= LARGEST_ANCHOR for x in numbers):
            allowed = f"numbers from {SMALLEST_ANCHOR} to {LARGEST_ANCHOR:,}"
            raise ConfigError(f"{list(numbers)}"[:60], field=name, allowed=allowed)
