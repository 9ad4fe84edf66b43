"""Which EfficientNet of lukemelas/EfficientNet-PyTorch is it? Told from its depth and its last width."""

import re

from torchfpn.backbones.lukemelas import SCALES, blocks_and_width
from torchfpn.errors import WeightsError
from torchfpn.importers.family import Asked, Tensors, numbers, shape


def efficientnet_name(tensors: Tensors, prefix: str, asked: Asked) -> str:
    """efficientnet_b0 to b8; prefix: what stands before `_blocks` in the names.

    Raises:
        WeightsError: depth and width of none of them.
    """
    depth = len(numbers(tensors, re.escape(prefix) + r"_blocks\.(\d+)\."))
    head = f"{prefix}_conv_head.weight"
    width = shape(tensors, head, asked)[0]
    for name in SCALES:
        if blocks_and_width(name) == (depth, width):
            return name
    raise WeightsError(
        f"{depth} blocks, {width} channels at the end", file=asked.file, field=head, allowed=" | ".join(SCALES)
    )
