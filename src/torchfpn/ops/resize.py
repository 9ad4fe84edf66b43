"""Padding to a multiple of the stride and cropping back, and the resizing rules of detector families."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from torchfpn.errors import ShapeError
from torchfpn.types import Size

HIGHEST = 255


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """[..., H, W] -> [..., H', W'] with zeros at the right and the bottom, H' and W' multiples of `multiple`."""
    height, width = x.shape[-2:]
    return _grow(x, -height % multiple, -width % multiple)


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """[..., H, W] -> [..., h, w]: the top left `size` = (h, w) of `x`; `x` itself where it already has that size.

    Cropping is a negative `F.pad`: slicing by sizes breaks the guards of an exported graph, padding does not.

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


def rounded_size(size: Size, shorter: int, longer: int) -> Size:
    """(height, width) with a shorter side of `shorter` pixels, or a longer one of `longer` where that is less.

    Halves are rounded up; 1 at least. Equals detectron2's `ResizeShortestEdge`.
    """
    factor = shorter / min(size)
    sides = [float(shorter) if side == min(size) else factor * side for side in size]
    if max(sides) > longer:
        sides = [side * (longer / max(sides)) for side in sides]
    height, width = (max(1, int(side + 0.5)) for side in sides)
    return height, width


def is_8_bit(image: Tensor) -> bool:
    """Whether all values are whole numbers from 0 to 255, as those of photographs."""
    if image.dtype == torch.uint8:
        return True
    return bool(((image >= 0) & (image <= HIGHEST) & (image == image.round())).all())


def resize_8_bit(image: Tensor, size: Size) -> Tensor:
    """[C, H, W] of whole numbers from 0 to 255 -> [C, h, w] float32 of the same, by Pillow as in detectron2.

    Pillow's bilinear filter grows with the factor where it shrinks, and rounds to whole numbers after each of its two
    directions; torch's own antialiasing differs from it by up to two grey levels.
    """
    height, width = size
    bands = [Image.fromarray(band) for band in image.to("cpu", torch.uint8).numpy()]
    resized = [np.array(band.resize((width, height), Image.Resampling.BILINEAR)) for band in bands]
    return torch.from_numpy(np.stack(resized)).float().to(image.device)


def resize_float(image: Tensor, size: Size) -> Tensor:
    """[B, C, H, W] -> [B, C, h, w], bilinear without antialiasing."""
    return F.interpolate(image, size, mode="bilinear", align_corners=False)
