"""Non-maximum suppression of a whole batch, as one operation whose outputs have the same shape whatever it finds.

A list as long as there are survivors cannot be exported or compiled; a table of fixed length and a count can.
"""

import torch
from torch import Tensor

from torchfpn.ops.operators import operator


def nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, *, iou: float, keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every image the best boxes, none of which overlaps a better one of its group by more than `iou`.

    boxes: [B, N, 4]. scores: [B, N]. groups: [B, N] whole numbers; boxes of different groups (levels, classes) do not
    see each other. valid: [B, N] bool; the others are not there. keep: how many survivors are given at most.

    Returns:
        index [B, keep]: of the survivors, best first (of equal ones the first), 0 behind the last. count [B]: how many
        these are. lost [B]: how many more survived, for which there was no room.

    Equals `torchvision.ops.batched_nms` for each image.
    """
    return torch.ops.torchfpn.nms(boxes, scores, groups, valid, iou, keep)  # type: ignore[no-any-return]


def _nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou: float, keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    index = torch.zeros(len(boxes), keep, dtype=torch.int64, device=boxes.device)
    count = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    lost = torch.zeros_like(count)
    for image in range(len(boxes)):
        survivors = _survivors(boxes[image].float(), scores[image], groups[image], valid[image], iou)
        n = min(len(survivors), keep)
        index[image, :n], count[image], lost[image] = survivors[:n], n, len(survivors) - n
    return index, count, lost


def _nms_shape(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou: float, keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    counts = boxes.new_empty(len(boxes), dtype=torch.int64)
    return boxes.new_empty(len(boxes), keep, dtype=torch.int64), counts, torch.empty_like(counts)


def _survivors(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou: float) -> Tensor:
    """Indices of what is left of one image, best first."""
    import torchvision.ops

    there = valid.nonzero()[:, 0]
    kept = [there[:0]]
    for group in torch.unique(groups[there]):
        members = there[groups[there] == group]
        kept.append(members[torchvision.ops.nms(boxes[members], scores[members], iou)])
    survivors = torch.cat(kept).sort().values  # of equal scores the first box first
    return survivors[scores[survivors].sort(descending=True, stable=True).indices]


operator(
    "nms",
    "(Tensor boxes, Tensor scores, Tensor groups, Tensor valid, float iou, SymInt keep) -> (Tensor, Tensor, Tensor)",
    _nms,
    _nms_shape,
)
