"""Transforms: one geometry moves image, labels, boxes and masks; color jitter; crops.

Where each pixel of an augmented image comes from, as one value: applied alike to images, labels and points.

Random changes of the values of an image: brightness, contrast, noise, for all bands alike or each by itself.

Random changes of a training sample: a pure function of the sample and a generator, for any number of bands.

How large images of objects are shown to the network: by their shorter and their longer side.

Objects moved with their image: boxes, masks and crowds through one geometry, what leaves the image cut off.

Random changes of an image and its objects: a pure function of both and a generator, for any number of bands.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.data.labels.ground_truth import GroundTruth, cut_to
from torchfpn.data.sample import ObjectSample, Sample, without_gaps
from torchfpn.errors import ConfigError
from torchfpn.geo.window import Window
from torchfpn.geo.window import Window as CropWindow
from torchfpn.ops.masks import Crops
from torchfpn.recipe import IGNORE, Scaling
from torchfpn.types import Objects, Size
from torchfpn.vector.instance_masks import with_center_pixel


@dataclass(frozen=True)
class Geometry:
    """A window of the source, resampled once to `size`, then turned and mirrored.

    size: (height, width) of what comes out. turns: quarter turns counter-clockwise, 0..3. mirror: left to right after
    the turn. flip: upside down after the turn.
    """

    window: CropWindow
    size: Size
    turns: int = 0
    mirror: bool = False
    flip: bool = False

    @property
    def resized(self) -> Size:
        """The size before the turn."""
        return self.size if self.turns % 2 == 0 else (self.size[1], self.size[0])

    def within(self, size: Size) -> tuple[CropWindow, "Geometry"]:
        """The part of an image of this size that is needed, and the same geometry as seen from that part."""
        rows = _inside(self.window.row, self.window.height, size[0])[1]
        columns = _inside(self.window.column, self.window.width, size[1])[1]
        part = CropWindow(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
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


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """How much values may change.

    Amounts of brightness and noise are in units of the band's `scaling.scale`, and contrast turns about its offset, so
    that they mean the same for 8-bit colours, reflectances and degrees.

    brightness: the image is shifted by up to this much. contrast: stretched by up to e to the power of this.
    band_brightness, band_contrast: the same drawn for each band by itself. noise: its largest standard deviation.
    scaling: of the bands; needed as soon as one of the five is used.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    band_brightness: float = 0.0
    band_contrast: float = 0.0
    noise: float = 0.0
    scaling: Scaling | None = None

    @property
    def changes_values(self) -> bool:
        """Whether anything happens at all."""
        amounts = (self.brightness, self.contrast, self.band_brightness, self.band_contrast, self.noise)
        return any(amount > 0 for amount in amounts)

    def check_scaling(self) -> None:
        """Passes if the units of the amounts are known.

        Raises:
            ConfigError: they are not.
        """
        if self.changes_values and self.scaling is None:
            raise ConfigError("brightness, contrast or noise without a scaling", hint="pass scaling=")

    def change(self, image: Tensor, draws: Sequence[float], generator: torch.Generator) -> Tensor:
        """The image times gain plus shift plus noise, gain and shift per band; changed in place. draws: two."""
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


Aim = Callable[[Sequence[float]], tuple[int, int] | None]  # random numbers -> (row, column) to lay the crop around

Read = Callable[[Window], Sample]

_DRAWS = 16  # uniform numbers drawn at once; every use has its own place, so switching one off moves no other


