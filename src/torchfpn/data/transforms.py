"""Transforms of training samples: one geometry for pixels, labels, boxes and masks; random views; color jitter.

Every random transform is a pure function of its input and a generator, for any number of bands.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.data.labels.ground_truth import GroundTruth, clip_boxes
from torchfpn.data.sample import ObjectSample, Sample, ignore_nan, spread_nan
from torchfpn.errors import ConfigError
from torchfpn.geo.window import Window
from torchfpn.ops.masks import Crops
from torchfpn.recipe import IGNORE, Scaling
from torchfpn.types import Objects, Size
from torchfpn.vector.instance_masks import with_center_pixel

VISIBLE = 0.1  # fraction of its box that must remain of a clipped object for training to learn it

COVERING = 0.1  # or the fraction of the view that the rest covers: all of it, in the middle of a large object

_DRAWS = 16  # uniform numbers drawn at once; every use has its own place, so switching one off moves no other

Aim = Callable[[Sequence[float]], tuple[int, int] | None]  # random numbers -> (row, column) to place the crop around

Read = Callable[[Window], Sample]
ReadObjects = Callable[[Window], tuple[Tensor, Tensor | None, GroundTruth]]  # of a window: image, valid pixels, objects

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """A window of an image, resampled once to `size`, then rotated and mirrored: alike for pixels, labels and boxes.

    Attributes:
        window: part of the source image in pixels; it may reach beyond the image.
        size: (height, width) of the output in pixels.
        turns: quarter turns counter-clockwise, 0..3.
        mirror: exchange left and right after the turns.
        flip: exchange top and bottom after the turns.
    """

    window: Window
    size: Size
    turns: int = 0
    mirror: bool = False
    flip: bool = False

    @property
    def resized(self) -> Size:
        """(height, width) of the output before the turns."""
        return self.size if self.turns % 2 == 0 else (self.size[1], self.size[0])

    def within(self, size: Size) -> tuple[Window, "Geometry"]:
        """The part of an image of (height, width) `size` that is needed, and this geometry relative to that part."""
        rows = _inside(self.window.row, self.window.height, size[0])[1]
        columns = _inside(self.window.column, self.window.width, size[1])[1]
        part = Window(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
        window = self.window.within(part)
        return part, replace(self, window=window)

    def on_image(self, image: Tensor, valid: Tensor | None = None) -> Tensor:
        """Resamples an image [C, H, W] of any dtype to [C, h, w] float32, bilinear with antialiasing.

        A pixel is NaN if it lies beyond the image or if NaN or a pixel that is not `valid` [H, W] would contribute to
        it. Only the window is read; the output shares no memory with the image.
        """
        part = self._cut(image)
        if valid is not None:
            part = part.to(torch.float32).masked_fill(~self._cut(valid[None]), torch.nan)
        if part.shape[-2:] != self.resized:
            part = _resize(part, self.resized)
        out = self.rotated(part).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return out if self._fits(image) else out.masked_fill_(self.rotated(self._beyond(image)), torch.nan)

    def on_labels(self, labels: Tensor) -> Tensor:
        """Resamples labels [H, W] to [h, w] int64 by the nearest pixel; `IGNORE` beyond the image."""
        height, width = labels.shape
        rows, columns = self.source_indices()
        out = labels.index_select(0, rows.clamp(0, height - 1)).index_select(1, columns.clamp(0, width - 1))
        out = self.rotated(out).to(torch.int64, memory_format=torch.contiguous_format)
        return out if self._fits(labels) else out.masked_fill_(self.rotated(self._beyond(labels)), IGNORE)

    def on_points(self, points: Tensor) -> Tensor:
        """Points [N, 2] (x, y) of the source in the output, in pixels from the upper left corner of the image."""
        height, width = self.resized
        x = (points[:, 0] - self.window.column) * (width / self.window.width)
        y = (points[:, 1] - self.window.row) * (height / self.window.height)
        for _ in range(self.turns):
            x, y, width, height = y, width - x, height, width
        return torch.stack((width - x if self.mirror else x, height - y if self.flip else y), 1)

    def on_boxes(self, boxes: Tensor) -> Tensor:
        """Boxes [N, 4] (x1, y1, x2, y2) of the source in the output; they may reach beyond it."""
        corners = self.on_points(boxes.reshape(-1, 2)).reshape(-1, 2, 2)
        return torch.cat([corners.amin(1), corners.amax(1)], 1)

    def _cut(self, image: Tensor) -> Tensor:
        """Cuts [C, H, W] to the window; repeats the border beyond the image, since NaN there would spread inwards."""
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
        rows, columns = self.source_indices()
        return _outside(rows, image.shape[-2])[:, None] | _outside(columns, image.shape[-1])

    def source_indices(self) -> tuple[Tensor, Tensor]:
        """The source row and the source column under the centre of each row and column of the resized window."""
        (height, width), window = self.resized, self.window
        return _centres(window.row, window.height, height), _centres(window.column, window.width, width)

    def rotated(self, x: Tensor) -> Tensor:
        """[..., H, W] rotated and mirrored."""
        x = torch.rot90(x, self.turns, (-2, -1)) if self.turns else x
        sides = ([-1] if self.mirror else []) + ([-2] if self.flip else [])
        return x.flip(sides) if sides else x


def _centres(start: int, length: int, out: int) -> Tensor:
    """The source pixel under the centre of each of `out` pixels that divide `length` pixels."""
    return torch.div((2 * torch.arange(out) + 1) * length, 2 * out, rounding_mode="floor") + start


def _outside(places: Tensor, length: int) -> Tensor:
    return (places < 0) | (places >= length)


def _inside(start: int, count: int, length: int) -> tuple[int, slice]:
    """Offset of the image in a window of `count` pixels, and the slice of it in the window; at least one pixel."""
    first = min(max(start, 0), length - 1)
    last = max(min(start + count, length), first + 1)
    offset = min(max(first - start, 0), count - 1)
    return offset, slice(first, first + min(last - first, count - offset))


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


def place_window(length: int, window: int, draw: float, target: int | None) -> int:
    """Start of a window on one axis: anywhere inside the image, or with `target` in the middle half of the window.

    A window longer than the image covers it whole, at a random offset.

    Args:
        length: of the image in pixels.
        window: length of the window in pixels.
        draw: uniform random number of [0, 1).
        target: pixel that the window is placed around, or None.
    """
    low, high = min(0, length - window), max(0, length - window)
    if target is None:
        return low + min(int(draw * (high - low + 1)), high - low)
    return min(max(target - int(window * (0.25 + 0.5 * draw)), low), high)


@dataclass(frozen=True)
class Resize:
    """The size at which images of objects are shown: shorter side `shorter`, longer side at most `longest` pixels.

    Attributes:
        shorter: range (low, high) in pixels: training draws from it, everything else takes the high end. None: only
            `longest` counts, so that the image just fits into a square of that side.
        longest: limit of the longer side in pixels; None: no limit.
    """

    shorter: tuple[int, int] | None = None
    longest: int | None = None

    def __post_init__(self) -> None:
        low, high = self.shorter or (1, 1)
        if (self.shorter is None and self.longest is None) or not 1 <= low <= high or (self.longest or 1) < 1:
            found = f"shorter side {self.shorter}, longest {self.longest}"
            raise ConfigError(found, allowed="1 <= low <= high, or the longest side alone")

    def factor(self, size: Size, draw: float = 1.0) -> float:
        """The scale factor for an image of (height, width) `size`. draw: uniform of [0, 1), for the range."""
        smaller, larger = min(size), max(size)
        fit = float("inf") if self.longest is None else self.longest / larger
        if self.shorter is None:
            return fit
        low, high = self.shorter
        return min(min(low + int(draw * (high - low + 1)), high) / smaller, fit)


def scale_size(size: Size, factor: float) -> Size:
    """A (height, width) times a factor, rounded to whole pixels, at least 1."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Random brightness, contrast and noise, for all bands alike or for each band by itself.

    Brightness and noise are in units of the band's `scaling.scale`, and contrast pivots on its offset, so that amounts
    mean the same for 8-bit colours, reflectances and degrees.

    Attributes:
        brightness: largest shift, of all bands together.
        contrast: logarithm of the largest gain, of all bands together.
        band_brightness: largest shift, drawn for each band.
        band_contrast: logarithm of the largest gain, drawn for each band.
        noise: largest standard deviation of Gaussian noise.
        scaling: of the bands; required if one of the five amounts is above 0.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    band_brightness: float = 0.0
    band_contrast: float = 0.0
    noise: float = 0.0
    scaling: Scaling | None = None

    @property
    def changes_values(self) -> bool:
        """Whether one of the amounts is above 0."""
        amounts = (self.brightness, self.contrast, self.band_brightness, self.band_contrast, self.noise)
        return any(amount > 0 for amount in amounts)

    def check_scaling(self) -> None:
        """Checks that there is a scaling if values change.

        Raises:
            ConfigError: there is none.
        """
        if self.changes_values and self.scaling is None:
            raise ConfigError("brightness, contrast or noise without a scaling", hint="pass scaling=")

    def change(self, image: Tensor, draws: Sequence[float], generator: torch.Generator) -> Tensor:
        """Applies a gain and a shift per band, then noise, in place. draws: two uniform random numbers."""
        assert self.scaling is not None  # check_scaling has seen to it
        bands = len(image)
        offset, scale = (torch.tensor(v, dtype=torch.float32) for v in (self.scaling.offset, self.scaling.scale))
        own = torch.rand(2, bands, generator=generator) * 2 - 1
        gain = torch.exp(self.contrast * (2 * draws[0] - 1) + self.band_contrast * own[0])
        bright = self.brightness * (2 * draws[1] - 1) + self.band_brightness * own[1]
        shift = offset * (1 - gain) + bright * scale
        image = image.mul_(gain[:, None, None]).add_(shift[:, None, None])
        if self.noise > 0:
            deviations = self.noise * torch.rand(1, generator=generator) * scale
            grain = torch.empty(image.shape[1:])  # a band at a time: it then stays in the cache of the core
            for band, deviation in zip(image, deviations.tolist(), strict=True):
                band.add_(grain.normal_(generator=generator), alpha=deviation)
        return image


