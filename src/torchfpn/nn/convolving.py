"""How the convolutions of a block of code are computed: with fewer multiplications where that pays."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torchfpn.ops.winograd import conv3x3

CHANNELS, TILES = 128, 48  # from which on the transforms cost less than they save


class Convolving(TorchFunctionMode):
    """Inside, 3x3 convolutions of wide maps are `ops.winograd.conv3x3`: on a CPU, in float32, not in a graph.

    The modules and their weights are what they were; answers differ by rounding.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every call of torch inside."""
        if func is torch.conv2d and not kwargs and len(args) == 7 and _suits(*args):
            return conv3x3(*args[:3])
        return func(*args, **(kwargs or {}))


def _suits(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32 or x.dim() != 4:
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    plain = tuple(stride) == tuple(dilation) == tuple(padding) == (1, 1) and groups == 1
    wide = min(weight.shape[:2]) >= CHANNELS and weight.shape[2:] == (3, 3)
    return plain and wide and len(x) * -(-x.shape[2] // 4) * -(-x.shape[3] // 4) >= TILES
