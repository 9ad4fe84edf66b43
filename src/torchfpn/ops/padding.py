"""Growing an image to a multiple of the stride, and cutting the answer back. Right and bottom only.

Cropping is a negative `F.pad`: slicing by sizes breaks the guards of an exported graph, padding does not.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfpn.errors import ShapeError


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """[..., H, W] -> [..., H', W'] with zeros at the right and the bottom, H' and W' multiples of `multiple`."""
    height, width = x.shape[-2:]
    return _grow(x, -height % multiple, -width % multiple)


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """[..., H, W] -> [..., h, w]: the top left `size` = (h, w) of `x`; `x` itself where it already has that size.

    Raises:
        ShapeError: `x` is smaller: what it lacks would be zeros that nothing computed.
    """
    height, width = x.shape[-2:]
    if not torch.compiler.is_compiling() and (size[0] > height or size[1] > width):
        raise ShapeError(
            f"a map of {height} x {width} cells",
            allowed=f"{size[0]} x {size[1]} or more",
            hint="a backbone gives maps that are smaller than images over their strides: declare other strides",
        )
    return _grow(x, size[0] - height, size[1] - width)


def _grow(x: Tensor, rows: int, columns: int) -> Tensor:
    # An exported graph must pad whatever the sizes: the shortcut would become a guard on the size it was traced with.
    if not torch.compiler.is_exporting() and rows == 0 and columns == 0:
        return x
    return F.pad(x, (0, columns, 0, rows))


def padded_size(x: Tensor, multiple: int) -> tuple[int, int]:
    """(height, width) of what `pad_to_multiple` gives."""
    height, width = x.shape[-2:]
    return height + -height % multiple, width + -width % multiple
