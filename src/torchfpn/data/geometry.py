"""Where each pixel of an augmented image comes from, as one value: applied alike to images, labels and points."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfpn.types import IGNORE, Size


@dataclass(frozen=True)
class Window:
    """A rectangle of source pixels; it may reach beyond the image, where there is no data."""

    top: int
    left: int
    height: int
    width: int

    def inside(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the part that lies in an image of this size."""
        rows = slice(min(max(self.top, 0), height), max(min(self.top + self.height, height), 0))
        columns = slice(min(max(self.left, 0), width), max(min(self.left + self.width, width), 0))
        return rows, columns

    def margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """How far it reaches out of an image of this size: left, right, top, bottom, as `F.pad` wants them."""
        right, bottom = self.left + self.width - width, self.top + self.height - height
        return max(-self.left, 0), max(right, 0), max(-self.top, 0), max(bottom, 0)


@dataclass(frozen=True)
class Geometry:
    """A window of the source, resampled once to `size`, then turned and mirrored.

    size: (height, width) of what comes out. turns: quarter turns counter-clockwise, 0..3. mirror: left to right after
    the turn. flip: upside down after the turn.
    """

    window: Window
    size: Size
    turns: int = 0
    mirror: bool = False
    flip: bool = False

    @property
    def resized(self) -> Size:
        """The size before the turn."""
        return self.size if self.turns % 2 == 0 else (self.size[1], self.size[0])

    def on_image(self, image: Tensor, valid: Tensor | None = None) -> Tensor:
        """[C, H, W] of any type to [C, h, w] float32, bilinear with antialiasing; NaN beyond the image.

        A pixel that would be mixed from any NaN, or any pixel that is not `valid` [H, W], is NaN. Only the window is
        read; what comes out shares no memory with the image.
        """
        part = self._cut(image, valid)
        if part.shape[-2:] != self.resized:
            part = _resize(part, self.resized)
        return self._turn(part).to(torch.float32, memory_format=torch.contiguous_format, copy=True)

    def on_labels(self, labels: Tensor) -> Tensor:
        """[H, W] to [h, w] int64, the nearest pixel each; `IGNORE` beyond the image."""
        rows = self._sources(self.window.top, self.window.height, self.resized[0])
        columns = self._sources(self.window.left, self.window.width, self.resized[1])
        height, width = labels.shape
        out = labels.index_select(0, rows.clamp(0, height - 1)).index_select(1, columns.clamp(0, width - 1))
        out = out.to(torch.int64)
        if any(self.window.margins(height, width)):
            out[(rows < 0) | (rows >= height)] = IGNORE
            out[:, (columns < 0) | (columns >= width)] = IGNORE
        return self._turn(out)

    def on_points(self, points: Tensor) -> Tensor:
        """[N, 2] (x, y) of the source to the output, in pixels from the corner of the upper left pixel."""
        height, width = self.resized
        x = (points[:, 0] - self.window.left) * (width / self.window.width)
        y = (points[:, 1] - self.window.top) * (height / self.window.height)
        for _ in range(self.turns):
            x, y, width, height = y, width - x, height, width
        return torch.stack((width - x if self.mirror else x, height - y if self.flip else y), 1)

    def _cut(self, image: Tensor, valid: Tensor | None) -> Tensor:
        height, width = image.shape[-2:]
        rows, columns = self.window.inside(height, width)
        part = image[:, rows, columns]
        if valid is not None:
            part = part.to(torch.float32).masked_fill(~valid[rows, columns], torch.nan)
        margins = self.window.margins(height, width)
        if any(margins):
            part = F.pad(part.to(torch.float32), margins, value=torch.nan)
        return part

    @staticmethod
    def _sources(start: int, length: int, out: int) -> Tensor:
        """The source pixel under the centre of each of `out` pixels that share `length` pixels."""
        return torch.div((2 * torch.arange(out) + 1) * length, 2 * out, rounding_mode="floor") + start

    def _turn(self, x: Tensor) -> Tensor:
        x = torch.rot90(x, self.turns, (-2, -1)) if self.turns else x
        sides = ([-1] if self.mirror else []) + ([-2] if self.flip else [])
        return x.flip(sides) if sides else x


def _resize(part: Tensor, size: Size) -> Tensor:
    """Antialiased bilinear. uint8 stays uint8: with interleaved bands that is six times faster than floats."""
    if size[1] == 1:  # torch 2.15 gives wrong floats, and fails with bytes, for a width of 1; a height of 1 is right
        return _interpolate(part.mT[None].to(torch.float32), size[::-1])[0].mT
    if part.dtype == torch.uint8:
        part = part[None].contiguous(memory_format=torch.channels_last)
    else:
        part = part[None].to(torch.float32)
    return _interpolate(part, size)[0]


def _interpolate(images: Tensor, size: Size) -> Tensor:
    return F.interpolate(images, size, mode="bilinear", antialias=True)
