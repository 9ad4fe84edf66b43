"""Splits as torch datasets of pixels or objects: whole images or crops of scenes, raw values, NaN without data."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from torchfpn.data.config import DatasetConfig, split_annotations
from torchfpn.data.headers import Header
from torchfpn.data.labels.ground_truth import GroundTruth
from torchfpn.data.labels.load import read_boxes, read_ground_truth
from torchfpn.data.parallel import Watch, map_threads, unwatched
from torchfpn.data.reading import (
    AUTO_BYTES,
    SIDE,
    Frame,
    FrameCache,
    check_order,
    frame_bytes,
    grey_hint,
    ignore_outside,
    max_cache_bytes,
    nth_window,
    pad_window,
    read_pair,
    read_picture,
    require_semantic,
    scene_of,
    window_count,
)
from torchfpn.data.sample import ObjectSample, Sample, spread_nan
from torchfpn.data.sampler import Draw, key
from torchfpn.data.splits import Pair
from torchfpn.data.transforms import (
    Augment,
    Geometry,
    ObjectAugment,
    Resize,
    pick_pixel,
    scale_size,
    semantic_of,
    visible_objects,
)
from torchfpn.errors import ConfigError, DataError, amount
from torchfpn.geo.window import Window, tile, tiles
from torchfpn.types import Size

MAX_CROPS = 2**20  # samples of a scene at most; the order of an epoch is a list of them

SCENE_CROP = 512  # pixels; side of crops of a scene if none is given

_MIN_BLOCK = 256  # pixels; smallest side of a block of a `ClassIndex`

_MAX_BLOCKS = 2**16  # of a `ClassIndex`, so that its memory does not grow with the scene

_NO_TARGET = np.zeros((0, 0), np.uint8)


class SplitDataset(ABC):
    """The images of a split as samples: what `SemanticDataset` and `ObjectDataset` share.

    An image is one sample. A scene (an image too large to be held) is several: windows, or random crops.

    Args:
        dataset: from `read_dataset`.
        split: its name.
        crop: (height, width); a scene is as many samples as crops of this size fit into it. None: its windows.
        cache: keep decoded files in memory shared with the workers: True, False, or "auto" (if the split, estimated
            from its first image, takes no more than 1 GiB).

    Attributes:
        pairs: the files.
        bands: names of the bands of every image.
        dtype: of the pixels.
        scenes: headers of the scenes, by their index in `pairs`.

    Raises:
        ConfigError: no such split.
        DataError: files without a partner, or a first image that cannot be used.
    """

    def __init__(self, dataset: DatasetConfig, split: str, *, crop: Size | None, cache: bool | str) -> None:
        self.dataset, self.split = dataset, split
        self.pairs = dataset.pairs(split)
        found = ((i, scene_of(dataset, pair)) for i, pair in enumerate(self.pairs))
        self.scenes: dict[int, Header] = {i: header for i, header in found if header is not None}
        first = self.read_frame(self.pairs[0], _corner(self.scenes.get(0)))
        self.bands, self.dtype = first.band_names, str(first.image.dtype)
        self._ends = list(accumulate(self._samples_of(i, crop) for i in range(len(self.pairs))))
        plain = next((i for i in range(len(self.pairs)) if i not in self.scenes), None)
        self._cache = None
        if plain is not None and cache is not False:
            like = first if plain == 0 else self.read_frame(self.pairs[plain])
            self._cache = _make_cache(like, len(self.pairs), cache)

    def __len__(self) -> int:
        return self._ends[-1]

    @abstractmethod
    def read_frame(self, pair: Pair, window: Window | None = None) -> Frame:
        """Reads what the samples need of a pair of files, or of a window of it."""

    def locate(self, index: int) -> tuple[int, int]:
        """The index of the image of a sample, and which of its samples it is."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # ends a `for` over the samples
        index %= len(self)
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def whole(self, number: int) -> Frame:
        """An image that is no scene, from the cache or its file; not to be changed in place."""
        frame = self._cache.get(number) if self._cache else None
        if frame is None:
            frame = self.part(number)
            if self._cache:
                self._cache.put(number, frame)
        return frame

    def part(self, number: int, window: Window | None = None) -> Frame:
        """Reads an image, or a window of a scene, from its file.

        Raises:
            DataError: the file cannot be used, or has other bands or another pixel type than the first one.
        """
        frame = self.read_frame(self.pairs[number], window)
        self._check_like_first(number, frame)
        return frame

    @property
    def usual_size(self) -> Size:
        """(height, width) of the first image, or of the usual crops of a scene."""
        if 0 in self.scenes:
            return SCENE_CROP, SCENE_CROP
        height, width = self.whole(0).image.shape[1:]
        return height, width

    def _samples_of(self, number: int, crop: Size | None) -> int:
        """The number of samples of an image."""
        if number not in self.scenes:
            return 1
        size = self.scenes[number].size
        if crop is None:
            return window_count(size)
        return min(max(1, size[0] // crop[0]) * max(1, size[1] // crop[1]), MAX_CROPS)

    def _check_like_first(self, index: int, frame: Frame) -> None:
        file, first = self.pairs[index].image, self.pairs[0].image.name
        if len(frame.band_names) != len(self.bands):
            raise DataError(
                f"has {amount(len(frame.band_names), 'band')} ({', '.join(frame.band_names)})",
                file=file,
                allowed=f"{len(self.bands)} as in {first}: {', '.join(self.bands)}",
                hint=grey_hint(len(frame.band_names), len(self.bands)),
            )
        check_order(file, frame.band_names, self.bands, self.pairs[0].image)
        if str(frame.image.dtype) != self.dtype and self.dataset.scaling is None:
            raise DataError(
                f"pixels of type {frame.image.dtype}, those of {first} are {self.dtype}",
                file=file,
                allowed="one pixel type",
                hint="convert it, or give `scaling: {offset: [...], scale: [...]}` if the values mean the same",
            )


def _corner(scene: Header | None) -> Window | None:
    """The upper left pixels of a scene, enough to know its bands; None for other images."""
    return None if scene is None else Window(0, 0, 64, 64).clipped(*scene.size)


def _make_cache(first: Frame, n: int, wanted: bool | str) -> FrameCache | None:
    size = 2 * n * frame_bytes(first)  # twice, since images may differ in size
    if wanted is False or (wanted == "auto" and size > 2 * AUTO_BYTES):
        return None
    capacity = min(size, AUTO_BYTES if wanted == "auto" else max_cache_bytes())
    try:
        return FrameCache(n, first.image.dtype, first.band_names, capacity)
    except OSError:  # no shared memory or no locks to be had: then every file is read each time
        return None


class SemanticDataset(SplitDataset, TorchDataset[Sample]):
    """A split with labelled pixels as a torch dataset, indexed by number or by `Draw`; safe in worker processes.

    An image is one sample. A scene is never held: with `augment` it is as many samples as crops fit into it, each a
    random crop; without, every window of `nth_window` is one, with a margin of ignored labels, so that each pixel
    counts once.

    Args:
        dataset: from `read_dataset`.
        split: its name.
        augment: applied with a generator of the draw's key, on which alone the result depends.
        cache: see `SplitDataset`.
        watch: progress of indexing the classes of scenes, which class-aware crops need.

    Raises:
        ConfigError: no such split, or a dataset of objects.
        DataError: files without a partner, or a first image that cannot be used.
    """

    def __init__(
        self,
        dataset: DatasetConfig,
        split: str,
        *,
        augment: Augment | None = None,
        cache: bool | str = "auto",
        watch: Watch = unwatched,
    ) -> None:
        require_semantic(dataset)
        self.augment = augment
        super().__init__(dataset, split, crop=None if augment is None else augment.crop, cache=cache)
        aware = augment is not None and augment.class_aware > 0
        self._places = index_scenes(dataset, self.pairs, self.scenes if aware else {}, watch=watch)

    def __getitem__(self, draw: Draw | int) -> Sample:
        """One sample; an index alone means the draw with the key of that index.

        Raises:
            DataError: the file cannot be used, or has other bands or another pixel type than the first one.
        """
        index, seed = draw if isinstance(draw, tuple) else (draw, key(draw))
        number, part = self.locate(index)
        name = str(self.pairs[number].image)
        if number in self.scenes and self.augment is not None:
            return self._crop(number, self.augment, torch.Generator().manual_seed(seed))
        if number in self.scenes:
            row, column, _, _ = nth_window(self.scenes[number].size, part)
            name = f"{name} ({row}, {column})"
        sample = _as_sample(self.frame(index), name)
        if self.augment is None:
            return sample.finalized()
        return self.augment(sample, torch.Generator().manual_seed(seed))

    def read_frame(self, pair: Pair, window: Window | None = None) -> Frame:
        """Reads the image and its labels."""
        return read_pair(self.dataset, pair, window)

    def frame(self, index: int) -> Frame:
        """Image and labels of a sample without augmentation, of a scene the window; not to be changed in place."""
        number, part = self.locate(index)
        if number not in self.scenes:
            return self.whole(number)
        core = nth_window(self.scenes[number].size, part)
        padded = pad_window(core, self.scenes[number].size)
        frame = self.part(number, padded)
        return replace(frame, target=ignore_outside(frame.target, padded, core))

    def _crop(self, number: int, augment: Augment, generator: torch.Generator) -> Sample:
        """A random crop of a scene, which alone is read, or one around a pixel of a class."""
        size, name = self.scenes[number].size, str(self.pairs[number].image)

        def read(window: Window) -> Sample:
            return _as_sample(self.part(number, window), f"{name} ({window.row}, {window.column})")

        def aim(draws: Sequence[float]) -> tuple[int, int] | None:
            places = self._places[number]
            chosen = augment.choose(torch.from_numpy(places.totals), draws[0])
            if chosen is None:
                return None
            block = places.block(chosen, draws[1])
            row, column = pick_pixel(torch.from_numpy(self.part(number, block).target), chosen, draws[2])
            return block.row + row, block.column + column

        return augment.of_scene(size, read, aim, generator)


class ObjectDataset(SplitDataset, TorchDataset[ObjectSample]):
    """A split with labelled objects as a torch dataset, indexed by number or by `Draw`; safe in worker processes.

    Samples of panoptic datasets also have the classes of their pixels.

    An image is one sample. A scene is never held: with `augment` it is as many samples as crops fit into it, each a
    random crop; without, every window of `nth_window` is one, and an object on the edge of two is clipped in both.

    Args:
        dataset: from `read_dataset`; its task says whether there are masks, and classes of pixels.
        split: its name.
        augment: applied with a generator of the draw's key, on which alone the result depends. Scenes need its `crop`.
        resize: the size of images without `augment`; None: unchanged.
        cache: see `SplitDataset`.

    Attributes:
        annotations: the COCO file of the split, with the ids of images and objects; None for other labels.

    Raises:
        ConfigError: no such split, or a semantic dataset.
        DataError: annotations or files that cannot be used.
    """

    def __init__(
        self,
        dataset: DatasetConfig,
        split: str,
        *,
        augment: ObjectAugment | None = None,
        resize: Resize | None = None,
        cache: bool | str = "auto",
    ) -> None:
        if not dataset.has_objects:
            allowed = "detection, instance or panoptic"
            raise ConfigError(f"a dataset for {dataset.task}", file=dataset.file, field="task", allowed=allowed)
        self.augment, self.resize = augment, resize
        crop = None if augment is None else augment.crop or (SCENE_CROP, SCENE_CROP)
        super().__init__(dataset, split, crop=crop, cache=cache)
        self.annotations = split_annotations(dataset, split)
        self._boxes: dict[int, NDArray[np.float32]] = {}
        if augment is not None and augment.crop is None and self.scenes:
            hint = "give the size of the crops of a scene"
            raise ConfigError("no crop", file=self.pairs[min(self.scenes)].image, field="crop", hint=hint)

    def __getitem__(self, draw: Draw | int) -> ObjectSample:
        """One sample; an index alone means the draw with the key of that index.

        Raises:
            DataError: the file cannot be used, does not fit its labels, or has other bands or another pixel type than
                the first one.
        """
        index, seed = draw if isinstance(draw, tuple) else (draw, key(draw))
        number, part = self.locate(index)
        name = str(self.pairs[number].image)
        if number not in self.scenes:
            image, valid = _tensors(self.whole(number))
            truth = self.truth(number)
            if self.augment is None:
                return self._plain(image, valid, truth, name)
            return self.augment(image, valid, truth, torch.Generator().manual_seed(seed), name)
        size = self.scenes[number].size
        if self.augment is not None:
            generator = torch.Generator().manual_seed(seed)
            boxes = self._scene_boxes(number) if self.augment.around else None
            return self.augment.of_scene(size, lambda window: self._window(number, window), generator, name, boxes)
        window = nth_window(size, part)
        return self._plain(*self._window(number, window), f"{name} ({window.row}, {window.column})")

    def truth(self, number: int) -> GroundTruth:
        """The objects of the image `pairs[number]` as labelled, neither transformed nor clipped.

        Raises:
            DataError: the labels cannot be used, or do not fit the image.
        """
        if number in self.scenes:
            return read_ground_truth(self.dataset, self.pairs[number], self.scenes[number].size, self.annotations)
        frame = self.whole(number)
        height, width = frame.image.shape[1:]
        truth = read_ground_truth(self.dataset, self.pairs[number], (height, width), self.annotations)
        return truth.where(frame.valid)

    def read_frame(self, pair: Pair, window: Window | None = None) -> Frame:
        """Reads the image; objects are read apart, by `truth`."""
        picture = read_picture(self.dataset, pair.image, window)
        return Frame(picture.array, picture.valid, _NO_TARGET, picture.band_names)

    def _scene_boxes(self, number: int) -> NDArray[np.float32]:
        """Boxes [N, 4] of all objects of a scene, read once in each process."""
        if number not in self._boxes:
            size = self.scenes[number].size
            self._boxes[number] = read_boxes(self.dataset, self.pairs[number], size, self.annotations)
        return self._boxes[number]

    def _window(self, number: int, window: Window) -> tuple[Tensor, Tensor | None, GroundTruth]:
        truth = read_ground_truth(self.dataset, self.pairs[number], self.scenes[number].size, self.annotations, window)
        frame = self.part(number, window)
        return *_tensors(frame), truth.where(frame.valid)

    def _plain(self, image: Tensor, valid: Tensor | None, truth: GroundTruth, name: str) -> ObjectSample:
        """The sample without augmentation, resized by `resize`."""
        size = (image.shape[-2], image.shape[-1])
        out = size if self.resize is None else scale_size(size, self.resize.factor(size))
        geometry = Geometry(Window(0, 0, *size), out)
        shown = geometry.on_image(image, valid)
        nodata = valid is not None or image.is_floating_point()
        shown = spread_nan(shown) if nodata else shown
        segments = truth.segments if out == size else None
        semantic = semantic_of(truth, geometry, shown if nodata else None)
        return ObjectSample(shown, visible_objects(truth, geometry), name, semantic, segments)


@dataclass(frozen=True)
class ClassIndex:
    """Pixels of each class in blocks of a scene, to find a pixel of a class without reading the scene.

    Attributes:
        size: (height, width) of the scene in pixels.
        side: of a block in pixels.
        counts: uint32 [blocks, K] pixels of each class, row by row.
    """

    size: tuple[int, int]
    side: int
    counts: NDArray[np.uint32]

    @property
    def totals(self) -> NDArray[np.int64]:
        """Pixels of each class in the scene, [K]."""
        return np.asarray(self.counts.sum(0, dtype=np.int64))

    def block(self, chosen: int, draw: float) -> Window:
        """A block that holds the class, drawn by its pixels of that class. draw: uniform of [0, 1)."""
        sums = self.counts[:, chosen].cumsum(dtype=np.int64)
        number = int(np.searchsorted(sums, int(draw * int(sums[-1])), side="right"))
        return tile(self.size, (self.side, self.side), *divmod(number, -(-self.size[1] // self.side)))


def index_scene(dataset: DatasetConfig, pair: Pair, header: Header, *, watch: Watch = unwatched) -> ClassIndex:
    """Counts the classes of a scene window by window; pixels without image data count for none.

    Raises:
        DataError: the image or its labels cannot be used.
    """
    height, width = header.size
    side = _MIN_BLOCK
    while math.ceil(height / side) * math.ceil(width / side) > _MAX_BLOCKS:
        side *= 2
    step = max(side, SIDE)
    windows = tiles(header.size, (step, step))
    classes = len(dataset.classes)
    across = math.ceil(width / side)
    counts = np.zeros((math.ceil(height / side) * across, classes), np.uint32)

    def count(window: Window) -> list[NDArray[np.int64]]:
        target = read_pair(dataset, pair, window).target
        parts = tiles(target.shape, (side, side))
        return [np.bincount(target[r : r + h, c : c + w].ravel(), minlength=classes)[:classes] for r, c, h, w in parts]

    for (row, column, tall, wide), found in zip(windows, map_threads(count, windows, watch), strict=True):
        for (top, left, _, _), line in zip(tiles((tall, wide), (side, side)), found, strict=True):
            counts[(row + top) // side * across + (column + left) // side] = line
    return ClassIndex(header.size, side, counts)


def index_scenes(
    dataset: DatasetConfig, pairs: Sequence[Pair], scenes: dict[int, Header], *, watch: Watch = unwatched
) -> dict[int, ClassIndex]:
    """The class index of every scene, by the index of its pair."""
    return {i: index_scene(dataset, pairs[i], header, watch=watch) for i, header in scenes.items()}


def _as_sample(frame: Frame, name: str) -> Sample:
    """The arrays as tensors in their own dtype: a crop may need only a small part of them as floats."""
    image, valid = _tensors(frame)
    return Sample(image, torch.from_numpy(frame.target), name, valid)


def _tensors(frame: Frame) -> tuple[Tensor, Tensor | None]:
    """The image in its own dtype, and where it is valid."""
    return torch.from_numpy(frame.image), None if frame.valid is None else torch.from_numpy(frame.valid)
