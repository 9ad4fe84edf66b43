"""Faster R-CNN's and Mask R-CNN's head on the levels of a pyramid, from numbers and words."""

from collections.abc import Sequence

from torchfpn.errors import ConfigError
from torchfpn.heads.box import BoxHead, Kind, MaskHead
from torchfpn.heads.dense import DenseHead
from torchfpn.heads.detect import Detect
from torchfpn.heads.pool import RoIPool
from torchfpn.heads.propose import Limits, Propose
from torchfpn.heads.region import RegionHead
from torchfpn.nn.layers import Norm
from torchfpn.ops.anchors import Stride
from torchfpn.types import Level

ANCHOR = 8  # cells of its level that an anchor is wide: 32 pixels on P2, 512 on P6


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
    smallest and threshold: see `Propose`. roi_levels: maps that boxes are read from, the finest ones. sampling,
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
