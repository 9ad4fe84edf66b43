"""Which map of a pyramid a box is read from: large boxes from coarse maps (Lin et al. 2017, equation 1)."""

import torch
from torch import Tensor

from torchfpn.ops.boxes import area

CANONICAL, LEVEL = 224, 4  # a box of ImageNet's size is read from P4


def roi_levels(boxes: Tensor, *, first: int, last: int, inside: bool = True) -> Tensor:
    """[..., 4] -> [...] int64: the number of the map, from 0 for P`first`.

    floor(4 + log2(sqrt(w h) / 224)), at least `first` and at most `last`. inside: where the small number is added that
    keeps an exact 224 on P4: to the logarithm (torchvision), or, if false, to what it is taken of (detectron2).
    """
    scale = area(boxes).clamp(min=0).sqrt() / CANONICAL
    level = LEVEL + torch.log2(scale) + 1e-6 if inside else LEVEL + torch.log2(scale + 1e-8)
    return level.floor().clamp(first, last).to(torch.int64) - first
