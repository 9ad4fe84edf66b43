"""Objects that overlap, in one image of numbers: of two at one pixel the better one is seen."""

import torch
from torch import Tensor

from torchfpn.ops.masks import Crops, window_pixels


def numbered(crops: Crops) -> Tensor:
    """[H, W] int32: k where the k-th object is, counted from 1, the first of all that are there; 0 where none is."""
    image = torch.zeros(crops.size, dtype=torch.int32)
    pixels, windows = window_pixels(crops), crops.windows.tolist()
    for k in range(len(crops), 0, -1):
        x1, y1, x2, y2 = windows[k - 1]
        image[y1:y2, x1:x2][pixels[k - 1]] = k
    return image
