"""Splits as torch datasets: pixels or objects, whole images or crops of scenes.

The images of a split, one by one or window by window, each like the first and read from its file at most once.

A split of a dataset of objects as samples for training: raw values, NaN where there is none; boxes and masks.

Where the classes of a scene lie: counts by small blocks, to find a pixel of a class without reading it all.

A split of a dataset as samples for training: images with raw values, NaN where there is none, and class indices.
"""

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
from torchfpn.data.labels.load import read_ground_truth
from torchfpn.data.parallel import Watch, each, unwatched
from torchfpn.data.reading import (
    AUTO_BYTES,
    SIDE,
    Frame,
    FrameCache,
    check_order,
    frame_bytes,
    grey_cure,
    most_memory,
    nth_tile,
    only_inside,
    read_pair,
    read_picture,
    refuse_objects,
    scene_of,
    tile_count,
    with_margin,
)
from torchfpn.data.sample import ObjectSample, Sample, without_gaps
from torchfpn.data.sampler import Draw, key
from torchfpn.data.splits import Pair
from torchfpn.data.transforms import Augment, Geometry, ObjectAugment, Resize, pixel_of, times, visible_objects
from torchfpn.errors import ConfigError, DataError, amount
from torchfpn.geo.window import Window, tile, tiles
from torchfpn.types import Size

MOST_CROPS = 2**20  # samples that a scene is at most; the order of an epoch is a list of them

SCENE_CROP = 512  # pixels of a side, where nobody says how large crops of a scene are


