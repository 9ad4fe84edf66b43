"""Swin transformers for images of any size: whether a stage shifts its windows is told by each image.

A map no larger than a window is one window, which timm does not shift (Liu et al. 2021, section 3.2, has the shift for
connections between windows). timm decides that when a network is built, for one size of image: built for 224 pixels,
the last stage, 7 x 7 cells in windows of 7, would never be shifted, also where the maps of larger images have many
windows. Here each pass decides.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from timm.models.swin_transformer_v2_cr import SwinTransformerV2CrBlock
from torch import Tensor, nn

APART = -100.0  # added to the logits of two cells that are no neighbours; as timm has it


def shift_by_size(features: nn.Module) -> None:
    """Makes the blocks of a Swin transformer of any size shift their windows where a map is larger than a window."""
    for module in features.modules():
        block: Any = module
        kind = KINDS.get(type(module))
        if kind is None or block.always_partition or not block.dynamic_mask or not any(block.target_shift_size):
            continue
        if tuple(block.target_shift_size) == tuple(side // 2 for side in block.window_size):  # else the window was cut
            block.__class__ = kind


def windows_attend(block: Any, x: Tensor) -> Tensor:
    """Attention within shifted windows: [B, H, W, C] -> the same shape. Equals timm's of a network built for that size.

    block: with `window_size`, `target_shift_size`, and `attn` of windows [N, cells, C] and a mask [n, cells, cells].
    """
    images, height, width, channels = x.shape
    rows, columns = block.window_size
    down = _shift(height, rows, block.target_shift_size[0])
    right = _shift(width, columns, block.target_shift_size[1])
    moved = F.pad(torch.roll(x, (-down, -right), (1, 2)), (0, 0, 0, -width % columns, 0, -height % rows))
    tall, wide = moved.shape[1] // rows, moved.shape[2] // columns
    windows = moved.view(images, tall, rows, wide, columns, channels).transpose(2, 3)
    regions = 3 * _regions(tall * rows, rows, down, x)[:, None] + _regions(wide * columns, columns, right, x)
    cells = regions.view(tall, rows, wide, columns).transpose(1, 2).reshape(tall * wide, rows * columns)
    mask = (cells[:, None] != cells[:, :, None]).to(x.dtype) * APART
    seen = block.attn(windows.reshape(-1, rows * columns, channels), mask=mask)
    seen = seen.view(images, tall, wide, rows, columns, channels).transpose(2, 3)
    seen = seen.reshape(images, tall * rows, wide * columns, channels)[:, :height, :width]
    return torch.roll(seen, (down, right), (1, 2))


def _shift(size: int, window: int, shift: int) -> int:
    if isinstance(size, torch.SymInt):  # an exported graph must hold for either case
        chosen: int = torch.sym_ite(size > window, shift, 0)
        return chosen
    return shift if size > window else 0


def _regions(length: int, window: int, shift: int, like: Tensor) -> Tensor:
    """0, 1 or 2 for each cell along a side: before the last window, in it, and what was moved there from the start."""
    place = torch.arange(length, device=like.device)
    return (place >= length - window).long() + (place >= length - shift).long()


class _Block(SwinTransformerBlock):  # type: ignore[misc]  # timm has no types
    def _attn(self, x: Tensor) -> Tensor:
        return windows_attend(self, x)


class _BlockV2(SwinTransformerV2Block):  # type: ignore[misc]
    def _attn(self, x: Tensor) -> Tensor:
        return windows_attend(self, x)


class _BlockV2Cr(SwinTransformerV2CrBlock):  # type: ignore[misc]
    def _shifted_window_attn(self, x: Tensor) -> Tensor:
        return windows_attend(self, x)


KINDS: dict[type, type] = {
    SwinTransformerBlock: _Block,
    SwinTransformerV2Block: _BlockV2,
    SwinTransformerV2CrBlock: _BlockV2Cr,
}
