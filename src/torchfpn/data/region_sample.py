"""One image with its objects, on the way from a file to a batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchfpn.types import Objects


@dataclass(frozen=True)
class RegionSample:
    """An image and its objects.

    image: [C, H, W] float32, raw values, NaN in every band of a pixel without data. objects: in its pixels. name: of
    the file.
    """

    image: Tensor
    objects: Objects
    name: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]


def without_gaps(image: Tensor) -> Tensor:
    """[C, H, W] float32 with NaN in every band of a pixel where one has it."""
    return image.masked_fill_(image.isnan().any(0), torch.nan)
