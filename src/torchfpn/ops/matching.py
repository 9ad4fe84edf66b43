"""Which box stands for which object, and which of them are learnt from."""

import torch
from torch import Tensor

from torchfpn.ops.boxes import overlaps

BACKGROUND, UNDECIDED = -1, -2
AT_ONCE = 2**24  # overlaps that are computed at a time


def match(boxes: Tensor, targets: Tensor, *, high: float, low: float, always: bool = False) -> Tensor:
    """Boxes [N, 4], targets [M, 4] -> [N]: the target that each box overlaps most, or `BACKGROUND`, or `UNDECIDED`.

    high, low: a box overlapping no target by `low` (IoU) is background; by `high` or more, a match; between the two it
    is undecided. always: the boxes that overlap a target most, ties included, are matches however little that is, each
    of the target that it overlaps most itself. Without targets all is background.

    Source: Ren et al. 2015, section 3.1.2. Equals torchvision's `Matcher`, but for targets that overlap no box at all.
    """
    best, which = boxes.new_full((len(boxes),), -1.0), torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    nearest = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    step = max(1, AT_ONCE // max(1, len(boxes)))  # of the targets: ten thousand of them meet 200,000 anchors
    for start in range(0, len(targets), step):
        table = overlaps(targets[start : start + step], boxes)
        here, number = table.max(0)
        better = here > best
        best, which = torch.where(better, here, best), torch.where(better, number + start, which)
        if always:
            most = table.max(1, keepdim=True).values
            nearest |= ((table == most) & (most > 0)).any(0)  # a target that meets no box would else match them all
    found = torch.where(best < low, BACKGROUND, torch.where(best < high, UNDECIDED, which))
    return torch.where(nearest, which, found)


def sample(
    matches: Tensor, count: int, share: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Some of the boxes, at random: indices of matched ones and of background ones.

    matches: [N] as `match` gives them. count: boxes wanted in all. share: of matched ones at most; background fills up.
    """
    positive, negative = (matches >= 0).nonzero()[:, 0], (matches == BACKGROUND).nonzero()[:, 0]
    wanted = min(len(positive), int(count * share))
    positive = _some(positive, wanted, generator)
    return positive, _some(negative, min(len(negative), count - wanted), generator)


def _some(items: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` of the items; drawn on the CPU, so that a seed means the same everywhere."""
    order = torch.randperm(len(items), generator=generator)[:count]
    return items[order.to(items.device)]