@dataclass(frozen=True)
class Augment(Jitter):
    """Scale jitter, crop, mirror, flip, quarter turns; then brightness, contrast and noise, per band or for all.

    Invalid pixels stay NaN, and the target is `IGNORE` wherever the image is NaN.

    crop: (height, width) of what comes out; images smaller than that are padded with NaN and `IGNORE`.
    scale: the enlargement is drawn from this range, evenly on a logarithmic scale.
    mirror, flip: probability of left-right and of upside-down. turns: also quarter turns, for views from above.
    brightness, contrast, band_brightness, band_contrast, noise, scaling: see `Jitter`.
    class_aware: probability that the crop is put around a pixel of a class that is chosen first, so that rare classes
    are seen; class_weights: how eagerly each class is chosen among those present, by default all alike.
    """

    crop: Size
    scale: tuple[float, float] = (1.0, 1.0)
    mirror: float = 0.5
    flip: float = 0.0
    turns: bool = False
    class_aware: float = 0.0
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        low, high = self.scale
        if min(self.crop) < 1 or not 0 < low <= high:
            raise ConfigError(f"crop {self.crop}, scale {self.scale}", allowed="a crop from 1 x 1, 0 < low <= high")
        self.check_scaling()

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """The changed sample: [C, *crop] float32 and [*crop] int64. `sample` is left as it was."""
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        geometry = self._geometry(sample.size, draws, lambda numbers: self._aim(sample.target, numbers))
        return self._changed(sample, geometry, draws, generator)

    def of_scene(self, size: Size, read: Read, aim: Aim, generator: torch.Generator) -> Sample:
        """The same of an image that is not held: only what the crop is made of is read.

        size: (height, width) of the image. read: of a window within it, gives that part. aim: of three random numbers,
        gives a pixel of a class that is drawn first, or None where nothing is labelled.
        """
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        geometry = self._geometry(size, draws, aim)
        part, moved = geometry.within(size)
        return self._changed(read(part), moved, draws, generator)

    def _changed(self, sample: Sample, geometry: Geometry, draws: list[float], generator: torch.Generator) -> Sample:
        image, target = geometry.on_image(sample.image, sample.valid), geometry.on_labels(sample.target)
        if self.changes_values:
            image = self.change(image, draws[10:12], generator)
        if sample.may_miss:
            missing = image.isnan().any(0)
            image, target = image.masked_fill_(missing, torch.nan), target.masked_fill_(missing, IGNORE)
        return Sample(image, target.contiguous(), sample.name)

    def _geometry(self, size: Size, draws: list[float], aim: Aim) -> Geometry:
        low, high = self.scale
        factor = math.exp(math.log(low) + draws[0] * (math.log(high) - math.log(low)))
        turns = int(4 * draws[1]) if self.turns else 0
        height, width = self.crop if turns % 2 == 0 else self.crop[::-1]
        window_height, window_width = max(1, round(height / factor)), max(1, round(width / factor))
        target = aim(draws[6:9]) if draws[5] < self.class_aware else None
        window = Window(
            lay(size[0], window_height, draws[2], target and target[0]),
            lay(size[1], window_width, draws[3], target and target[1]),
            window_height,
            window_width,
        )
        return Geometry(window, self.crop, turns, draws[4] < self.mirror, draws[9] < self.flip)

    def _aim(self, target: Tensor, draws: Sequence[float]) -> tuple[int, int] | None:
        """(row, column) of a pixel of a class that is present; None where nothing is labelled."""
        chosen = self.choose(torch.bincount(target.reshape(-1), minlength=IGNORE + 1)[:IGNORE], draws[0])
        return None if chosen is None else pixel_of(target, chosen, draws[1])

    def choose(self, counts: Tensor, draw: float) -> int | None:
        """One of the classes that are present, by `class_weights`; None without any. counts: [K], pixels of each."""
        weights = torch.ones(len(counts), dtype=torch.float64)
        if self.class_weights:
            known = min(len(self.class_weights), len(counts))
            weights.zero_()[:known] = torch.tensor(self.class_weights[:known], dtype=torch.float64)
        sums = ((counts > 0) * weights).cumsum(0)
        if sums[-1] <= 0:
            return None
        return int(torch.searchsorted(sums, draw * sums[-1], right=True).clamp(max=len(counts) - 1))


def pixel_of(target: Tensor, chosen: int, draw: float) -> tuple[int, int]:
    """(row, column) of one of the pixels of a class that is there, each as likely. target: [H, W]."""
    places = (target.reshape(-1) == chosen).nonzero()
    return divmod(int(places[int(draw * len(places))]), target.shape[1])


@dataclass(frozen=True)
class Resize:
    """Images enlarged or shrunk so that the shorter side has `shorter` pixels, or the longer one `longest` if less.

    shorter: a range (low, high), of which training draws one and everything else takes the high end; None: only
    `longest` counts, so that the image just fits into a square of that side. longest: None: no limit.
    """

    shorter: tuple[int, int] | None = None
    longest: int | None = None

    def __post_init__(self) -> None:
        low, high = self.shorter or (1, 1)
        if (self.shorter is None and self.longest is None) or not 1 <= low <= high or (self.longest or 1) < 1:
            found = f"shorter side {self.shorter}, longest {self.longest}"
            raise ConfigError(found, allowed="1 <= low <= high, or the longest side alone")

    def factor(self, size: Size, draw: float = 1.0) -> float:
        """By how much an image of (height, width) `size` is enlarged. draw: of [0, 1), evenly over the range."""
        least, most = min(size), max(size)
        fit = float("inf") if self.longest is None else self.longest / most
        if self.shorter is None:
            return fit
        low, high = self.shorter
        return min(min(low + int(draw * (high - low + 1)), high) / least, fit)


