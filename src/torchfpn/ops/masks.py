"""Masks of objects as crops: pixels of a window and its place. Pasting, selection, areas, and mask-head targets.

A mask head gives probabilities on a small grid (28 x 28) over each box. They become pixels by the rule of the model's
family: "torchvision" (the grid is resized to whole pixels, as in Mask R-CNN) or "detectron2" (the grid is read at the
centre of every pixel). Oracles, equal to the pixel: `paste_masks_in_image` of both. Crops are kept on the CPU: the mask
output of a model is small, and run lengths (`rle.py`) are made there.

Shapes: N objects, M x M mask grid, H x W pixels of the image. Windows are x1, y1, x2, y2 in whole pixels, ends
excluded.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.errors import ConfigError, ShapeError, amount
from torchfpn.types import Size

Rule = Literal["torchvision", "detectron2"]
LAVISH = 4  # a box so many times larger than what the image holds of it is resized only where it is seen
SHOWN = 10  # classes that are named when the objects are printed


@dataclass(frozen=True)
class Crops:
    """The masks of N objects of one image.

    windows: [N, 4] int64, inside of the image; all zero for an object without a pixel in the image.
    pixels: [sum of the areas] bool, window after window, each column by column (the order of COCO's run lengths).
    size: (H, W) of the image.
    """

    windows: Tensor
    pixels: Tensor
    size: Size

    @classmethod
    def of(cls, windows: NDArray[np.int64], pixels: NDArray[np.bool_], size: Size) -> "Crops":
        """The same from NumPy arrays, whose memory the tensors share."""
        return cls(torch.from_numpy(windows), torch.from_numpy(pixels), size)

    def __len__(self) -> int:
        return len(self.windows)

    def starts(self) -> Tensor:
        """[N + 1] int64: where the pixels of each window begin, and the end."""
        sides = self.windows[:, 2:] - self.windows[:, :2]
        return F.pad(sides.prod(1).cumsum(0), (1, 0))


def crop_masks(masks: Tensor, boxes: Tensor, size: Size, threshold: float = 0.5, rule: Rule = "torchvision") -> Crops:
    """The output of a mask head -> the pixels of its objects.

    torchvision: zeros are laid around the grid, the box grows by (M + 2) / M and loses its fractions, the grid is
    resized to it (bilinear, align_corners=False; one pixel at least); a pixel is on above the threshold.
    detectron2: a pixel is on where the grid, read bilinearly at its centre with zeros outside, reaches the threshold.

    Args:
        masks: [N, M, M] or [N, 1, M, M] probabilities over the boxes.
        boxes: [N, 4] float, x1, y1, x2, y2 in pixels of the image; no pixels for one not finite or outside.
        size: (H, W) of the image.
        threshold: 0..1.
        rule: "torchvision" or "detectron2".

    Raises:
        ShapeError: masks and boxes that do not fit together.
        ConfigError: another rule.
    """
    if masks.dim() == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if masks.dim() != 3 or masks.shape[1] != masks.shape[2] or boxes.shape != (len(masks), 4):
        raise ShapeError(f"masks {list(masks.shape)}, boxes {list(boxes.shape)}", allowed="[N, M, M] and [N, 4]")
    if rule not in ("torchvision", "detectron2"):
        raise ConfigError(f'"{rule}"', field="rule", allowed="torchvision | detectron2")
    grids, boxes = masks.detach().float().cpu(), boxes.detach().float().cpu()
    boxes = boxes.where(boxes.isfinite().all(1, keepdim=True), -1)
    if rule == "torchvision":
        grids, frames = _widened(grids, boxes)
        windows = _inside(frames, size)
        made = [
            _resized(grid, frame, window) > threshold
            for grid, frame, window in zip(grids, frames.tolist(), windows.tolist(), strict=True)
        ]
    else:
        windows = _inside(torch.cat([boxes[:, :2].floor() - 1, boxes[:, 2:].ceil() + 1], 1).long(), size)
        windows[(boxes[:, 2:] <= boxes[:, :2]).any(1)] = 0
        rows, columns = (_places(windows[:, i], windows[:, i + 2], boxes[:, i], boxes[:, i + 2]) for i in (1, 0))
        made = [_sampled(*one) >= threshold for one in zip(grids, rows, columns, strict=True)]
    return _together(made, windows, size)


def crop_images(masks: Tensor) -> Crops:
    """Whole masks [N, H, W] bool -> crops, each the smallest window that holds its pixels."""
    if masks.dim() != 3 or masks.dtype != torch.bool:
        raise ShapeError(f"masks {list(masks.shape)} {masks.dtype}", allowed="[N, H, W] bool")
    masks = masks.cpu()
    windows = torch.zeros(len(masks), 4, dtype=torch.int64)
    for mask, window in zip(masks, windows, strict=True):
        ys, xs = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        if len(ys):
            window[:] = torch.stack([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1])
    made = [m[y1:y2, x1:x2] for m, (x1, y1, x2, y2) in zip(masks, windows.tolist(), strict=True)]
    return _together(made, windows, (masks.shape[1], masks.shape[2]))


def window_pixels(crops: Crops) -> list[Tensor]:
    """The pixels of each object: N views [h, w] bool."""
    sides = (crops.windows[:, 2:] - crops.windows[:, :2]).tolist()
    flat = torch.split(crops.pixels, [w * h for w, h in sides])
    return [pixels.view(w, h).t() for pixels, (w, h) in zip(flat, sides, strict=True)]


def select(crops: Crops, keep: Tensor) -> Crops:
    """The objects `keep` (indices [K] or [N] bool), in that order."""
    pixels, windows = window_pixels(crops), crops.windows[keep.cpu()]
    chosen = torch.arange(len(crops))[keep.cpu()].tolist()
    return _together([pixels[i] for i in chosen], windows, crops.size)


def areas(crops: Crops) -> Tensor:
    """[N] int64: how many pixels of each object are on."""
    total = F.pad(crops.pixels.cumsum(0), (1, 0))[crops.starts()]
    return total.diff()


def paste(crops: Crops) -> Tensor:
    """-> [N, H, W] bool, whole images: N * H * W bytes, and nothing beside them."""
    out = torch.zeros(len(crops), *crops.size, dtype=torch.bool)
    for image, pixels, (x1, y1, x2, y2) in zip(out, window_pixels(crops), crops.windows.tolist(), strict=True):
        image[y1:y2, x1:x2] = pixels
    return out


def _together(made: Sequence[Tensor], windows: Tensor, size: Size) -> Crops:
    """Masks [h, w] bool, one after another, each column by column (numpy turns bytes twice as fast as torch does)."""
    pixels = np.empty(sum(mask.numel() for mask in made), bool)
    first = 0
    for mask in made:
        height, width = mask.shape
        pixels[first : first + height * width].reshape(width, height)[:] = mask.numpy().T
        first += height * width
    return Crops(windows, torch.from_numpy(pixels), size)


def _inside(frames: Tensor, size: Size) -> Tensor:
    """[N, 4] windows in whole pixels -> what the image holds of them; zeros where that is nothing."""
    low = frames[:, :2].clamp(min=0)
    high = torch.minimum(frames[:, 2:], torch.tensor([size[1], size[0]]))
    return torch.cat([low, high], 1) * (high > low).all(1, keepdim=True)


# -- torchvision's rule ------------------------------------------------------------------------------------------------
def _widened(grids: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Grids [N, M + 2, M + 2] with zeros around them, and the windows they fill, which may leave the image."""
    factor = (grids.shape[-1] + 2) / grids.shape[-1]
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * factor
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    corners = torch.cat([centre - half, centre + half], 1).clamp(-(2**40), 2**40).long()  # towards zero
    corners[:, 2:] += 1
    return F.pad(grids, (1, 1, 1, 1)), corners


def _resized(grid: Tensor, frame: Sequence[int], window: Sequence[int]) -> Tensor:
    """A grid that fills `frame` -> its values at the pixels of `window` [h, w]."""
    (x0, y0, x3, y3), (x1, y1, x2, y2) = frame, window
    if x1 == x2:
        return grid.new_zeros(0, 0)
    if (x3 - x0) * (y3 - y0) <= LAVISH * (x2 - x1) * (y2 - y1):
        whole = F.interpolate(grid[None, None], (y3 - y0, x3 - x0), mode="bilinear", align_corners=False)[0, 0]
        return whole[y1 - y0 : y2 - y0, x1 - x0 : x2 - x0]
    rows = _weights(grid.shape[0], y3 - y0, y1 - y0, y2 - y0)
    columns = _weights(grid.shape[1], x3 - x0, x1 - x0, x2 - x0)
    return rows @ grid @ columns.t()


def _weights(cells: int, length: int, first: int, last: int) -> Tensor:
    """[last - first, cells]: the rows `first` to `last` of the bilinear resizing of `cells` values to `length`."""
    at = ((torch.arange(first, last) + 0.5) * (cells / length) - 0.5).clamp(0, cells - 1)
    return (1 - (at[:, None] - torch.arange(cells)).abs()).clamp(min=0)


# -- detectron2's rule -------------------------------------------------------------------------------------------------
def _places(low: Tensor, high: Tensor, start: Tensor, stop: Tensor) -> Sequence[Tensor]:
    """Of each object [N] the centres of the pixels from low to high, where start .. stop of its box is -1 .. 1."""
    counts = high - low
    own = torch.repeat_interleave(counts)
    pixel = torch.arange(len(own)) - (counts.cumsum(0) - counts - low)[own]
    places = (pixel.float() + 0.5 - start[own]) / (stop - start)[own] * 2 - 1
    return torch.split(places, counts.tolist())


def _sampled(grid: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """A grid over -1 .. 1 both ways -> its values at the rows ys [h] and columns xs [w]."""
    if not len(xs):
        return grid.new_zeros(0, 0)
    places = torch.empty(1, len(ys), len(xs), 2)
    places[..., 0], places[..., 1] = xs, ys[:, None]
    return F.grid_sample(grid[None, None], places, align_corners=False)[0, 0]


def mask_targets(masks: Crops, which: Tensor, boxes: Tensor, grid: int, *, aligned: bool = False) -> Tensor:
    """[N, grid, grid] float32, 0..1: for each box [N, 4] the mask of the object `which` [N] of the image.

    Equals `torchvision.ops.roi_align` of the pasted masks, adaptive sampling, which is what torchvision's Mask R-CNN
    learns; aligned: pixel centres at halves, as detectron2 has them. Sums are float32 under autocast as well. Only the
    window of a mask is read: bilinear sums are separable, so each target is two small matrix products.
    """
    with torch.autocast("cpu", enabled=False):
        return _mask_targets(masks, which, boxes.float(), grid, aligned=aligned)


def _mask_targets(masks: Crops, which: Tensor, boxes: Tensor, grid: int, *, aligned: bool) -> Tensor:
    pixels, windows = window_pixels(masks), masks.windows.tolist()
    height, width = masks.size
    out = torch.zeros(len(boxes), grid, grid)
    shift = 0.5 if aligned else 0.0
    for i, (number, (x1, y1, x2, y2)) in enumerate(zip(which.tolist(), (boxes - shift).tolist(), strict=True)):
        left, top, right, bottom = windows[number]
        rows = _target_weights(y1, y2, grid, height, top, bottom, aligned=aligned)
        columns = _target_weights(x1, x2, grid, width, left, right, aligned=aligned)
        out[i] = rows @ pixels[number].float() @ columns.T
    return out.to(boxes.device)


def _target_weights(start: float, stop: float, bins: int, extent: int, low: int, high: int, *, aligned: bool) -> Tensor:
    """[bins, high - low]: how much each pixel of a window from `low` to `high` counts in each bin of a line.

    extent: pixels of the whole line. A sample beyond -1 .. extent counts as zero, one beyond the first or last pixel's
    centre takes that pixel.
    """
    length = stop - start if aligned else max(stop - start, 1.0)
    samples = max(math.ceil(length / bins), 1)
    places = torch.arange(bins, dtype=torch.float32)[:, None] + (torch.arange(samples) + 0.5) / samples
    at = start + places * (length / bins)
    seen = ((at >= -1) & (at <= extent)).float() / samples
    at = at.clamp(0, extent - 1)
    near = at.long()
    share = at - near
    table = torch.zeros(bins, high - low + 2)  # a column at each end for what lies outside of the window
    for cells, weight in ((near, 1 - share), ((near + 1).clamp(max=extent - 1), share)):
        table.scatter_add_(1, (cells - low + 1).clamp(0, high - low + 1), weight * seen)
    return table[:, 1:-1]


def numbered(crops: Crops) -> Tensor:
    """[H, W] int32: k where the k-th object is, counted from 1, the first of all that are there; 0 where none is."""
    image = torch.zeros(crops.size, dtype=torch.int32)
    pixels, windows = window_pixels(crops), crops.windows.tolist()
    for k in range(len(crops), 0, -1):
        x1, y1, x2, y2 = windows[k - 1]
        image[y1:y2, x1:x2][pixels[k - 1]] = k
    return image


@dataclass(frozen=True)
class Instances:
    """Objects of one image, best first.

    boxes: [N, 4] (x1, y1, x2, y2) in pixels of the image. scores: [N], 0..1. labels: [N] 0-based classes. size: of the
    image, (height, width). crops: the masks, None of models that give boxes alone; always on the CPU.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    size: Size
    crops: Crops | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        """Number, classes and scores: "Instances(3 objects: class 0 x 2, class 4 x 1; scores 0.31 to 0.98; ...)"."""
        words = [amount(len(self), "object")]
        if len(self):
            each = [f"class {label} x {count}" for label, count in sorted(Counter(self.labels.tolist()).items())]
            words[0] += ": " + ", ".join(each[:SHOWN]) + (", ..." if len(each) > SHOWN else "")
            words.append(f"scores {float(self.scores.min()):.2f} to {float(self.scores.max()):.2f}")
        words += ["boxes" if self.crops is None else "boxes and masks", f"image {self.size[0]} x {self.size[1]}"]
        return f"Instances({'; '.join(words)})"

    @property
    def masks(self) -> Tensor | None:
        """[N, H, W] bool, made anew each time: N whole images. None of models without masks."""
        return None if self.crops is None else paste(self.crops)

    def above(self, threshold: float) -> "Instances":
        """Those with a score of at least `threshold`."""
        keep = self.scores >= threshold
        crops = None if self.crops is None else select(self.crops, keep)
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep], crops=crops)

    def to(self, device: torch.device | str) -> "Instances":
        """The same objects on `device`; the masks stay where they are."""
        return replace(self, boxes=self.boxes.to(device), scores=self.scores.to(device), labels=self.labels.to(device))


def no_instances(size: Size, *, masks: bool) -> Instances:
    """Nothing in an image of `size`. masks: of a model that gives masks."""
    none = torch.zeros(0, dtype=torch.int64)
    crops = Crops(none.reshape(0, 4), none.bool(), size) if masks else None
    return Instances(torch.zeros(0, 4), torch.zeros(0), none, size, crops)
