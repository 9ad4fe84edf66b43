"""The receptive field of a model: the margin in pixels beyond which the rest of an image cannot change an output.

It is measured on the model: half of an image is NaN, and wherever the output is not NaN, that half was not used. NaN
passes through every sum and product, also through weights that are zero, so this is the bound of the architecture and
not of one set of weights.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.nn.layers import evaluating

LONGEST = 4096  # pixels
SIDES = [(2, False), (2, True), (3, False), (3, True)]  # image axis, whether the known half is the later one


def reach(model: nn.Module, in_channels: int, *, multiple: int = 32, longest: int = LONGEST) -> int | None:
    """The receptive field of a model, as the margin around a pixel of the output that can change it.

    Bilinear enlargement counts the cells whose weight is zero, so the bound may be a cell too large.

    Args:
        model: gives a dense output [1, K, H, W], or several, for an image [1, in_channels, H, W].
        in_channels: bands of its images.
        multiple: an image is cut at multiples of so many pixels, the largest stride of the model.
        longest: pixels; a model with a larger receptive field is taken for one that sees the whole image.

    Returns:
        Pixels, or None for a model that sees the whole image (group norm, squeeze and excitation, pooling or attention
        over all of it).
    """
    with evaluating(model), torch.inference_mode():
        length = 8 * multiple
        while length <= longest:
            known = list[int]()
            for along, flip in SIDES:
                side = _side(model, in_channels, multiple, length, along=along, flip=flip)
                if side is None:
                    break
                known.append(side)
            if len(known) == len(SIDES):
                return max(known)
            length *= 2
    return None


def _side(model: nn.Module, in_channels: int, multiple: int, length: int, *, along: int, flip: bool) -> int | None:
    """How far NaN in one half of a strip gets into the other; None where it gets to the end."""
    size = [1, in_channels, multiple, multiple]
    size[along] = 2 * length
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(0))
    image = weight.new_zeros(size)
    image.narrow(along, length if flip else 0, length).fill_(torch.nan)
    unknown = _unknown(model(image))
    lines = unknown.any(dim=(0, 1, 5 - along))  # one value for each pixel along the strip
    half = lines[:length].flip(0) if flip else lines[length:]
    return None if bool(half[-1]) else int(half.sum() if not half.any() else half.nonzero().max() + 1)


def _unknown(answer: Any) -> Tensor:
    """Where a dense answer [1, K, H, W] is NaN."""
    if isinstance(answer, Tensor):
        return answer.isnan()
    if isinstance(answer, Sequence):
        return torch.cat([_unknown(part) for part in answer], dim=1)
    raise TypeError(f"{type(answer).__name__}: not a dense answer")
