"""One image with its labels, on the way from a file to a batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchfpn.types import IGNORE


@dataclass(frozen=True)
class Sample:
    """An image and its labels.

    image: [C, H, W] float32, raw values, NaN in every band of a pixel without data. target: [H, W] int64, 0-based
    class indices, `IGNORE` where nothing is labelled and wherever the image is NaN. name: of the file.

    Before augmentation the image may still have the type of its file, the target be uint8, and `valid` [H, W] say
    where there is data.
    """

    image: Tensor
    target: Tensor
    name: str = ""
    valid: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def may_miss(self) -> bool:
        """Whether pixels may be without data."""
        return self.valid is not None or self.image.is_floating_point()

    def finished(self) -> "Sample":
        """The same sample as float32 and int64, in memory of its own, NaN and `IGNORE` where there is no data."""
        image = self.image.to(torch.float32, copy=True)
        target = self.target.to(torch.int64, copy=True)
        if self.may_miss:
            missing = image.isnan().any(0) if self.valid is None else ~self.valid
            image.masked_fill_(missing, torch.nan)
            target.masked_fill_(missing, IGNORE)
        return Sample(image, target, self.name)