@dataclass(frozen=True, kw_only=True)
class _RandomView(Jitter):
    """The random geometry that samples of pixels and of objects share."""

    scale: tuple[float, float] = (1.0, 1.0)
    mirror: float = 0.5
    flip: float = 0.0
    turns: bool = False

    def _check(self, crop: Size | None) -> None:
        low, high = self.scale
        if (crop is not None and min(crop) < 1) or not 0 < low <= high:
            raise ConfigError(f"crop {crop}, scale {self.scale}", allowed="a crop from 1 x 1, 0 < low <= high")
        self.check_scaling()

    def _scale_and_turns(self, draws: Sequence[float]) -> tuple[float, int]:
        """The scale factor and the number of quarter turns that the uniform numbers `draws` stand for."""
        low, high = self.scale
        factor = math.exp(math.log(low) + draws[0] * (math.log(high) - math.log(low)))
        return factor, int(4 * draws[1]) if self.turns else 0

    def _oriented(self, window: Window, size: Size, turns: int, draws: Sequence[float]) -> Geometry:
        return Geometry(window, size, turns, draws[4] < self.mirror, draws[9] < self.flip)


@dataclass(frozen=True)
class Augment(_RandomView):
    """Random scale, crop, mirror, flip and quarter turns; then brightness, contrast and noise (`Jitter`).

    Pixels without data stay NaN, and the target is `IGNORE` wherever the image is NaN.

    Attributes:
        crop: (height, width) of the output; smaller images are padded with NaN and `IGNORE`.
        scale: range of the scale factor, uniform on a logarithmic scale.
        mirror: probability of exchanging left and right.
        flip: probability of exchanging top and bottom.
        turns: also quarter turns, for views from above.
        class_aware: probability that the crop is placed around a pixel of a class that is drawn first, so that rare
            classes are seen.
        class_weights: how likely each class is drawn among those present; by default all are equally likely.
    """

    crop: Size
    class_aware: float = 0.0
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self._check(self.crop)

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """The augmented sample: [C, *crop] float32 and [*crop] int64. `sample` is not changed."""
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        geometry = self._geometry(sample.size, draws, lambda numbers: self._aim(sample.target, numbers))
        return self._apply(sample, geometry, draws, generator)

    def of_scene(self, size: Size, read: Read, aim: Aim, generator: torch.Generator) -> Sample:
        """A random crop of an image that is not in memory: only the window of the crop is read.

        Args:
            size: (height, width) of the image.
            read: gives a window of the image.
            aim: gives a pixel of a class for three random numbers, or None where nothing is labelled.
            generator: of the random numbers.
        """
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        part, geometry = self._geometry(size, draws, aim).within(size)
        return self._apply(read(part), geometry, draws, generator)

    def choose(self, counts: Tensor, draw: float) -> int | None:
        """A class that is present, drawn by `class_weights`; None if none is. counts: [K] pixels of each class."""
        weights = torch.ones(len(counts), dtype=torch.float64)
        if self.class_weights:
            known = min(len(self.class_weights), len(counts))
            weights.zero_()[:known] = torch.tensor(self.class_weights[:known], dtype=torch.float64)
        sums = ((counts > 0) * weights).cumsum(0)
        if sums[-1] <= 0:
            return None
        return int(torch.searchsorted(sums, draw * sums[-1], right=True).clamp(max=len(counts) - 1))

    def _geometry(self, size: Size, draws: list[float], aim: Aim) -> Geometry:
        factor, turns = self._scale_and_turns(draws)
        crop = self.crop if turns % 2 == 0 else self.crop[::-1]
        height, width = max(1, round(crop[0] / factor)), max(1, round(crop[1] / factor))
        target = aim(draws[6:9]) if draws[5] < self.class_aware else None
        row = place_window(size[0], height, draws[2], target and target[0])
        column = place_window(size[1], width, draws[3], target and target[1])
        return self._oriented(Window(row, column, height, width), self.crop, turns, draws)

    def _aim(self, target: Tensor, draws: Sequence[float]) -> tuple[int, int] | None:
        """(row, column) of a pixel of a class that is present; None where nothing is labelled."""
        chosen = self.choose(torch.bincount(target.reshape(-1), minlength=IGNORE + 1)[:IGNORE], draws[0])
        return None if chosen is None else pick_pixel(target, chosen, draws[1])

    def _apply(self, sample: Sample, geometry: Geometry, draws: list[float], generator: torch.Generator) -> Sample:
        image, target = geometry.on_image(sample.image, sample.valid), geometry.on_labels(sample.target)
        if self.changes_values:
            image = self.change(image, draws[10:12], generator)
        if sample.may_have_nodata:
            missing = image.isnan().any(0)
            image, target = image.masked_fill_(missing, torch.nan), target.masked_fill_(missing, IGNORE)
        return Sample(image, target.contiguous(), sample.name)


