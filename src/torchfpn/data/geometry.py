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

    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def fits(self, height: int, width: int) -> bool:
        """Whether it lies within an image of this size."""
        return min(self.top, self.left) >= 0 and self.top + self.height <= height and self.left + self.width <= width


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
        height, width = image.shape[-2:]
        part = self._cut(image)
        if valid is not None:
            part = part.to(torch.float32).masked_fill(~self._cut(valid[None]), torch.nan)
        if part.shape[-2:] != self.resized:
            part = _resize(part, self.resized)
        if not self.window.fits(height, width):
            rows, columns = self._sources()
            part = part.to(torch.float32, copy=True)
            part[:, _beyond(rows, height)] = torch.nan
            part[:, :, _beyond(columns, width)] = torch.nan
        return self._turn(part).to(torch.float32, memory_format=torch.contiguous_format, copy=True)

    def on_labels(self, labels: Tensor) -> Tensor:
        """[H, W] to [h, w] int64, the nearest pixel each; `IGNORE` beyond the image."""
        height, width = labels.shape
        rows, columns = self._sources()
        out = labels.index_select(0, rows.clamp(0, height - 1)).index_select(1, columns.clamp(0, width - 1))
        out = out.to(torch.int64)
        if not self.window.fits(height, width):
            out[_beyond(rows, height)] = IGNORE
            out[:, _beyond(columns, width)] = IGNORE
        return self._turn(out)

    def on_points(self, points: Tensor) -> Tensor:
        """[N, 2] (x, y) of the source to the output, in pixels from the corner of the upper left pixel."""
        height, width = self.resized
        x = (points[:, 0] - self.window.left) * (width / self.window.width)
        y = (points[:, 1] - self.window.top) * (height / self.window.height)
        for _ in range(self.turns):
            x, y, width, height = y, width - x, height, width
        return torch.stack((width - x if self.mirror else x, height - y if self.flip else y), 1)

    def _cut(self, image: Tensor) -> Tensor:
        """[C, H, W] to the window; beyond the image its border goes on: NaN there would eat into it when resized."""
        height, width = image.shape[-2:]
        rows, columns = self.window.slices()
        if self.window.fits(height, width):
            return image[:, rows, columns]
        if image.dtype not in (torch.uint8, torch.bool):
            image = image.to(torch.float32)
        image = image.index_select(1, torch.arange(rows.start, rows.stop).clamp(0, height - 1))
        return image.index_select(2, torch.arange(columns.start, columns.stop).clamp(0, width - 1))

    def _sources(self) -> tuple[Tensor, Tensor]:
        """The source row under the centre of each row of the resized window, and the same of columns."""
        (height, width), window = self.resized, self.window
        return _centres(window.top, window.height, height), _centres(window.left, window.width, width)

    def _turn(self, x: Tensor) -> Tensor:
        x = torch.rot90(x, self.turns, (-2, -1)) if self.turns else x
        sides = ([-1] if self.mirror else []) + ([-2] if self.flip else [])
        return x.flip(sides) if sides else x


def _centres(start: int, length: int, out: int) -> Tensor:
    """The source pixel under the centre of each of `out` pixels that share `length` pixels."""
    return torch.div((2 * torch.arange(out) + 1) * length, 2 * out, rounding_mode="floor") + start


def _beyond(places: Tensor, length: int) -> Tensor:
    return (places < 0) | (places >= length)


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
