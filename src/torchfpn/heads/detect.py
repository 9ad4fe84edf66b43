"""From what the second stage says of every proposal to the boxes that are given out. No weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchfpn.ops.boxes import clip, decode, picked
from torchfpn.ops.nms import nms
from torchfpn.types import Boxes

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the codes: they make the four numbers about as large


class Detect(nn.Module):
    """Class scores and box codes of the proposals -> for each image the best boxes of all classes.

    Every class of every proposal with a probability over `threshold` is a box of its own; it is decoded, cut at the
    image's border, left out where smaller than `smallest` pixels, suppressed within its class at an overlap of `iou`,
    and the best `limit` are kept. smallest=0: empty boxes are left out last, after the best `limit` were counted with
    them. weights: of the codes. candidates: how many boxes are suppressed at most in a graph
    of fixed sizes; run eagerly, all are. What there was no room for is counted.

    Source: Girshick 2015, section 2; Lin et al. 2017, section 4.2. Equals torchvision's `RoIHeads` with smallest=1e-2,
    and detectron2's `FastRCNNOutputLayers` and its rescaling with smallest=0.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.05,
        iou: float = 0.5,
        limit: int = 100,
        smallest: float = 1e-2,
        weights: Sequence[float] = WEIGHTS,
        candidates: int = 2000,
    ) -> None:
        super().__init__()
        self.threshold, self.iou, self.limit, self.smallest = threshold, iou, limit, smallest
        self.weights, self.candidates = tuple(weights), candidates

    @torch.no_grad()
    def forward(self, rois: dict[str, Tensor], proposals: Boxes, sizes: Tensor) -> Boxes:
        """Scores [B, K, C + 1], deltas [B, K, 4 C], sizes [B, 2] (height, width) -> at most `limit` boxes an image.

        Rows behind the last detection are 0, as all are where K = 0, or where no score is a number.
        """
        if not rois["scores"].shape[1]:
            return _none(proposals, self.limit)
        chances = rois["scores"].float().softmax(-1)[..., :-1]
        b, k, classes = chances.shape
        likely = (chances > self.threshold) & proposals.valid[..., None]
        flat = chances.masked_fill(~likely, 0).flatten(1)
        which = flat.topk(self._room(likely, k * classes)).indices.sort(1).values  # of equal ones the first is better
        best = flat.gather(1, which)
        cut = likely.flatten(1).sum(1) - (best > 0).sum(1)
        rows = which.div(classes, rounding_mode="floor")
        codes = picked(rois["deltas"].float().reshape(b, k * classes, 4), which)
        before = picked(proposals.boxes, rows)
        boxes, labels = clip(decode(codes, before, self.weights), sizes), which % classes
        sides = boxes[..., 2:] - boxes[..., :2]
        valid = (best > 0) & (sides >= self.smallest).all(-1)
        index, counts, lost = nms(boxes, best, labels, valid, iou=self.iou, keep=self.limit)
        found = Boxes(picked(boxes, index), best.gather(1, index), labels.gather(1, index), counts, lost + cut)
        there = found.valid  # boxes of overflown codes are no numbers, and masks are read from every row in a graph
        found = found._replace(boxes=found.boxes.masked_fill(~there[..., None], 0))
        return found if self.smallest > 0 else without_empty(found)

    def _room(self, likely: Tensor, most: int) -> int:
        """How many candidates are looked at: as many as there are, or a fixed number in a graph."""
        if torch.compiler.is_compiling():
            return min(self.candidates, most)
        return max(1, int(likely.flatten(1).sum(1).max()))

    def extra_repr(self) -> str:
        """The three numbers."""
        return f"threshold {self.threshold}, iou {self.iou}, at most {self.limit}"


def _none(proposals: Boxes, limit: int) -> Boxes:
    """A table of `limit` rows for each image, none of which is there."""
    images, zeros = len(proposals.counts), torch.zeros_like(proposals.counts)
    scores = proposals.scores.new_zeros(images, limit, dtype=torch.float32)
    boxes = proposals.boxes.new_zeros(images, limit, 4)
    return Boxes(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), zeros, zeros.clone())


def without_empty(found: Boxes) -> Boxes:
    """The table without the boxes that have no area; the others move up."""
    there = ((found.boxes[..., 2:] > found.boxes[..., :2]).all(-1)) & found.valid
    order = (~there).to(torch.int64).argsort(dim=1, stable=True)
    boxes, scores, labels = picked(found.boxes, order), found.scores.gather(1, order), found.labels.gather(1, order)
    return Boxes(boxes, scores, labels, there.sum(1), found.lost)
