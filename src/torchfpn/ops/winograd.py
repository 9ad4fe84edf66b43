"""3x3 convolutions on a CPU with a quarter of the multiplications: Winograd's F(4x4, 3x3), and where it is used.

Tiles of 6 x 6 pixels, four apart, are transformed; there, a convolution is a matrix product [T, C] @ [C, O] for each of
the 36 places; transformed back, it is 4 x 4 pixels of the output. The transforms are matrix products as well, and the
gradient of the weights is made of the same tiles. Some hundred tiles are done at a time, which stay in the caches.

Source: Lavin & Gray 2016, section 4.3, with the points 0, 1, -1, 2, -2. Oracle: `torch.nn.functional.conv2d`; the
outputs differ by about 1e-5 of the largest value, five times the rounding of a direct convolution.

Shapes: B images, C channels in, O channels out, T tiles.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from torchfpn.errors import ShapeError

TILES = 256  # at a time: buffers of 9 MiB for 256 channels

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
CHANNELS, MIN_TILES = 128, 48  # from which on the transforms cost less than they save


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[B, C, H, W], [O, C, 3, 3], [O] -> [B, O, H, W] channels last: stride 1, padding 1.

    Equals `conv2d(x, weight, bias, padding=1)`, and so do the gradients; meant for float32 on a CPU, from 128
    channels on. There is no second derivative.

    Raises:
        ShapeError: weights that do not fit the map.
    """
    if x.dim() != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ShapeError(f"weights {list(weight.shape)}", allowed=f"[O, C, 3, 3] for a map {list(x.shape)}")
    made: Tensor = _Convolution.apply(x, weight, bias)
    return made


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolved(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _convolved(grad, weight.flip(2, 3).transpose(0, 1), None) if of_x else None,
            _of_weight(x, grad) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
        )


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    (images, channels, height, width), wide = x.shape, len(weight)
    filters = (_both(FILTER, x) @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, channels, wide)
    back = _both(BACK, x)
    tiles = _Tiles(x, max(channels, wide))
    out = torch.empty(images, wide, height, width, dtype=x.dtype, memory_format=torch.channels_last)
    laid = out.permute(0, 2, 3, 1)
    for some, band in tiles.parts():
        seen = tiles.transformed(some, band)  # [36, T, C] in the second buffer
        products = tiles.room(0, 36, seen.shape[1], wide)
        torch.bmm(seen, filters, out=products)
        if bias is not None:
            products[ONES] += bias
        pixels = tiles.room(1, 16, seen.shape[1], wide)
        torch.mm(back, products.view(36, -1), out=pixels.view(16, -1))
        grid = (some.stop - some.start, band.stop - band.start, tiles.across)
        _lay(pixels.view(4, 4, *grid, wide), laid[some], 4 * band.start, tiles.buffers[0])
    return out