def times(size: Size, factor: float) -> Size:
    """A size enlarged, in whole pixels, 1 at least."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


VISIBLE = 0.1  # share of its box that must be left of an object that is cut, for training to learn it

COVERING = 0.1  # or the share of the view that the rest of it covers: all of it, in the middle of a large object


def visible_objects(truth: GroundTruth, geometry: Geometry) -> Objects:
    """All objects that `geometry` shows, for evaluation and for people; of one that is cut, a pixel is enough."""
    return moved(truth, geometry, visible=0.0, smallest=0.0)


def moved(
    truth: GroundTruth,
    geometry: Geometry,
    *,
    visible: float = VISIBLE,
    covering: float = COVERING,
    smallest: float = 1.0,
) -> Objects:
    """The objects as `geometry` shows them, in its order, for training.

    Boxes are cut at the edges of the image. Of an object that is cut, the box is that of what is left of its mask. An
    object of which too little is left to be learnt becomes a crowd: its rest is no background either.

    Args:
        truth: of the whole image.
        geometry: what is done to that.
        visible: share of its box that must be left, 0..1,
        covering: or the share of the view that what is left of the box must cover, 0..1.
        smallest: pixels that both sides of a box must have; of an object that is cut, at least 1.
    """
    whole = geometry.on_boxes(torch.from_numpy(truth.boxes).double()).numpy()
    inside, reduced, keep = cut_to(whole, geometry.size, visible=visible, covering=covering, smallest=smallest)
    rest, kept = inside[~keep & _has_area(inside)], np.flatnonzero(keep)
    boxes, cut = torch.from_numpy(inside[kept]).float(), torch.from_numpy(reduced[kept])
    labels, masks = torch.from_numpy(truth.labels[kept]), None
    if truth.masks is not None:
        masks = move_masks(truth.masks(kept), geometry)
        tight, there = tight_boxes(masks)
        boxes = torch.where((cut & there)[:, None], tight, boxes)
        sides = (boxes[:, 2:] - boxes[:, :2]).amin(1)
        stays = ~cut | (there & (sides >= smallest))
        masks = with_center_pixel(_only(masks, stays), boxes[stays].numpy())
        boxes, labels = boxes[stays], labels[stays]
    crowds, _, _ = cut_to(geometry.on_boxes(torch.from_numpy(truth.crowds).double()).numpy(), geometry.size)
    crowds = crowds[_has_area(crowds)]
    crowds = np.concatenate([crowds, rest]) if visible > 0 else crowds
    return Objects(boxes, labels, masks, torch.from_numpy(crowds).float())


def move_masks(crops: Crops, geometry: Geometry) -> Crops:
    """The masks as `geometry` shows them, of each pixel the nearest one; memory follows what can be seen of them."""
    rows, columns = (lines.numpy() for lines in geometry.sources())
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
        made.append(_turned(pixels[across[:, None], down], geometry).reshape(-1))
    frames = np.stack([left, top, right, bottom], 1)
    frames = _turned_windows(frames, geometry)
    frames[empty] = 0
    pixels = np.concatenate(made) if made else np.zeros(0, bool)
    return Crops(torch.from_numpy(frames), torch.from_numpy(pixels), geometry.size)


def tight_boxes(crops: Crops) -> tuple[Tensor, Tensor]:
    """[N, 4] float32: the smallest boxes around the pixels of each mask; [N] bool: whether it has any."""
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
    return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(1))


def _only(crops: Crops, keep: Tensor) -> Crops:
    """The masks that `keep` [N] tells."""
    if keep.all():
        return crops
    areas = crops.starts().diff()
    return Crops(crops.windows[keep], crops.pixels[keep.repeat_interleave(areas)], crops.size)


def _turned(pixels: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.bool_]:
    """Pixels [w, h], columns first, turned and mirrored as images are."""
    rows = np.rot90(pixels.T, geometry.turns)
    rows = rows[:, ::-1] if geometry.mirror else rows
    return (rows[::-1] if geometry.flip else rows).T


def _turned_windows(windows: NDArray[np.int64], geometry: Geometry) -> NDArray[np.int64]:
    """[N, 4] of the resized window, turned and mirrored."""
    (height, width), (x1, y1, x2, y2) = geometry.resized, windows.T
    for _ in range(geometry.turns):
        x1, y1, x2, y2 = y1, width - x2, y2, width - x1
        height, width = width, height
    if geometry.mirror:
        x1, x2 = width - x2, width - x1
    if geometry.flip:
        y1, y2 = height - y2, height - y1
    return np.stack([x1, y1, x2, y2], 1).astype(np.int64)


ReadObjects = Callable[
    [Window], tuple[Tensor, Tensor | None, GroundTruth]
]  # of a window: image, where it is valid, objects

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ObjectAugment(Jitter):
    """Resizing, scale jitter, crop, mirror, flip, quarter turns; then brightness, contrast and noise (`Jitter`).

    resize: the size of images before the rest; None: as they are. scale: more enlargement, drawn from this range evenly
    on a logarithmic scale. crop: (height, width) of the largest part that comes out; None: all of the image. What is
    smaller stays so, and is padded when a batch is made. mirror, flip: probability of left-right and of upside-down.
    turns: also quarter turns, for views from above. around: probability that a crop is put around one of the objects,
    for images with few of them. visible, covering, smallest: what must be left of an object that is cut: share of its
    box, or else of the view that it covers, and the pixels of each side (see `moved`).
    """

    resize: Resize | None = None
    crop: Size | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    mirror: float = 0.5
    flip: float = 0.0
    turns: bool = False
    around: float = 0.0
    visible: float = VISIBLE
    covering: float = COVERING
    smallest: float = 1.0

    def __post_init__(self) -> None:
        low, high = self.scale
        if (self.crop is not None and min(self.crop) < 1) or not 0 < low <= high:
            raise ConfigError(f"crop {self.crop}, scale {self.scale}", allowed="a crop from 1 x 1, 0 < low <= high")
        self.check_scaling()

    def __call__(
        self, image: Tensor, valid: Tensor | None, truth: GroundTruth, generator: torch.Generator, name: str = ""
    ) -> ObjectSample:
        """What becomes of an image [C, H, W] of any type, `valid` [H, W] where it has data, and of its objects."""
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        size = (image.shape[-2], image.shape[-1])
        return self._changed(image, valid, truth, self.geometry(size, draws, truth.boxes), draws, generator, name)

    def of_scene(
        self, size: Size, read: ReadObjects, generator: torch.Generator, name: str = "", boxes: Floats | None = None
    ) -> ObjectSample:
        """The same of an image that is not held: only what the crop is made of is read.

        size: (height, width) of the image. read: of a window within it, gives that part and its objects. boxes: [N, 4]
        of all objects of the image, which crops may be put around; needed with `around` alone.
        """
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        part, geometry = self.geometry(size, draws, boxes).within(size)
        where = f"{name} ({part.row}, {part.column})"
        return self._changed(*read(part), geometry, draws, generator, where)

    def geometry(self, size: Size, draws: list[float], boxes: Floats | None = None) -> Geometry:
        """What the uniform numbers `draws` make of an image of (height, width) `size`. boxes: [N, 4] of its objects."""
        low, high = self.scale
        factor = 1.0 if self.resize is None else self.resize.factor(size, draws[6])
        factor *= math.exp(math.log(low) + draws[0] * (math.log(high) - math.log(low)))
        turns = int(4 * draws[1]) if self.turns else 0
        whole = times(size, factor)
        crop = whole if self.crop is None else self.crop if turns % 2 == 0 else self.crop[::-1]
        out = min(crop[0], whole[0]), min(crop[1], whole[1])
        height, width = (
            length if out[i] == whole[i] else min(length, max(1, round(out[i] / factor)))
            for i, length in enumerate(size)
        )
        row, column = self._aim(boxes, draws)
        window = Window(lay(size[0], height, draws[2], row), lay(size[1], width, draws[3], column), height, width)
        shown = out if turns % 2 == 0 else out[::-1]
        return Geometry(window, shown, turns, draws[4] < self.mirror, draws[9] < self.flip)

    def _aim(self, boxes: Floats | None, draws: list[float]) -> tuple[int, int] | tuple[None, None]:
        """(row, column) of the middle of an object, each as likely."""
        if boxes is None or not len(boxes) or draws[5] >= self.around:
            return None, None
        x1, y1, x2, y2 = boxes[int(draws[7] * len(boxes))].tolist()
        return int((y1 + y2) / 2), int((x1 + x2) / 2)

    def _changed(
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
        if valid is not None or image.is_floating_point():
            out = without_gaps(out)
        objects = moved(truth, geometry, visible=self.visible, covering=self.covering, smallest=self.smallest)
        return ObjectSample(out, objects, name)
