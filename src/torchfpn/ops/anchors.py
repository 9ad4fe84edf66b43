"""Anchors: the boxes that every cell of a map speaks of (Ren et al. 2015; Lin et al. 2017, section 4.1)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from torchfpn.types import Size

Stride = Literal["declared", "measured"]


def shapes(sizes: Sequence[float], ratios: Sequence[float], *, rounded: bool = False) -> Tensor:
    """[A, 4] anchors about (0, 0), ratios outside, sizes inside.

    sizes: square roots of areas, in pixels. ratios: height over width. rounded: corners to whole pixels, as torchvision
    has them; detectron2 does not.
    """
    ratio, size = torch.tensor(ratios, dtype=torch.float32), torch.tensor(sizes, dtype=torch.float32)
    tall = torch.sqrt(ratio)
    widths, heights = ((1 / tall)[:, None] * size).flatten(), (tall[:, None] * size).flatten()
    corners = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
    return corners.round() if rounded else corners


def spread(cell: Tensor, grid: Size, strides: tuple[int, int]) -> Tensor:
    """[A, 4] anchors of one cell -> [h * w * A, 4] of all cells of a map, row by row, the A of a cell together.

    grid: rows and columns. strides: pixels between rows and between columns; the first cell's anchors lie about (0, 0).
    """
    rows = torch.arange(grid[0], device=cell.device, dtype=cell.dtype) * strides[0]
    columns = torch.arange(grid[1], device=cell.device, dtype=cell.dtype) * strides[1]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1)  # [h, w, 4]
    return (shifts[:, :, None] + cell).reshape(-1, 4)


def strides_of(grid: Size, frame: Size, declared: int, how: Stride) -> tuple[int, int]:
    """Pixels between cells: as the level declares, or as torchvision measures them, image size over map size.

    The two differ where a map was rounded up: a stride of 64 on an image of 96 pixels is measured as 48.
    """
    return (declared, declared) if how == "declared" else (frame[0] // grid[0], frame[1] // grid[1])


def by_anchor(maps: Tensor, width: int) -> Tensor:
    """[B, A * width, h, w] -> [B, h * w * A, width]: an anchor a row, in the order of `spread`."""
    b, channels, h, w = maps.shape
    return maps.reshape(b, channels // width, width, h, w).permute(0, 3, 4, 1, 2).reshape(b, -1, width)