def _of_weight(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the weights [O, C, 3, 3] from the map and the gradient of the answer."""
    channels, wide = x.shape[1], grad.shape[1]
    tiles, rows = _Tiles(x, max(channels, wide)), grad.permute(0, 2, 3, 1)
    forth = _both(BACK, x).t().contiguous()
    total, products = x.new_zeros(36, channels, wide), None
    for some, band in tiles.parts():
        seen = tiles.transformed(some, band)
        number = seen.shape[1]
        if products is None:
            products = x.new_empty(36 * number * wide)
        meant = products[: 36 * number * wide].view(36, number, wide)
        pixels = tiles.room(0, 16, number, wide)
        grid = (some.stop - some.start, band.stop - band.start, tiles.across)
        _take(rows[some], 4 * band.start, pixels.view(4, 4, *grid, wide), products)
        torch.mm(forth, pixels.view(16, -1), out=meant.view(36, -1))
        total.baddbmm_(seen.transpose(1, 2), meant)
    return (_both(FILTER, x).t() @ total.view(36, -1)).view(3, 3, channels, wide).permute(3, 2, 0, 1)


def _both(matrix: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """A transform of lines -> the same of rows and columns at once, on flat tiles."""
    line = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(line, line).to(like)


class _Tiles:
    """The tiles of a map [B, C, H, W], part by part, and two buffers for what is made of them.

    Zeros are laid around a part at a time: the map as a whole is never copied.
    """

    def __init__(self, x: Tensor, widest: int) -> None:
        self.images, self.channels, height, width = x.shape
        self.down, self.across = -(-height // 4), -(-width // 4)
        self.rows = x.permute(0, 2, 3, 1)
        self.forward = _both(FORWARD, x)
        some, band = next(self.parts())  # no part is larger
        tall, across = 4 * (band.stop - band.start) + 2, 4 * self.across + 2
        self.padded = x.new_zeros(some.stop - some.start, tall, across, self.channels)
        most = 36 * (some.stop - some.start) * (band.stop - band.start) * self.across * widest
        self.buffers = x.new_empty(most), x.new_empty(most)

    def parts(self) -> Iterator[tuple[slice, slice]]:
        """Images and rows of tiles, about `TILES` tiles at a time: several whole images, or some rows of one."""
        several = max(1, TILES // (self.down * self.across))
        height = max(1, min(self.down, TILES // self.across))
        for image in range(0, self.images, several):
            for row in range(0, self.down, height):
                yield slice(image, min(image + several, self.images)), slice(row, min(row + height, self.down))

    def room(self, which: int, places: int, number: int, wide: int) -> Tensor:
        """[places, number, wide] in one of the buffers."""
        return self.buffers[which][: places * number * wide].view(places, number, wide)

    def transformed(self, some: slice, band: slice) -> Tensor:
        """The tiles of a part [36, T, C], transformed, in the second buffer; the first is lost."""
        rows = self._padded(some, band)
        image, y, x, _ = rows.stride()
        size = (6, 6, len(rows), band.stop - band.start, self.across, self.channels)
        cut = rows.as_strided(size, (y, x, image, 4 * y, 4 * x, 1))
        number = size[2] * size[3] * size[4]
        one, two = (self.room(which, 36, number, self.channels) for which in (0, 1))
        one.view(size).copy_(cut)
        torch.mm(self.forward, one.view(36, -1), out=two.view(36, -1))
        return two

    def _padded(self, some: slice, band: slice) -> Tensor:
        """The rows of a part [b, h, w, C] with a pixel more on every side, zeros outside of the map."""
        (_, height, width, _), first, last = self.rows.shape, 4 * band.start - 1, 4 * band.stop + 1
        top, bottom = max(first, 0), min(last, height)
        part = self.padded[: some.stop - some.start, : last - first]
        part[:, : top - first] = part[:, bottom - first :] = 0
        part[:, top - first : bottom - first, 1 : width + 1] = self.rows[some, top:bottom]
        return part


def _lay(pixels: Tensor, out: Tensor, first: int, buffer: Tensor) -> None:
    """[4, 4, b, k, across, O] -> the pixels from row `first` on of [b, H, W, O], without those over the edges."""
    _, _, images, down, across, wide = pixels.shape
    part = out[:, first : first + 4 * down]
    laid = pixels.permute(2, 3, 0, 4, 1, 5)
    if images == 1 and part.shape[1:3] == (4 * down, 4 * across):
        part.view(laid.shape).copy_(laid)
    else:
        whole = buffer[: laid.numel()].view(laid.shape).copy_(laid).view(images, 4 * down, 4 * across, wide)
        part.copy_(whole[:, : part.shape[1], : part.shape[2]])


def _take(rows: Tensor, first: int, out: Tensor, buffer: Tensor) -> None:
    """The other way: pixels from row `first` on of [b, H, W, O] -> [4, 4, b, k, across, O], zeros over the edges."""
    _, _, images, down, across, wide = out.shape
    part = rows[:, first : first + 4 * down]
    if part.shape[1:3] != (4 * down, 4 * across):
        whole = buffer[: out.numel()].view(images, 4 * down, 4 * across, wide).zero_()
        whole[:, : part.shape[1], : part.shape[2]] = part
        part = whole
    out.copy_(part.view(images, down, 4, across, 4, wide).permute(2, 4, 0, 1, 3, 5))


class Convolving(TorchFunctionMode):
    """Inside, 3x3 convolutions of wide maps are `ops.winograd.conv3x3`: on a CPU, in float32, not in a graph.

    Modules and weights do not change; outputs differ by rounding.
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
    return plain and wide and len(x) * -(-x.shape[2] // 4) * -(-x.shape[3] // 4) >= MIN_TILES
