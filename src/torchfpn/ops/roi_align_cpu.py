"""RoIAlign on a CPU: every bin is a weighted sum of rows [C] of the map, computed by `embedding_bag` on every core.

A bilinear sample at (y, x) is the product of two samples on a line, and so is the mean over the samples of a bin. So
the cells and weights of a bin ("taps") are made for rows and columns separately; equal cells are merged and those of
weight zero dropped; then each bin takes the product of its two lists. The gradient uses the same table of taps, sorted
by cell: each cell of the map is a weighted sum of rows of the incoming gradient.

Shapes: R boxes, h x w bins, T taps; cells are counted over all images of a map, row by row.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchfpn.errors import ShapeError
from torchfpn.types import Size

FORWARD_TAPS = 1 << 16  # about 10 MiB of indices and weights at a time, which stays in the caches
BACKWARD_TAPS = 1 << 20  # about 64 MiB: every round writes the whole gradient, so fewer of them
LARGE = 1 << 22  # bytes from which numpy asks for huge pages
PIECE = 4096  # rows of the gradient made at a time: they are still in the cache when they are moved to their place


def forward(
    maps: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    size: Size,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The operator of `roi_align.py`: -> [R, C, h, w] in the dtype of the maps, channels last.

    Raises:
        ShapeError: a box of an image or a level that there is not.
    """
    images, channels = maps[0].shape[:2]
    _check(rois, levels, images, len(maps))
    out = _fresh(rois.shape[0], size[0] * size[1] * channels, maps[0].dtype)
    out[(levels < 0).nonzero()[:, 0]] = 0
    for i, x in enumerate(maps):
        mine = (levels == i).nonzero()[:, 0]
        if not len(mine):
            continue
        table = _rows(x)
        boxes = _boxes(rois[mine], scales[i], x.shape[-2:], size, sampling_ratio, aligned, _wide(x.dtype))
        for first, taps in boxes.taps(FORWARD_TAPS):
            part = mine[first : first + len(taps.starts) // (size[0] * size[1])]
            out[part] = _sums(table, taps).view(len(part), -1)
    out[(~rois.isfinite().all(1) & (levels >= 0)).nonzero()[:, 0]] = torch.nan
    return out.view(-1, *size, channels).permute(0, 3, 1, 2)


def backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    sizes: Sequence[Size],
    images: int,
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    """The gradient [images, C, H_i, W_i] of every map, channels last; the same for every run and number of threads."""
    channels, size, dtype = grad.shape[1], (grad.shape[2], grad.shape[3]), _wide(grad.dtype)
    rows, bins = _rows(grad).to(dtype), torch.arange(size[0] * size[1])
    out = []
    for i, extent in enumerate(sizes):
        mine = (levels == i).nonzero()[:, 0]
        total, written = _fresh(images * extent[0] * extent[1], channels, dtype), False
        boxes = _boxes(rois[mine], scales[i], extent, size, sampling_ratio, aligned, dtype)
        for first, taps in boxes.taps(BACKWARD_TAPS):
            names = (mine[first:, None] * len(bins) + bins).flatten()
            for cells, part in taps.transposed(names, len(total)).pieces():
                if written:
                    total[cells] += _sums(rows, part)
                else:
                    total[cells] = _sums(rows, part)
            written = True
        if not written:
            total.zero_()
        out.append(total.to(grad.dtype).view(images, *extent, channels).permute(0, 3, 1, 2))
    return out


def _check(rois: Tensor, levels: Tensor, images: int, maps: int) -> None:
    if not len(rois):
        return
    if not (rois[:, 0].min() >= 0 and rois[:, 0].max() < images):
        raise ShapeError(f"rois of image {rois[:, 0].min():g} to {rois[:, 0].max():g}", allowed=f"0 to {images - 1}")
    if levels.min() < -1 or levels.max() >= maps:
        raise ShapeError(f"levels {int(levels.min())} to {int(levels.max())}", allowed=f"-1 to {maps - 1}")


def _fresh(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """An empty [rows, columns] from numpy, which asks for huge pages: half of the time was page faults without them."""
    wanted = rows * columns * dtype.itemsize
    if wanted < LARGE:
        return torch.empty(rows, columns, dtype=dtype)
    memory = np.empty(wanted + 64, np.uint8)
    memory = memory[-memory.ctypes.data % 64 :][:wanted]  # on a cache line, as torch has it
    return torch.from_numpy(memory).view(dtype).view(rows, columns)


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B * H * W, C], without a copy where `x` is channels_last."""
    images, channels, height, width = x.shape
    last = x.permute(0, 2, 3, 1)
    if last.is_contiguous():
        return last.view(-1, channels)
    table = _fresh(images * height * width, channels, x.dtype)
    for i, image in enumerate(x):  # as matrices: torch transposes those in blocks, other permutations cell by cell
        table[i * height * width : (i + 1) * height * width] = image.reshape(channels, -1).t()
    return table


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


# -- from taps to sums -------------------------------------------------------------------------------------------------
class Taps(NamedTuple):
    """Weighted rows of each bag, as `embedding_bag` takes them: those of bag i are starts[i] .. starts[i + 1]."""

    rows: Tensor  # [T] int32
    weights: Tensor  # [T] float
    starts: Tensor  # [bags] int32

    def transposed(self, names: Tensor, number: int) -> "Taps":
        """Bags and rows exchanged: `number` bags, whose rows are the `names` [bags or more] of the bags of these."""
        ends = torch.cat([self.starts[1:], self.starts.new_tensor([len(self.rows)])])
        bag = names.int().index_select(0, torch.repeat_interleave(ends - self.starts))
        order = self.rows.sort(stable=True).indices
        counts = torch.bincount(self.rows, minlength=number)
        return Taps(bag[order], self.weights[order], (counts.cumsum(0) - counts).int())

    def pieces(self) -> Iterator[tuple[slice, "Taps"]]:
        """The taps of consecutive bags, `PIECE` at a time, and which bags those are."""
        starts = [*self.starts[::PIECE].tolist(), len(self.rows)]
        for i, (a, b) in enumerate(pairwise(starts)):
            bags = slice(i * PIECE, min((i + 1) * PIECE, len(self.starts)))
            yield bags, Taps(self.rows[a:b], self.weights[a:b], self.starts[bags] - a)


def _sums(table: Tensor, taps: Taps) -> Tensor:
    """Rows of a table [N, C], summed by the taps of so many bags -> [bags, C] in the dtype of the table."""
    rows, weights, starts = taps
    if table.dtype not in (torch.float32, torch.float64):
        # The weights must have the dtype of the table, which is too coarse for them: each is the sum of two numbers,
        # and each row is read twice. Accumulated in float32, and faster than a float32 copy of the map.
        high = weights.to(table.dtype)
        low = (weights - high).to(table.dtype)
        rows, weights, starts = rows.repeat_interleave(2), torch.stack([high, low], 1).flatten(), starts * 2
    return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights.to(table.dtype))


# -- from boxes to taps ------------------------------------------------------------------------------------------------
class Line(NamedTuple):
    """Taps along one axis, sorted by box and bin: `counts` [R, bins] of them for each bin, cells and weights flat."""

    counts: Tensor
    cells: Tensor
    weights: Tensor

    def starts(self) -> Tensor:
        """The first tap of each bin [R, bins]."""
        flat = self.counts.flatten()
        return (flat.cumsum(0) - flat).view_as(self.counts).int()


class Boxes(NamedTuple):
    """Boxes on one map: their taps along both axes, and the first cell of the image of each box [R]."""

    ys: Line
    xs: Line
    origin: Tensor
    width: int  # cells in a row of the map

    def taps(self, most: int) -> Iterator[tuple[int, Taps]]:
        """The taps of consecutive boxes, at most `most` at a time (one box at least), and the number of the first."""
        ends = (self.ys.counts.sum(1).long() * self.xs.counts.sum(1)).cumsum(0).tolist()
        y_starts, x_starts = self.ys.starts(), self.xs.starts()
        first = 0
        while first < len(ends):
            done = ends[first - 1] if first else 0
            last = first + 1
            while last < len(ends) and ends[last] - done <= most:
                last += 1
            yield first, self._outer(slice(first, last), y_starts, x_starts)
            first = last

    def _outer(self, part: slice, y_starts: Tensor, x_starts: Tensor) -> Taps:
        """The product of both lists, for every bin: first its rows ("runs"), then the cells of each row."""
        ny, nx = self.ys.counts[part, :, None], self.xs.counts[part, None, :]
        shape = (len(ny), ny.shape[1], nx.shape[2])
        ny, nx = ny.expand(shape).flatten(), nx.expand(shape).flatten()
        y0, x0 = y_starts[part, :, None].expand(shape).flatten(), x_starts[part, None, :].expand(shape).flatten()
        origin = self.origin[part, None, None].expand(shape).flatten()

        bag, k = _within(ny)
        y = y0.index_select(0, bag) + k
        begin = origin.index_select(0, bag) + self.ys.cells.index_select(0, y) * self.width
        run, k = _within(nx.index_select(0, bag))
        x = x0.index_select(0, bag).index_select(0, run) + k
        rows = begin.index_select(0, run) + self.xs.cells.index_select(0, x)
        weights = self.ys.weights.index_select(0, y).index_select(0, run) * self.xs.weights.index_select(0, x)
        counts = ny * nx
        return Taps(rows, weights, (counts.cumsum(0) - counts).int())


def _within(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Groups of `counts` members laid in a row -> the group of each member, and its place in the group; int32."""
    group = torch.repeat_interleave(counts)
    starts = (counts.cumsum(0) - counts).int()
    return group, torch.arange(len(group), dtype=torch.int32) - starts.index_select(0, group)


def _boxes(
    rois: Tensor,
    scale: float,
    extent: Sequence[int],
    size: Size,
    sampling_ratio: int,
    aligned: bool,
    dtype: torch.dtype,
) -> Boxes:
    """RoIs of one map of `extent` (H, W) cells; every step rounds as torchvision's does, the edges depend on it."""
    image = rois[:, 0].to(torch.int32)
    x1, y1, x2, y2 = (rois[:, 1:].to(dtype) * scale - (0.5 if aligned else 0.0)).unbind(1)
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = height.clamp(min=1), width.clamp(min=1)
    ys = _line(y1, height, size[0], extent[0], sampling_ratio)
    xs = _line(x1, width, size[1], extent[1], sampling_ratio)
    return Boxes(ys, xs, image * (extent[0] * extent[1]), extent[1])


def _line(start: Tensor, length: Tensor, bins: int, extent: int, sampling_ratio: int) -> Line:
    """start, length [R] in cells -> the taps of `bins` bins on a line of `extent` cells.

    A sample outside of -1 .. extent counts as zero; one outside of the centres of the cells takes the nearest cell.
    """
    bin_, sample, number = _samples(start, length, bins, extent, sampling_ratio)
    box = bin_ // bins
    step = (length / bins)[box]
    at = start[box] + (bin_ - box * bins) * step + (sample + 0.5) * step / number[box]
    seen = (at >= -1) & (at <= extent)
    at = at.where(seen, 0).clamp(0, extent - 1)
    low = at.long()
    part = at - low
    share = seen / number[box]
    cells = torch.stack([low, (low + 1).clamp(max=extent - 1)], 1).flatten()
    weights = torch.stack([(1 - part) * share, part * share], 1).flatten()
    # The same cell seen by several samples of a bin becomes one tap. Keys of a line are few: sorting them is cheap.
    used = weights.nonzero()[:, 0]
    keys, order = (bin_.repeat_interleave(2) * extent + cells)[used].sort(stable=True)
    keys, group = torch.unique_consecutive(keys, return_inverse=True)
    merged = weights.new_zeros(len(keys)).index_add_(0, group, weights[used][order])
    counts = torch.bincount(keys // extent, minlength=len(start) * bins)
    return Line(counts.view(len(start), bins).int(), (keys % extent).int(), merged)


def _samples(
    start: Tensor, length: Tensor, bins: int, extent: int, sampling_ratio: int
) -> tuple[Tensor, Tensor, Tensor]:
    """-> the bin and the number within it of every sample that may lie on the line, and [R] how many a bin has."""
    if sampling_ratio > 0:
        number = torch.full_like(start, sampling_ratio)
        bin_ = torch.arange(len(start) * bins).repeat_interleave(sampling_ratio)
        return bin_, torch.arange(sampling_ratio).repeat(len(start) * bins), number
    number = (length / bins).ceil().nan_to_num(0, 0, 0).clamp(min=0)
    # A box may be far larger than the map; only the samples near the map are made, so that memory stays bounded.
    step = (length / bins).double()[:, None]
    edge = start.double()[:, None] + torch.arange(bins) * step
    many = number.double()[:, None]
    first = ((-1 - edge) / step * many - 2).nan_to_num(0).floor().clamp(min=0)
    last = ((extent - edge) / step * many + 2).nan_to_num(0).ceil()
    counts = (last.minimum(many) - first.minimum(many)).clamp(min=0).long().flatten()
    bin_ = torch.repeat_interleave(counts)
    sample = torch.arange(len(bin_)) - (counts.cumsum(0) - counts - first.long().flatten())[bin_]
    return bin_, sample, number
