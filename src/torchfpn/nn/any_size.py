"""A model that takes images of any size: pad to the largest stride, run the children, cut the answer back."""

from typing import Any

from torch import Tensor, nn

from torchfpn.nn.containers import Chain
from torchfpn.ops.padding import crop, pad_to_multiple


class AnySize(Chain):
    """images [B, C, H, W] -> dense output [B, K, H, W] for any H, W >= 1; children are run as in nn.Sequential.

    multiple: input pixels per cell of the coarsest map. Padding is zero, the mean of a normalised image, and lies at
    the right and the bottom, so that pixel (0, 0) stays the corner of every map. ``model[:-1]`` is a Chain, which pads
    nothing: it gives the maps of images whose sides are multiples.
    """

    def __init__(self, *, multiple: int, **pieces: nn.Module) -> None:
        super().__init__()
        for name, piece in pieces.items():
            self.add_module(name, piece)
        self.multiple = multiple

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K, H, W]."""
        return self.answer(self.maps(images), images)

    def maps(self, images: Tensor) -> Any:
        """[B, C, H, W] -> what the last child is given: the maps of the padded images."""
        x: Any = pad_to_multiple(images, self.multiple)
        for piece in list(self)[:-1]:
            x = piece(x)
        return x

    def answer(self, maps: Any, images: Tensor) -> Tensor:
        """What `maps` gave for `images` -> [B, K, H, W]."""
        return crop(self[-1](maps), images.shape[-2:])

    def extra_repr(self) -> str:
        """The multiple."""
        return f"multiple={self.multiple}"
