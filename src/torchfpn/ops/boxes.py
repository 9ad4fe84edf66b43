"""Boxes: area, overlap, clipping, and the code of four numbers in which a network speaks of them.

A box is (x1, y1, x2, y2) in pixels, x to the right, y down, from the corner of the upper left pixel.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST = math.log(1000 / 16)  # of the code of a width: nothing grows by more than 62.5


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
