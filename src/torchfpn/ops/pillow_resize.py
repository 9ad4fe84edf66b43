"""Images enlarged and shrunk as detectron2 does it: numbers of 8 bits by Pillow, all others by torch.

Pillow's bilinear filter grows with the factor where it shrinks, and rounds to whole numbers after each of its two
directions; torch's own antialiasing differs from it by up to two grey levels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from torchfpn.types import Size

HIGHEST = 255


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
    """[C, H, W] of whole numbers from 0 to 255 -> [C, h, w] float32 of the same, by Pillow, band by band."""
    height, width = size
    bands = [Image.fromarray(band) for band in image.to("cpu", torch.uint8).numpy()]
    resized = [np.array(band.resize((width, height), Image.Resampling.BILINEAR)) for band in bands]
    return torch.from_numpy(np.stack(resized)).float().to(image.device)


def resize_float(image: Tensor, size: Size) -> Tensor:
    """[B, C, H, W] -> [B, C, h, w], bilinear without antialiasing."""
    return F.interpolate(image, size, mode="bilinear", align_corners=False)