def pick_pixel(target: Tensor, chosen: int, draw: float) -> tuple[int, int]:
    """(row, column) of a random pixel of the class `chosen`, which `target` [H, W] must contain."""
    places = (target.reshape(-1) == chosen).nonzero()
    return divmod(int(places[int(draw * len(places))]), target.shape[1])


@dataclass(frozen=True)
class ObjectAugment(_RandomView):
    """Resizing, random scale, crop, mirror, flip and quarter turns; then brightness, contrast and noise (`Jitter`).

    Attributes:
        crop: (height, width) of the largest output; None: the whole image. Smaller images stay smaller and are padded
            when a batch is made.
        scale: range of a scale factor after `resize`, uniform on a logarithmic scale.
        mirror: probability of exchanging left and right.
        flip: probability of exchanging top and bottom.
        turns: also quarter turns, for views from above.
        resize: the size of images before the rest; None: unchanged.
        around: probability that a crop is placed around one of the objects, for images with few of them.
        visible, covering, smallest: how much must remain of a clipped object, see `transform_objects`.
    """

    resize: Resize | None = None
    crop: Size | None = None
    around: float = 0.0
    visible: float = VISIBLE
    covering: float = COVERING
    smallest: float = 1.0

    def __post_init__(self) -> None:
        self._check(self.crop)

    def __call__(
        self, image: Tensor, valid: Tensor | None, truth: GroundTruth, generator: torch.Generator, name: str = ""
    ) -> ObjectSample:
        """The augmented sample of an image [C, H, W] of any dtype, its valid pixels [H, W] and its objects."""
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        size = (image.shape[-2], image.shape[-1])
        return self._apply(image, valid, truth, self.geometry(size, draws, truth.boxes), draws, generator, name)

    def of_scene(
        self, size: Size, read: ReadObjects, generator: torch.Generator, name: str = "", boxes: Floats | None = None
    ) -> ObjectSample:
        """A random crop of an image that is not in memory: only the window of the crop is read.

        Args:
            size: (height, width) of the image.
            read: gives a window of the image and its objects.
            generator: of the random numbers.
            name: of the image; the place of the crop is added to it.
            boxes: [N, 4] of all objects of the image, to place crops around; only `around` needs them.
        """
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        part, geometry = self.geometry(size, draws, boxes).within(size)
        return self._apply(*read(part), geometry, draws, generator, f"{name} ({part.row}, {part.column})")

    def geometry(self, size: Size, draws: list[float], boxes: Floats | None = None) -> Geometry:
        """The geometry that uniform numbers `draws` give for an image of (height, width) `size` with `boxes` [N, 4]."""
        factor, turns = self._scale_and_turns(draws)
        factor = factor if self.resize is None else self.resize.factor(size, draws[6]) * factor
        whole = scale_size(size, factor)
        crop = whole if self.crop is None else self.crop if turns % 2 == 0 else self.crop[::-1]
        out = min(crop[0], whole[0]), min(crop[1], whole[1])
        height, width = (
            length if out[i] == whole[i] else min(length, max(1, round(out[i] / factor)))
            for i, length in enumerate(size)
        )
        row, column = self._aim(boxes, draws)
        top, left = place_window(size[0], height, draws[2], row), place_window(size[1], width, draws[3], column)
        return self._oriented(Window(top, left, height, width), out if turns % 2 == 0 else out[::-1], turns, draws)

    def _aim(self, boxes: Floats | None, draws: list[float]) -> tuple[int, int] | tuple[None, None]:
        """(row, column) of the centre of a random object."""
        if boxes is None or not len(boxes) or draws[5] >= self.around:
            return None, None
        x1, y1, x2, y2 = boxes[int(draws[7] * len(boxes))].tolist()
        return int((y1 + y2) / 2), int((x1 + x2) / 2)

    def _apply(
        self,
        image: Tensor,
        valid: Tensor | None,
        truth: GroundTruth,
        geometry: Geometry,
        draws: list[float],
        generator: torch.Generator,
        name: str,
    ) -> ObjectSample:
        out = geometry.on_image(image, valid)
        if self.changes_values:
            out = self.change(out, draws[10:12], generator)
        nodata = valid is not None or image.is_floating_point()
        out = spread_nan(out) if nodata else out
        semantic = semantic_of(truth, geometry, out if nodata else None)
        limits = {"visible": self.visible, "covering": self.covering, "smallest": self.smallest}
        return ObjectSample(out, transform_objects(truth, geometry, **limits), name, semantic)


