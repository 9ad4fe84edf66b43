"""What a mask head should say: the masks of objects, averaged over the cells of a grid laid into each box.

RoIAlign of a whole mask, of which only the window is read that holds the object: bilinear sums are separable, so each
target is two small matrix products.
"""

import math

import torch
from torch import Tensor

from torchfpn.ops.masks import Crops, window_pixels


def mask_targets(masks: Crops, which: Tensor, boxes: Tensor, grid: int, *, aligned: bool = False) -> Tensor:
    """[N, grid, grid] float32, 0..1: for each box [N, 4] the mask of the object `which` [N] of the image.

    Equals `torchvision.ops.roi_align` of the pasted masks, adaptive sampling, which is what torchvision's Mask R-CNN
    learns; aligned: pixel centres at halves, as detectron2 has them. Sums are float32 under autocast as well.
    """
    with torch.autocast("cpu", enabled=False):
        return _mask_targets(masks, which, boxes.float(), grid, aligned=aligned)


def _mask_targets(masks: Crops, which: Tensor, boxes: Tensor, grid: int, *, aligned: bool) -> Tensor:
    pixels, windows = window_pixels(masks), masks.windows.tolist()
    height, width = masks.size
    out = torch.zeros(len(boxes), grid, grid)
    shift = 0.5 if aligned else 0.0
    for i, (number, (x1, y1, x2, y2)) in enumerate(zip(which.tolist(), (boxes - shift).tolist(), strict=True)):
        left, top, right, bottom = windows[number]
        rows = _weights(y1, y2, grid, height, top, bottom, aligned=aligned)
        columns = _weights(x1, x2, grid, width, left, right, aligned=aligned)
        out[i] = rows @ pixels[number].float() @ columns.T
    return out.to(boxes.device)


def _weights(start: float, stop: float, bins: int, extent: int, low: int, high: int, *, aligned: bool) -> Tensor:
    """[bins, high - low]: how much each pixel of a window from `low` to `high` counts in each bin of a line.

    extent: pixels of the whole line. A sample beyond -1 .. extent counts as zero, one beyond the first or last pixel's
    centre takes that pixel.
    """
    length = stop - start if aligned else max(stop - start, 1.0)
    samples = max(math.ceil(length / bins), 1)
    places = torch.arange(bins, dtype=torch.float32)[:, None] + (torch.arange(samples) + 0.5) / samples
    at = start + places * (length / bins)
    seen = ((at >= -1) & (at <= extent)).float() / samples
    at = at.clamp(0, extent - 1)
    near = at.long()
    share = at - near
    table = torch.zeros(bins, high - low + 2)  # a column at each end for what lies outside of the window
    for cells, weight in ((near, 1 - share), ((near + 1).clamp(max=extent - 1), share)):
        table.scatter_add_(1, (cells - low + 1).clamp(0, high - low + 1), weight * seen)
    return table[:, 1:-1]
