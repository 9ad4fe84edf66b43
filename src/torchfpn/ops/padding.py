"""Growing an image to a multiple of the stride, and cutting the answer back. Right and bottom only.

Cropping is a negative `F.pad`: slicing by sizes breaks the guards of an exported graph, padding does not.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """[..., H, W] -> [..., H', W'] with zeros at the right and the bottom, H' and W' multiples of `multiple`."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple))


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """[..., H, W] -> [..., h, w]: the top left `size` = (h, w) of `x`; `x` itself where it already has that size."""
    height, width = x.shape[-2:]
    if (height, width) == tuple(size):
        return x
    return F.pad(x, (0, size[1] - width, 0, size[0] - height))