def semantic_of(truth: GroundTruth, geometry: Geometry, image: Tensor | None) -> Tensor | None:
    """The classes [h, w] of pixels as `geometry` shows them, `IGNORE` where `image` is NaN; None without classes."""
    if truth.semantic is None:
        return None
    return ignore_nan(geometry.on_labels(torch.from_numpy(truth.semantic)), image)


def visible_objects(truth: GroundTruth, geometry: Geometry) -> Objects:
    """All objects that `geometry` shows, for evaluation and display: one visible pixel is enough."""
    return transform_objects(truth, geometry, visible=0.0, smallest=0.0)


def transform_objects(
    truth: GroundTruth,
    geometry: Geometry,
    *,
    visible: float = VISIBLE,
    covering: float = COVERING,
    smallest: float = 1.0,
) -> Objects:
    """The objects as `geometry` shows them, in the order of `truth`, for training.

    Boxes are clipped to the output. A clipped object gets the box of the visible part of its mask. An object of which
    too little is visible to be learnt becomes a crowd, since its remainder is no background either.

    Args:
        truth: objects of the source image.
        geometry: from the source image to the output.
        visible: fraction of its box that must remain, 0..1,
        covering: or the fraction of the output that the remaining box must cover, 0..1.
        smallest: smallest side of a box in pixels; of a clipped object, at least 1.

    Returns:
        Boxes, labels, masks and crowds in pixels of the output.
    """
    whole = geometry.on_boxes(torch.from_numpy(truth.boxes).double()).numpy()
    inside, clipped, keep = clip_boxes(whole, geometry.size, visible=visible, covering=covering, smallest=smallest)
    remainders, kept = inside[~keep & _has_area(inside)], np.flatnonzero(keep)
    boxes, cut = torch.from_numpy(inside[kept]).float(), torch.from_numpy(clipped[kept])
    labels, masks = torch.from_numpy(truth.labels[kept]), None
    if truth.masks is not None:
        masks = transform_masks(truth.masks(kept), geometry)
        tight, there = tight_boxes(masks)
        boxes = torch.where((cut & there)[:, None], tight, boxes)
        sides = (boxes[:, 2:] - boxes[:, :2]).amin(1)
        stays = ~cut | (there & (sides >= smallest))
        masks = with_center_pixel(_select(masks, stays), boxes[stays].numpy())
        boxes, labels = boxes[stays], labels[stays]
    crowds, _, _ = clip_boxes(geometry.on_boxes(torch.from_numpy(truth.crowds).double()).numpy(), geometry.size)
    crowds = crowds[_has_area(crowds)]
    crowds = np.concatenate([crowds, remainders]) if visible > 0 else crowds
    return Objects(boxes, labels, masks, torch.from_numpy(crowds).float())


