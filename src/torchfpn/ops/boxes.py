"""Boxes, anchors, RoI levels, matching, sampling and non-maximum suppression.

A box is (x1, y1, x2, y2) in pixels, x to the right, y down, from the corner of the upper left pixel.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from torchfpn.types import Size

LARGEST = math.log(1000 / 16)  # of the code of a width: nothing grows by more than 62.5
Stride = Literal["declared", "measured"]
CANONICAL, LEVEL = 224, 4  # a box of ImageNet's size is read from P4
BACKGROUND, UNDECIDED = -1, -2
CPU_OVERLAPS, OVERLAPS = 2**20, 2**24  # overlaps that are computed at a time: on a CPU they stay in the caches


def picked(boxes: Tensor, index: Tensor) -> Tensor:
    """Rows `index` [B, K] of tables [B, N, 4]."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))


def area(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...] square pixels; of boxes with x2 >= x1 and y2 >= y1."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlaps(some: Tensor, others: Tensor) -> Tensor:
    """[..., N, 4], [..., M, 4] -> [..., N, M] intersection over union; 0 where both are empty.

    Equals `torchvision.ops.box_iou`.
    """
    upper = torch.maximum(some[..., :, None, :2], others[..., None, :, :2])
    lower = torch.minimum(some[..., :, None, 2:], others[..., None, :, 2:])
    shared = (lower - upper).clamp(min=0).prod(-1)
    union = area(some)[..., :, None] + area(others)[..., None, :] - shared
    return torch.where(shared > 0, shared / union, 0.0)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """[B, N, 4] cut to images of `sizes` [B, 2] (height, width)."""
    height, width = sizes[:, None, :1].to(boxes.dtype), sizes[:, None, 1:].to(boxes.dtype)
    x, y = boxes[..., 0::2].clamp(min=0), boxes[..., 1::2].clamp(min=0)
    return torch.stack([torch.minimum(x, width), torch.minimum(y, height)], dim=-1).flatten(-2)


