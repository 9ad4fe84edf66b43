"""A two-stage model that takes images of any size: pad to the largest stride, run the children, boxes in pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torchfpn.nn.any_size import AnySize
from torchfpn.nn.convolving import Convolving
from torchfpn.ops.padding import padded_size
from torchfpn.types import Regions, Size


class Detector(AnySize):
    """Images [B, C, H, W], sizes [B, 2] -> `Regions`; children `backbone`, `pyramid`, `head` as in nn.Sequential.

    sizes: the true (height, width) of each image within H x W, at the right and the bottom of which it is padding; left
    out: all of it is image. Boxes are cut at the true size. Whatever else is given (`choose`, `detect`, `limits`) goes
    to the head, see `torchfpn.heads.region`.
    """

    def forward(self, images: Tensor, sizes: Tensor | None = None, **joints: object) -> Regions:  # type: ignore[override]
        """Normalised images -> Regions; the type is the same in training and in inference."""
        if sizes is None:
            whole = images.new_tensor([images.shape[-2], images.shape[-1]])
            sizes = whole.expand(images.shape[0], 2)
        frame = padded_size(images, self.multiple)
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return self._regions(images, frame, sizes, joints)
        with Convolving():  # channels last: so are all maps after it, and RoIAlign reads rows
            return self._regions(images.contiguous(memory_format=torch.channels_last), frame, sizes, joints)

    def _regions(self, images: Tensor, frame: Size, sizes: Tensor, joints: dict[str, object]) -> Regions:
        regions: Regions = self[-1](self.maps(images), frame, sizes, **joints)
        return regions


def as_sizes(sizes: Sequence[Size], like: Tensor) -> Tensor:
    """(height, width) of each image -> [B, 2] on the device of `like`."""
    return torch.tensor(list(sizes), dtype=torch.float32, device=like.device)