def transform_masks(crops: Crops, geometry: Geometry) -> Crops:
    """Masks as `geometry` shows them, by the nearest pixel; memory grows with their visible parts only."""
    rows, columns = (lines.numpy() for lines in geometry.source_indices())
    windows = crops.windows.numpy()
    top, bottom = np.searchsorted(rows, windows[:, 1]), np.searchsorted(rows, windows[:, 3])
    left, right = np.searchsorted(columns, windows[:, 0]), np.searchsorted(columns, windows[:, 2])
    empty = (top >= bottom) | (left >= right)
    starts, flat = crops.starts().tolist(), crops.pixels.numpy()
    made = []
    for i in np.flatnonzero(~empty):
        x1, y1, x2, y2 = windows[i].tolist()
        pixels = flat[starts[i] : starts[i + 1]].reshape(x2 - x1, y2 - y1)  # columns first
        across, down = columns[left[i] : right[i]] - x1, rows[top[i] : bottom[i]] - y1
        made.append(_rotate_mask(pixels[across[:, None], down], geometry).reshape(-1))
    frames = np.stack([left, top, right, bottom], 1)
    frames = _rotate_windows(frames, geometry)
    frames[empty] = 0
    pixels = np.concatenate(made) if made else np.zeros(0, bool)
    return Crops(torch.from_numpy(frames), torch.from_numpy(pixels), geometry.size)


