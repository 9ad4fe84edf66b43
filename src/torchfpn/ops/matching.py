"""Which box stands for which object, and which of them are learnt from."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from torchfpn.ops.boxes import area, overlaps

BACKGROUND, UNDECIDED = -1, -2
AT_ONCE = {"cpu": 2**20}  # overlaps that are computed at a time, which then stay in the caches; elsewhere `MOST`
MOST = 2**24


def match(boxes: Tensor, targets: Tensor, *, high: float, low: float, always: bool = False) -> Tensor:
    """Boxes [N, 4], targets [M, 4] -> [N]: the target that each box overlaps most, or `BACKGROUND`, or `UNDECIDED`.

    high, low: a box overlapping no target by `low` (IoU) is background; by `high` or more, a match; between the two it
    is undecided. always: the boxes that overlap a target most, ties included, are matches however little that is, each
    of the target that it overlaps most itself. Without targets all is background.

    Source: Ren et al. 2015, section 3.1.2. Equals torchvision's `Matcher`, but for targets that overlap no box at all.
    """
    best = boxes.new_full((len(boxes),), 0.0 if len(targets) else -1.0)
    which = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    nearest = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for chunk, near in _parts(boxes, targets):
        if not len(chunk) or not len(near):
            continue
        table = overlaps(targets[chunk], boxes[near])
        here, number = table.max(0)
        number = chunk[number]
        better = (here > best[near]) | ((here == best[near]) & (number < which[near]))  # of equal ones the first
        best[near] = torch.where(better, here, best[near])
        which[near] = torch.where(better, number, which[near])
        if always:
            most = table.max(1, keepdim=True).values
            nearest[near] |= ((table == most) & (most > 0)).any(0)  # one that meets no box would else match them all
    found = torch.where(best < low, BACKGROUND, torch.where(best < high, UNDECIDED, which))
    return torch.where(nearest, which, found)


def spared(matches: Tensor, boxes: Tensor, areas: Tensor, share: float) -> Tensor:
    """`matches` [N] with `UNDECIDED` for background boxes [N, 4] that lie in one of `areas` [M, 4].

    share: of the box's own area that must lie in it, more than that. Nobody knows what there is, so nothing is learnt
    from these boxes. Source: Detectron's `CROWD_FILTER_THRESH`, 0.7, of proposals; here of anchors as well.
    """
    asked = (matches == BACKGROUND).nonzero()[:, 0]
    if not len(areas) or not len(asked):
        return matches
    own = boxes[asked]
    most = own.new_zeros(len(own))
    for chunk in torch.split(areas, max(1, AT_ONCE.get(own.device.type, MOST) // len(own))):
        upper = torch.maximum(own[:, None, :2], chunk[:, :2])
        lower = torch.minimum(own[:, None, 2:], chunk[:, 2:])
        most = torch.maximum(most, (lower - upper).clamp(min=0).prod(-1).amax(1))
    found = matches.clone()
    found[asked[most > share * area(own)]] = UNDECIDED
    return found


def _parts(boxes: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of some targets, rising, and of the boxes that may overlap them; every pair that overlaps is met once.

    Memory is bounded, and time as well unless all lies in one place: 100,000 targets meet 200,000 anchors. Targets go
    together from above downwards, so that few boxes are on their height.
    """
    every = torch.arange(len(boxes), device=boxes.device)
    room = AT_ONCE.get(boxes.device.type, MOST)
    if len(boxes) * len(targets) <= room:
        yield torch.arange(len(targets), device=boxes.device), every
        return
    top, bottom = boxes[:, 1].contiguous(), boxes[:, 3].contiguous()
    size = math.isqrt(len(targets))  # larger groups meet more boxes, smaller ones look for them more often
    for group in torch.split(targets[:, 1].argsort(stable=True), size):
        near = every[(top < targets[group, 3].max()) & (bottom > targets[group[0], 1])]
        for chunk in torch.split(group, max(1, room // max(1, len(near)))):
            yield chunk.sort().values, near


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