class SplitDataset(ABC):
    """What samples of pixels and samples of objects have in common; each says in `read_frame` what it reads of a pair.

    Args:
        dataset: as `read_dataset` gave it.
        split: its name.
        crop: of a scene, as many samples as crops of this (height, width) fit into it; None: its windows.
        cache: keep decoded files in memory shared with the workers: True, False, or "auto" (if the split, judged by
            its first image, takes no more than 1 GiB).

    Attributes:
        pairs: the files. bands: names of the bands of every image. dtype: of their pixels. scenes: headers of those
        that are, by their number in `pairs`.

    Raises:
        ConfigError: no such split. DataError: files without a partner, or a first image that cannot be used.
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
        """What is needed of a pair of files, or of a window of it."""

    def locate(self, index: int) -> tuple[int, int]:
        """The number of the image, and which of its samples it is."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # what ends a `for` over the samples
        index %= len(self)
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def whole(self, number: int) -> Frame:
        """An image that is no scene, as read; not to be changed in place."""
        frame = self._cache.get(number) if self._cache else None
        if frame is None:
            frame = self.part(number)
            if self._cache:
                self._cache.put(number, frame)
        return frame

    def part(self, number: int, window: Window | None = None) -> Frame:
        """An image, or a window of a scene, from its file.

        Raises:
            DataError: the file cannot be used, or has other bands or another pixel type than the first one.
        """
        frame = self.read_frame(self.pairs[number], window)
        self._check_like_first(number, frame)
        return frame

    def _samples_of(self, number: int, crop: Size | None) -> int:
        """How many samples an image is."""
        if number not in self.scenes:
            return 1
        size = self.scenes[number].size
        if crop is None:
            return tile_count(size)
        return min(max(1, size[0] // crop[0]) * max(1, size[1] // crop[1]), MOST_CROPS)

    def _check_like_first(self, index: int, frame: Frame) -> None:
        file, first = self.pairs[index].image, self.pairs[0].image.name
        if len(frame.band_names) != len(self.bands):
            raise DataError(
                f"has {amount(len(frame.band_names), 'band')} ({', '.join(frame.band_names)})",
                file=file,
                allowed=f"{len(self.bands)} as in {first}: {', '.join(self.bands)}",
                hint=grey_cure(len(frame.band_names), len(self.bands)),
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
    """The upper left pixels of a scene, enough to know its bands; None: the whole image."""
    return None if scene is None else Window(0, 0, 64, 64).clipped(*scene.size)


def _make_cache(first: Frame, n: int, wanted: bool | str) -> FrameCache | None:
    size = 2 * n * frame_bytes(first)  # twice, since images may differ in size
    if wanted is False or (wanted == "auto" and size > 2 * AUTO_BYTES):
        return None
    capacity = min(size, AUTO_BYTES if wanted == "auto" else most_memory())
    try:
        return FrameCache(n, first.image.dtype, first.band_names, capacity)
    except OSError:  # no shared memory or no locks to be had: then every file is read each time
        return None


_NO_TARGET = np.zeros((0, 0), np.uint8)


class ObjectDataset(SplitDataset, TorchDataset[ObjectSample]):
    """The samples of one split of a dataset of objects, by index or by `Draw`; safe in worker processes.

    An image is one sample. A scene (`data.windows`) is never held: with `augment` it is as many samples as crops fit
    into it, each a crop from anywhere in it; without, every window of `nth_tile` is one, and an object on the edge of
    two is in both, cut.

    Args:
        dataset: as `read_dataset` gave it; its task says whether there are masks.
        split: its name.
        augment: applied with a generator of the draw's key; the result depends on nothing else. Scenes need its `crop`.
        resize: how large images are shown without `augment`; None: as they are.
        cache: see `SplitDataset`.

    Attributes:
        annotations: of the split, where they are a COCO file, with the ids of images and objects; else None.

    Raises:
        ConfigError: no such split, or one of pixels. DataError: annotations or files that cannot be used.
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
            allowed = "detection or instance"
            raise ConfigError(f"a dataset for {dataset.task}", file=dataset.file, field="task", allowed=allowed)
        self.augment, self.resize = augment, resize
        crop = None if augment is None else augment.crop or (SCENE_CROP, SCENE_CROP)
        super().__init__(dataset, split, crop=crop, cache=cache)
        self.annotations = split_annotations(dataset, split)
        self._boxes: dict[int, NDArray[np.float32]] = {}
        if augment is not None and augment.crop is None and self.scenes:
            hint = "give the largest part of a scene that is seen at once"
            raise ConfigError("no crop", file=self.pairs[min(self.scenes)].image, field="crop", hint=hint)

    def __getitem__(self, draw: Draw | int) -> ObjectSample:
        """One sample; an index alone stands for the draw with the key of that index.

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
        window = nth_tile(size, part)
        return self._plain(*self._window(number, window), f"{name} ({window.row}, {window.column})")

    @property
    def usual_size(self) -> Size:
        """(height, width) of the first image, or of the crops that suit a scene."""
        if 0 in self.scenes:
            return SCENE_CROP, SCENE_CROP
        height, width = self.whole(0).image.shape[1:]
        return height, width

    def truth(self, number: int) -> GroundTruth:
        """The objects of the image number `number` of `pairs` as they are labelled, nothing moved or cut.

        Raises:
            DataError: the labels cannot be used, or do not fit the image.
        """
        if number in self.scenes:
            return read_ground_truth(self.dataset, self.pairs[number], self.scenes[number].size, self.annotations)
        height, width = self.whole(number).image.shape[1:]
        return read_ground_truth(self.dataset, self.pairs[number], (height, width), self.annotations)

    def read_frame(self, pair: Pair, window: Window | None = None) -> Frame:
        """The image; what is labelled takes no memory beside it."""
        picture = read_picture(self.dataset, pair.image, window)
        return Frame(picture.array, picture.valid, _NO_TARGET, picture.band_names)

    def _scene_boxes(self, number: int) -> NDArray[np.float32]:
        """[N, 4] of all objects of a scene; found once in each process that reads samples."""
        if number not in self._boxes:
            self._boxes[number] = self.truth(number).boxes
        return self._boxes[number]

    def _window(self, number: int, window: Window) -> tuple[Tensor, Tensor | None, GroundTruth]:
        truth = read_ground_truth(self.dataset, self.pairs[number], self.scenes[number].size, self.annotations, window)
        return *_tensors(self.part(number, window)), truth

    def _plain(self, image: Tensor, valid: Tensor | None, truth: GroundTruth, name: str) -> ObjectSample:
        """Not augmented: the whole, resized if that is wanted."""
        size = (image.shape[-2], image.shape[-1])
        out = size if self.resize is None else times(size, self.resize.factor(size))
        geometry = Geometry(Window(0, 0, *size), out)
        shown = geometry.on_image(image, valid)
        if valid is not None or image.is_floating_point():
            shown = without_gaps(shown)
        return ObjectSample(shown, visible_objects(truth, geometry), name)


def _tensors(frame: Frame) -> tuple[Tensor, Tensor | None]:
    """The image in its own type, and where it is valid."""
    return torch.from_numpy(frame.image), None if frame.valid is None else torch.from_numpy(frame.valid)


_SMALLEST, _MOST = 256, 2**16  # pixels of a block's side; blocks of a scene, so that memory does not follow its size


@dataclass(frozen=True)
class ClassIndex:
    """size: height and width of the scene. side: of a block. counts: uint32 [blocks, K], row by row."""

    size: tuple[int, int]
    side: int
    counts: NDArray[np.uint32]

    @property
    def totals(self) -> NDArray[np.int64]:
        """[K]: pixels of each class in the scene."""
        return np.asarray(self.counts.sum(0, dtype=np.int64))

    def block(self, chosen: int, draw: float) -> Window:
        """A block that holds the class, each as likely as it has pixels of it. draw: of [0, 1)."""
        sums = self.counts[:, chosen].cumsum(dtype=np.int64)
        number = int(np.searchsorted(sums, int(draw * int(sums[-1])), side="right"))
        return tile(self.size, (self.side, self.side), *divmod(number, -(-self.size[1] // self.side)))


def index_scene(dataset: DatasetConfig, pair: Pair, header: Header, *, watch: Watch = unwatched) -> ClassIndex:
    """Counts the classes of a scene, a window at a time; pixels without image data are of none.

    Raises:
        DataError: the image or its labels cannot be used.
    """
    height, width = header.size
    side = _SMALLEST
    while math.ceil(height / side) * math.ceil(width / side) > _MOST:
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

    for (row, column, tall, wide), found in zip(windows, each(count, windows, watch), strict=True):
        for (top, left, _, _), line in zip(tiles((tall, wide), (side, side)), found, strict=True):
            counts[(row + top) // side * across + (column + left) // side] = line
    return ClassIndex(header.size, side, counts)


def index_scenes(
    dataset: DatasetConfig, pairs: Sequence[Pair], scenes: dict[int, Header], *, watch: Watch = unwatched
) -> dict[int, ClassIndex]:
    """The index of every scene, by the number of its pair."""
    return {i: index_scene(dataset, pairs[i], header, watch=watch) for i, header in scenes.items()}


class SemanticDataset(SplitDataset, TorchDataset[Sample]):
    """The samples of one split, by index or by `Draw`; safe in worker processes.

    An image is one sample. A scene (`data.windows`) is never held: with `augment` it is as many samples as crops fit
    into it, each a crop from anywhere in it; without, every window of `nth_tile` is one, seen with a margin that is not
    labelled, so that each pixel counts once.

    Args:
        dataset: as `read_dataset` gave it.
        split: its name.
        augment: applied with a generator of the draw's key; the result depends on nothing else.
        cache: see `SplitDataset`.
        watch: shows how far the search for the classes of scenes is; only class-aware crops need it.

    Raises:
        ConfigError: no such split, or one of objects. DataError: files without a partner, or a first image that cannot
            be used.
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
        refuse_objects(dataset)
        self.augment = augment
        super().__init__(dataset, split, crop=None if augment is None else augment.crop, cache=cache)
        aware = augment is not None and augment.class_aware > 0
        self._places = index_scenes(dataset, self.pairs, self.scenes if aware else {}, watch=watch)

    def __getitem__(self, draw: Draw | int) -> Sample:
        """One sample; an index alone stands for the draw with the key of that index.

        Raises:
            DataError: the file cannot be used, or has other bands or another pixel type than the first one.
        """
        index, seed = draw if isinstance(draw, tuple) else (draw, key(draw))
        number, part = self.locate(index)
        name = str(self.pairs[number].image)
        if number in self.scenes and self.augment is not None:
            return self._crop(number, self.augment, torch.Generator().manual_seed(seed))
        if number in self.scenes:
            row, column, _, _ = nth_tile(self.scenes[number].size, part)
            name = f"{name} ({row}, {column})"
        sample = _as_sample(self.frame(index), name)
        if self.augment is None:
            return sample.finished()
        return self.augment(sample, torch.Generator().manual_seed(seed))

    def read_frame(self, pair: Pair, window: Window | None = None) -> Frame:
        """The image and its labels."""
        return read_pair(self.dataset, pair, window)

    @property
    def usual_size(self) -> Size:
        """(height, width) of the first image, or of the crops that suit a scene."""
        return (SCENE_CROP, SCENE_CROP) if 0 in self.scenes else self.frame(0).target.shape

    def frame(self, index: int) -> Frame:
        """The image and the labels as read, not augmented; not to be changed in place. Of a scene, its window."""
        number, part = self.locate(index)
        if number not in self.scenes:
            return self.whole(number)
        core = nth_tile(self.scenes[number].size, part)
        seen = with_margin(core, self.scenes[number].size)
        part_of_scene = self.part(number, seen)
        return replace(part_of_scene, target=only_inside(part_of_scene.target, seen, core))

    def _crop(self, number: int, augment: Augment, generator: torch.Generator) -> Sample:
        """A crop from anywhere in a scene, or around a pixel of a class; nothing else of the scene is read."""
        size, name = self.scenes[number].size, str(self.pairs[number].image)

        def read(window: Window) -> Sample:
            return _as_sample(self.part(number, window), f"{name} ({window.row}, {window.column})")

        def aim(draws: Sequence[float]) -> tuple[int, int] | None:
            places = self._places[number]
            chosen = augment.choose(torch.from_numpy(places.totals), draws[0])
            if chosen is None:
                return None
            block = places.block(chosen, draws[1])
            row, column = pixel_of(torch.from_numpy(self.part(number, block).target), chosen, draws[2])
            return block.row + row, block.column + column

        return augment.of_scene(size, read, aim, generator)


def _as_sample(frame: Frame, name: str) -> Sample:
    """The arrays as tensors in their own type: a crop may need only a small part of them as floats."""
    valid = None if frame.valid is None else torch.from_numpy(frame.valid)
    return Sample(torch.from_numpy(frame.image), torch.from_numpy(frame.target), name, valid)