def tight_boxes(crops: Crops) -> tuple[Tensor, Tensor]:
    """The smallest box around the pixels of each mask, [N, 4] float32, and whether it has any pixel, [N] bool."""
    windows, starts, flat = crops.windows.numpy(), crops.starts().tolist(), crops.pixels.numpy()
    boxes, there = np.zeros((len(windows), 4), np.float32), np.zeros(len(windows), bool)
    for i, (x1, y1, x2, y2) in enumerate(windows.tolist()):
        pixels = flat[starts[i] : starts[i + 1]].reshape(x2 - x1, y2 - y1)
        xs = np.flatnonzero(pixels.any(1))
        if len(xs):
            ys = np.flatnonzero(pixels.any(0))
            boxes[i], there[i] = (x1 + xs[0], y1 + ys[0], x1 + xs[-1] + 1, y1 + ys[-1] + 1), True
    return torch.from_numpy(boxes), torch.from_numpy(there)


def _has_area(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    single = boxes.astype(np.float32)  # as `Objects` holds them: an edge of 47.000001 may round onto the other one
    return np.asarray((single[:, 2:] > single[:, :2]).all(1))


def _select(crops: Crops, keep: Tensor) -> Crops:
    """The masks where `keep` [N] is true."""
    if keep.all():
        return crops
    areas = crops.starts().diff()
    return Crops(crops.windows[keep], crops.pixels[keep.repeat_interleave(areas)], crops.size)


def _rotate_mask(pixels: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.bool_]:
    """Pixels [w, h], columns first, rotated and mirrored as images are."""
    rows = np.rot90(pixels.T, geometry.turns)
    rows = rows[:, ::-1] if geometry.mirror else rows
    return (rows[::-1] if geometry.flip else rows).T


def _rotate_windows(windows: NDArray[np.int64], geometry: Geometry) -> NDArray[np.int64]:
    """Windows [N, 4] within the resized window, rotated and mirrored."""
    (height, width), (x1, y1, x2, y2) = geometry.resized, windows.T
    for _ in range(geometry.turns):
        x1, y1, x2, y2 = y1, width - x2, y2, width - x1
        height, width = width, height
    if geometry.mirror:
        x1, x2 = width - x2, width - x1
    if geometry.flip:
        y1, y2 = height - y2, height - y1
    return np.stack([x1, y1, x2, y2], 1).astype(np.int64)
