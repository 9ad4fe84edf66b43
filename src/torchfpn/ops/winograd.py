"""3x3 convolutions with a quarter of the multiplications, on a CPU: Winograd's F(4x4, 3x3).

Tiles of 6 x 6 pixels, four apart, are transformed; there, a convolution is a matrix product [T, C] @ [C, O] for each of
the 36 places; transformed back, it is 4 x 4 pixels of the answer. The transforms are matrix products as well. Some
hundred tiles are done at a time, which stay in the caches.

Source: Lavin & Gray 2016, section 4.3, with the points 0, 1, -1, 2, -2. Oracle: `torch.nn.functional.conv2d`; the
answers differ by about 1e-5 of the largest value, five times what a direct convolution rounds.

Shapes: B images, C channels in, O channels out, T tiles.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfpn.errors import ShapeError

TILES = 256  # at a time: two buffers of 9 MiB for 256 channels
FORWARD = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
FILTER = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
BACK = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
ONES = 7  # the place (1, 1) of 6 x 6: what stands there comes back in every pixel of the tile, times 1


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[B, C, H, W], [O, C, 3, 3], [O] -> [B, O, H, W] channels last: stride 1, padding 1. No gradient.

    Equals `conv2d(x, weight, bias, padding=1)`; meant for float32 on a CPU, many channels and many pixels.

    Raises:
        ShapeError: weights that do not fit the map.
    """
    if x.dim() != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ShapeError(f"weights {list(weight.shape)}", allowed=f"[O, {x.shape[1]}, 3, 3] for {list(x.shape)}")
    (images, channels, height, width), wide = x.shape, len(weight)
    down, across = -(-height // 4), -(-width // 4)
    rows = x.permute(0, 2, 3, 1)
    rows = F.pad(rows, (0, 0, 1, 4 * across - width + 1, 1, 4 * down - height + 1)).contiguous()
    filters = (_both(FILTER, x) @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, channels, wide)
    forward, back = _both(FORWARD, x), _both(BACK, x)
    out = x.new_empty(images, height, width, wide)
    room: tuple[Tensor, Tensor] | None = None
    for some, band in _parts(images, down, across):
        tiles = _tiles(rows[some], band, across)  # [6, 6, b, k, across, C]
        shape = tiles.shape[2:5]
        number = shape.numel()
        if room is None:  # the first part is the largest
            room = x.new_empty(36 * number * max(channels, wide)), x.new_empty(36 * number * max(channels, wide))
        one, two = (buffer[: 36 * number * channels].view(36, -1) for buffer in room)
        one.view(tiles.shape).copy_(tiles)
        torch.mm(forward, one, out=two)
        products = room[0][: 36 * number * wide].view(36, number, wide)
        torch.bmm(two.view(36, number, channels), filters, out=products)
        if bias is not None:
            products[ONES] += bias
        pixels = room[1][: 16 * number * wide].view(16, -1)
        torch.mm(back, products.view(36, -1), out=pixels)
        _lay(pixels.view(4, 4, *shape, wide), out[some], 4 * band.start, room[0])
    return out.permute(0, 3, 1, 2)


def _both(matrix: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """A transform of lines -> the same of rows and columns at once, on flat tiles."""
    line = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(line, line).to(like)


def _parts(images: int, down: int, across: int) -> Iterator[tuple[slice, slice]]:
    """Images and rows of tiles, about `TILES` tiles at a time: several whole images, or some rows of one."""
    several = max(1, TILES // (down * across))
    height = max(1, min(down, TILES // across))
    for image in range(0, images, several):
        for row in range(0, down, height):
            yield slice(image, min(image + several, images)), slice(row, min(row + height, down))


def _tiles(rows: Tensor, band: slice, across: int) -> Tensor:
    """[b, H, W, C] padded -> the tiles of some rows of tiles, a view [6, 6, b, k, across, C]; they overlap by two."""
    image, y, x, _ = rows.stride()
    size = (6, 6, len(rows), band.stop - band.start, across, rows.shape[3])
    return rows.as_strided(size, (y, x, image, 4 * y, 4 * x, 1), rows.storage_offset() + 4 * band.start * y)


def _lay(pixels: Tensor, out: Tensor, first: int, room: Tensor) -> None:
    """[4, 4, b, k, across, O] -> the pixels from row `first` on of [b, H, W, O], without those over the edges."""
    _, _, images, down, across, wide = pixels.shape
    part = out[:, first : first + 4 * down]
    laid = pixels.permute(2, 3, 0, 4, 1, 5)
    if part.shape[1:3] == (4 * down, 4 * across):
        part.view(laid.shape).copy_(laid)
    else:
        whole = room[: laid.numel()].view(laid.shape).copy_(laid).view(images, 4 * down, 4 * across, wide)
        part.copy_(whole[:, : part.shape[1], : part.shape[2]])