def encode(targets: Tensor, boxes: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """What has to be done to `boxes` [..., 4] to make them `targets` [..., 4]: dx, dy, dw, dh, times `weights`.

    dx and dy are in widths and heights of the box, dw and dh logarithms (Girshick et al. 2014, appendix C). Equals
    torchvision's `BoxCoder`.
    """
    x, y, w, h = _centred(boxes)
    tx, ty, tw, th = _centred(targets)
    dx, dy, dw, dh = weights
    return torch.stack([dx * (tx - x) / w, dy * (ty - y) / h, dw * torch.log(tw / w), dh * torch.log(th / h)], dim=-1)


def decode(deltas: Tensor, boxes: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The inverse of `encode`: deltas [..., 4] of boxes [..., 4] -> boxes; growth is limited to `LARGEST`."""
    x, y, w, h = _centred(boxes)
    dx, dy, dw, dh = (deltas[..., i] / weight for i, weight in enumerate(weights))
    x, y = dx * w + x, dy * h + y
    w, h = torch.exp(dw.clamp(max=LARGEST)) * w / 2, torch.exp(dh.clamp(max=LARGEST)) * h / 2
    return torch.stack([x - w, y - h, x + w, y + h], dim=-1)


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre, width and height."""
    w, h = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return boxes[..., 0] + 0.5 * w, boxes[..., 1] + 0.5 * h, w, h


def shapes(sizes: Sequence[float], ratios: Sequence[float], *, rounded: bool = False) -> Tensor:
    """[A, 4] anchors about (0, 0), ratios outside, sizes inside.

    sizes: square roots of areas, in pixels. ratios: height over width. rounded: corners to whole pixels, as torchvision
    has them; detectron2 does not.
    """
    ratio, size = torch.tensor(ratios, dtype=torch.float32), torch.tensor(sizes, dtype=torch.float32)
    tall = torch.sqrt(ratio)
    widths, heights = ((1 / tall)[:, None] * size).flatten(), (tall[:, None] * size).flatten()
    corners = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
    return corners.round() if rounded else corners


def spread(cell: Tensor, grid: Size, strides: tuple[int, int]) -> Tensor:
    """[A, 4] anchors of one cell -> [h * w * A, 4] of all cells of a map, row by row, the A of a cell together.

    grid: rows and columns. strides: pixels between rows and between columns; the first cell's anchors lie about (0, 0).
    """
    rows = torch.arange(grid[0], device=cell.device, dtype=cell.dtype) * strides[0]
    columns = torch.arange(grid[1], device=cell.device, dtype=cell.dtype) * strides[1]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1)  # [h, w, 4]
    return (shifts[:, :, None] + cell).reshape(-1, 4)


def strides_of(grid: Size, frame: Size, declared: int, how: Stride) -> tuple[int, int]:
    """Pixels between cells: as the level declares, or as torchvision measures them, image size over map size.

    The two differ where a map was rounded up: a stride of 64 on an image of 96 pixels is measured as 48.
    """
    return (declared, declared) if how == "declared" else (frame[0] // grid[0], frame[1] // grid[1])


def by_anchor(maps: Tensor, width: int) -> Tensor:
    """[B, A * width, h, w] -> [B, h * w * A, width]: an anchor a row, in the order of `spread`."""
    b, channels, h, w = maps.shape
    return maps.reshape(b, channels // width, width, h, w).permute(0, 3, 4, 1, 2).reshape(b, -1, width)


def roi_levels(boxes: Tensor, *, first: int, last: int, inside: bool = True) -> Tensor:
    """[..., 4] -> [...] int64: the map that each box is pooled from, 0 for P`first` (Lin et al. 2017, equation 1).

    floor(4 + log2(sqrt(w h) / 224)), at least `first` and at most `last`. inside: where the small number is added that
    keeps an exact 224 on P4: to the logarithm (torchvision), or, if false, to what it is taken of (detectron2).
    """
    scale = area(boxes).clamp(min=0).sqrt() / CANONICAL
    level = LEVEL + torch.log2(scale) + 1e-6 if inside else LEVEL + torch.log2(scale + 1e-8)
    return level.floor().clamp(first, last).to(torch.int64) - first


def match(
    boxes: Tensor, targets: Tensor, *, high: float, low: float, always: bool = False, max_overlaps: int | None = None
) -> Tensor:
    """The target that each box overlaps most, or `BACKGROUND`, or `UNDECIDED`.

    Source: Ren et al. 2015, section 3.1.2. Equals torchvision's `Matcher`, except for targets that overlap no box: they
    match none.

    Args:
        boxes: [N, 4], anchors or proposals.
        targets: [M, 4], boxes of the true objects; without any, every box is background.
        high: IoU from which on a box matches its target.
        low: IoU below which a box is background; between the two it is undecided.
        always: the boxes of largest IoU with a target, ties included, match whatever that IoU is; each matches the
            target that it overlaps most itself.
        max_overlaps: IoUs that are computed at a time, which bounds the memory and changes no result. None: what suits
            the device.

    Returns:
        [N] int64, indices of targets, `BACKGROUND` or `UNDECIDED`.
    """
    best = boxes.new_full((len(boxes),), 0.0 if len(targets) else -1.0)
    which = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    nearest = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for chunk, near in _parts(boxes, targets, max_overlaps or _max_overlaps(boxes)):
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
    for chunk in torch.split(areas, max(1, _max_overlaps(own) // len(own))):
        upper = torch.maximum(own[:, None, :2], chunk[:, :2])
        lower = torch.minimum(own[:, None, 2:], chunk[:, 2:])
        most = torch.maximum(most, (lower - upper).clamp(min=0).prod(-1).amax(1))
    found = matches.clone()
    found[asked[most > share * area(own)]] = UNDECIDED
    return found


def _max_overlaps(boxes: Tensor) -> int:
    return CPU_OVERLAPS if boxes.device.type == "cpu" else OVERLAPS


def _parts(boxes: Tensor, targets: Tensor, room: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of some targets, rising, and of the boxes that may overlap them; every pair that overlaps is met once.

    Memory is bounded, and time as well unless all lies in one place: 100,000 targets meet 200,000 anchors. Targets go
    together from above downwards, so that few boxes are on their height.
    """
    every = torch.arange(len(boxes), device=boxes.device)
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


def operator(
    name: str,
    schema: str,
    run: Callable[..., Any],
    shape: Callable[..., Any],
    *,
    gradient: Callable[..., Any] | None = None,
    keep: Callable[..., Any] | None = None,
) -> None:
    """Registers `torch.ops.torchfpn.<name>`, an operation that exported and compiled graphs call as one node.

    Once in a process, however often the package is imported. It is defined by schema, because
    `torch.library.custom_op` imports the whole compiler (seconds) at the first call.

    schema: its arguments and results. run: does it, on every device. shape: gives empty results of the right shapes.
    gradient, keep: see `torch.library.register_autograd`.
    """
    if hasattr(torch.ops.torchfpn, name):
        return
    full = f"torchfpn::{name}"
    torch.library.define(full, schema)
    torch.library.impl(full, "default", run)
    torch.library.register_fake(full, shape)
    if gradient is not None:
        torch.library.register_autograd(full, gradient, setup_context=keep)


def nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, *, iou: float, keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every image the best boxes, none of which overlaps a better one of its group by more than `iou`.

    Outputs have the same shape whatever is found, a table of fixed length and a count, so that they can be exported.

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
