"""Models for images of any size: pad to the largest stride, run the children, crop the output."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.nn.containers import Chain
from torchfpn.ops.resize import crop, pad_to_multiple, padded_size
from torchfpn.ops.winograd import Convolving
from torchfpn.types import PanopticOutput, Size


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


class Detector(AnySize):
    """Images [B, C, H, W], sizes [B, 2] -> `Regions`; children `backbone`, `pyramid`, `head` as in nn.Sequential.

    sizes: the true (height, width) of each image within H x W, at the right and the bottom of which it is padding; left
    out: all of it is image. Boxes are cut at the true size. Whatever else is given (`choose`, `detect`, `limits`) goes
    to the head, see `torchfpn.heads.two_stage`.
    """

    def forward(self, images: Tensor, sizes: Tensor | None = None, **joints: object) -> Any:  # type: ignore[override]
        """Normalised images -> Regions; the type is the same in training and in inference."""
        if sizes is None:
            whole = images.new_tensor([images.shape[-2], images.shape[-1]])
            sizes = whole.expand(images.shape[0], 2)
        hints = {"frame": padded_size(images, self.multiple), "sizes": sizes, **joints}
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return self._found(images, hints)
        with Convolving():  # channels last: so are all maps after it, and RoIAlign reads rows
            return self._found(images.contiguous(memory_format=torch.channels_last), hints)

    def _found(self, images: Tensor, hints: dict[str, Any]) -> Any:
        return self[-1](self.maps(images), **hints)


class PanopticNet(Detector):
    """Images [B, C, H, W], sizes [B, 2] -> `PanopticOutput`; the head is a `Fork` of `semantic` and `regions`.

    sizes and all joints are the region branch's, as in `Detector`; the logits of the semantic branch are cut at H x W.
    Source: Kirillov et al. 2019, figure 1.
    """

    def _found(self, images: Tensor, hints: dict[str, Any]) -> PanopticOutput:
        branches = self[-1](self.maps(images), regions=hints)
        return PanopticOutput(crop(branches["semantic"], images.shape[-2:]), branches["regions"])


def as_sizes(sizes: Sequence[Size], like: Tensor) -> Tensor:
    """(height, width) of each image -> [B, 2] on the device of `like`."""
    return torch.tensor(list(sizes), dtype=torch.float32, device=like.device)
