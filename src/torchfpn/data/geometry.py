"""Where each pixel of an augmented image comes from, as one value: applied alike to images, labels and points."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfpn.files.geo import Window
from torchfpn.types import IGNORE, Size


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

    def within(self, size: Size) -> tuple[Window, "Geometry"]:
        """The part of an image of this size that is needed, and the same geometry as seen from that part."""
        rows = _inside(self.window.row, self.window.height, size[0])[1]
        columns = _inside(self.window.column, self.window.width, size[1])[1]
        part = Window(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
        window = self.window.within(part)
        return part, replace(self, window=window)

    def on_image(self, image: Tensor, valid: Tensor | None = None) -> Tensor:
        """[C, H, W] of any type to [C, h, w] float32, bilinear with antialiasing; NaN beyond the image.

        A pixel that would be mixed from any NaN, or any pixel that is not `valid` [H, W], is NaN. Only the window is
        read; what comes out shares no memory with the image.
        """
        part = self._cut(image)
        if valid is not None:
            part = part.to(torch.float32).masked_fill(~self._cut(valid[None]), torch.nan)
        if part.shape[-2:] != self.resized:
            part = _resize(part, self.resized)
        out = self.turned(part).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return out if self._fits(image) else out.masked_fill_(self.turned(self._beyond(image)), torch.nan)

    def on_labels(self, labels: Tensor) -> Tensor:
        """[H, W] to [h, w] int64, the nearest pixel each; `IGNORE` beyond the image."""
        height, width = labels.shape
        rows, columns = self.sources()
        out = labels.index_select(0, rows.clamp(0, height - 1)).index_select(1, columns.clamp(0, width - 1))
        out = self.turned(out).to(torch.int64, memory_format=torch.contiguous_format)
        return out if self._fits(labels) else out.masked_fill_(self.turned(self._beyond(labels)), IGNORE)

    def on_points(self, points: Tensor) -> Tensor:
        """[N, 2] (x, y) of the source to the output, in pixels from the corner of the upper left pixel."""
        height, width = self.resized
        x = (points[:, 0] - self.window.column) * (width / self.window.width)
        y = (points[:, 1] - self.window.row) * (height / self.window.height)
        for _ in range(self.turns):
            x, y, width, height = y, width - x, height, width
        return torch.stack((width - x if self.mirror else x, height - y if self.flip else y), 1)

    def on_boxes(self, boxes: Tensor) -> Tensor:
        """[N, 4] (x1, y1, x2, y2) of the source to the output; they may reach beyond it."""
        corners = self.on_points(boxes.reshape(-1, 2)).reshape(-1, 2, 2)
        return torch.cat([corners.amin(1), corners.amax(1)], 1)

    def _cut(self, image: Tensor) -> Tensor:
        """[C, H, W] to the window; beyond the image its border goes on: NaN there would eat into it when resized."""
        height, width = image.shape[-2:]
        if self._fits(image):
            return image[(slice(None), *self.window.slices)]
        top, rows = _inside(self.window.row, self.window.height, height)
        left, columns = _inside(self.window.column, self.window.width, width)
        bottom, right = top + rows.stop - rows.start, left + columns.stop - columns.start
        part = image.new_empty(len(image), self.window.height, self.window.width)
        part[:, top:bottom, left:right] = image[:, rows, columns]
        part[:, :top, left:right] = part[:, top : top + 1, left:right]
        part[:, bottom:, left:right] = part[:, bottom - 1 : bottom, left:right]
        part[:, :, :left] = part[:, :, left : left + 1]
        part[:, :, right:] = part[:, :, right - 1 : right]
        return part

    def _fits(self, image: Tensor) -> bool:
        return self.window.fits(image.shape[-2], image.shape[-1])

    def _beyond(self, image: Tensor) -> Tensor:
        """True where a pixel of the resized window has its centre beyond the image."""
        rows, columns = self.sources()
        return _outside(rows, image.shape[-2])[:, None] | _outside(columns, image.shape[-1])

    def sources(self) -> tuple[Tensor, Tensor]:
        """The source row under the centre of each row of the resized window, and the same of columns."""
        (height, width), window = self.resized, self.window
        return _centres(window.row, window.height, height), _centres(window.column, window.width, width)

    def turned(self, x: Tensor) -> Tensor:
        """[..., H, W] turned and mirrored."""
        x = torch.rot90(x, self.turns, (-2, -1)) if self.turns else x
        sides = ([-1] if self.mirror else []) + ([-2] if self.flip else [])
        return x.flip(sides) if sides else x


def lay(length: int, window: int, draw: float, target: int | None) -> int:
    """Where a window starts on one axis: anywhere it fits, or with `target` in its middle half as far as it fits.

    A window longer than the image covers it whole, at a random place.
    """
    low, high = min(0, length - window), max(0, length - window)
    if target is None:
        return low + min(int(draw * (high - low + 1)), high - low)
    return min(max(target - int(window * (0.25 + 0.5 * draw)), low), high)


def _centres(start: int, length: int, out: int) -> Tensor:
    """The source pixel under the centre of each of `out` pixels that share `length` pixels."""
    return torch.div((2 * torch.arange(out) + 1) * length, 2 * out, rounding_mode="floor") + start


def _outside(places: Tensor, length: int) -> Tensor:
    return (places < 0) | (places >= length)


def _inside(start: int, count: int, length: int) -> tuple[int, slice]:
    """Where the image begins in a window of `count` pixels, and its part that lies there; at least one pixel."""
    first = min(max(start, 0), length - 1)
    last = max(min(start + count, length), first + 1)
    place = min(max(first - start, 0), count - 1)
    return place, slice(first, first + min(last - first, count - place))


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
