"""The two-stage head: maps -> dense predictions -> proposals -> boxes -> detections -> masks.

Every stage is "boxes in, predictions out", and every joint between two stages is a function of boxes. Inference and
export use the joints that are built in; training puts its own in their place, which see the targets:

maps --dense--> scores, deltas --propose--> proposals --[choose]--> rois --[detect]--> detections --> masks
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.heads.box import by_image
from torchfpn.heads.propose import Limits
from torchfpn.types import Boxes, Maps, Regions, Size

Choose = Callable[[Boxes], Boxes]
Detections = Callable[[dict[str, Tensor], Boxes], Boxes]


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
