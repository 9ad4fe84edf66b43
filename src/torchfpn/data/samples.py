"""A split of a dataset as samples for training: images with raw values, NaN where there is none, and class indices."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch.utils.data import Dataset as TorchDataset

from torchfpn.data.augment import Augment, pixel_of
from torchfpn.data.cache import AUTO_BYTES, FrameCache, frame_bytes, most_memory
from torchfpn.data.class_index import index_scenes
from torchfpn.data.dataset import Dataset
from torchfpn.data.each import Watch, unwatched
from torchfpn.data.geometry import Window
from torchfpn.data.headers import Header
from torchfpn.data.keys import Draw, key
from torchfpn.data.reading import Frame, read_pair
from torchfpn.data.sample import Sample
from torchfpn.data.windows import nth_tile, only_inside, scene_of, tile_count, with_margin
from torchfpn.errors import DataError
from torchfpn.files.images import Window as Area
from torchfpn.types import Size

MOST_CROPS = 2**20  # samples that a scene is at most; the order of an epoch is a list of them
SCENE_CROP = 512  # pixels of a side, where nobody says how large crops of a scene are


class SemanticSamples(TorchDataset[Sample]):
    """The samples of one split, by index or by `Draw`; safe in worker processes.

    An image is one sample. A scene (`data.windows`) is never held: with `augment` it is as many samples as crops fit
    into it, each a crop from anywhere in it; without, every window of `tiling` is one, seen with a margin that is not
    labelled, so that each pixel counts once.

    Args:
        dataset: as `read_dataset` gave it.
        split: its name.
        augment: applied with a generator of the draw's key; the result depends on nothing else.
        cache: keep decoded files in memory shared with the workers: True, False, or "auto" (if the split, judged by
            its first image, takes no more than 1 GiB).
        watch: shows how far the search for the classes of scenes is; only class-aware crops need it.

    Attributes:
        pairs: the files. bands: names of the bands of every image. dtype: of their pixels. scenes: headers of those
        that are, by their number in `pairs`.

    Raises:
        ConfigError: no such split. DataError: files without a partner, or a first image that cannot be used.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        augment: Augment | None = None,
        cache: bool | str = "auto",
        watch: Watch = unwatched,
    ) -> None:
        self.dataset, self.split, self.augment = dataset, split, augment
        self.pairs = dataset.pairs(split)
        found = ((i, scene_of(dataset, pair)) for i, pair in enumerate(self.pairs))
        self.scenes: dict[int, Header] = {i: header for i, header in found if header is not None}
        first = read_pair(dataset, self.pairs[0], _corner(self.scenes.get(0)))
        self.bands, self.dtype = first.band_names, str(first.image.dtype)
        self._ends = list(accumulate(self._samples_of(i) for i in range(len(self.pairs))))
        plain = next((i for i in range(len(self.pairs)) if i not in self.scenes), None)
        self._cache = None
        if plain is not None and cache is not False:
            like = first if plain == 0 else read_pair(dataset, self.pairs[plain])
            self._cache = _make_cache(like, len(self.pairs), cache)
        aware = augment is not None and augment.class_aware > 0
        self._places = index_scenes(dataset, self.pairs, self.scenes if aware else {}, watch=watch)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, draw: Draw | int) -> Sample:
        """One sample; an index alone stands for the draw with the key of that index.

        Raises:
            DataError: the file cannot be used, or has other bands or another pixel type than the first one.
        """
        index, seed = draw if isinstance(draw, tuple) else (draw, key(draw))
        number, part = self._locate(index)
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

    @property
    def usual_size(self) -> Size:
        """(height, width) of the first image, or of the crops that suit a scene."""
        return (SCENE_CROP, SCENE_CROP) if 0 in self.scenes else self.frame(0).target.shape

    def frame(self, index: int) -> Frame:
        """The image and the labels as read, not augmented; not to be changed in place. Of a scene, its window."""
        number, part = self._locate(index)
        if number in self.scenes:
            core = nth_tile(self.scenes[number].size, part)
            seen = with_margin(core, self.scenes[number].size)
            part_of_scene = self._read(number, seen)
            return replace(part_of_scene, target=only_inside(part_of_scene.target, seen, core))
        frame = self._cache.get(number) if self._cache else None
        if frame is None:
            frame = self._read(number)
            if self._cache:
                self._cache.put(number, frame)
        return frame

    def _samples_of(self, number: int) -> int:
        """How many samples an image is."""
        if number not in self.scenes:
            return 1
        size = self.scenes[number].size
        if self.augment is None:
            return tile_count(size)
        crops = max(1, size[0] // self.augment.crop[0]) * max(1, size[1] // self.augment.crop[1])
        return min(crops, MOST_CROPS)

    def _locate(self, index: int) -> tuple[int, int]:
        """The number of the image, and which of its samples it is."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # what ends a `for` over the samples
        index %= len(self)
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def _read(self, number: int, window: Area | None = None) -> Frame:
        frame = read_pair(self.dataset, self.pairs[number], window)
        self._check_like_first(number, frame)
        return frame

    def _crop(self, number: int, augment: Augment, generator: torch.Generator) -> Sample:
        """A crop from anywhere in a scene, or around a pixel of a class; nothing else of the scene is read."""
        size, name = self.scenes[number].size, str(self.pairs[number].image)

        def read(window: Window) -> Sample:
            part = (window.top, window.left, window.height, window.width)
            return _as_sample(self._read(number, part), f"{name} ({window.top}, {window.left})")

        def aim(draws: Sequence[float]) -> tuple[int, int] | None:
            places = self._places[number]
            chosen = augment.choose(torch.from_numpy(places.totals), draws[0])
            if chosen is None:
                return None
            block = places.block(chosen, draws[1])
            row, column = pixel_of(torch.from_numpy(self._read(number, block).target), chosen, draws[2])
            return block[0] + row, block[1] + column

        return augment.of_scene(size, read, aim, generator)

    def _check_like_first(self, index: int, frame: Frame) -> None:
        file, first = self.pairs[index].image, self.pairs[0].image.name
        if len(frame.band_names) != len(self.bands):
            raise DataError(
                f"has {len(frame.band_names)} bands ({', '.join(frame.band_names)})",
                file=file,
                allowed=f"{len(self.bands)} as in {first}: {', '.join(self.bands)}",
            )
        if str(frame.image.dtype) != self.dtype and self.dataset.scaling is None:
            raise DataError(
                f"pixels of type {frame.image.dtype}, those of {first} are {self.dtype}",
                file=file,
                allowed="one pixel type",
                hint="convert it, or give `scaling: {offset: [...], scale: [...]}` if the values mean the same",
            )


def _corner(scene: Header | None) -> Area | None:
    """The upper left pixels of a scene, enough to know its bands; None: the whole image."""
    return None if scene is None else (0, 0, min(64, scene.size[0]), min(64, scene.size[1]))


def _make_cache(first: Frame, n: int, wanted: bool | str) -> FrameCache | None:
    size = 2 * n * frame_bytes(first)  # twice, since images may differ in size
    if wanted is False or (wanted == "auto" and size > 2 * AUTO_BYTES):
        return None
    capacity = min(size, AUTO_BYTES if wanted == "auto" else most_memory())
    try:
        return FrameCache(n, first.image.dtype, first.band_names, capacity)
    except OSError:  # no shared memory or no locks to be had: then every file is read each time
        return None


def _as_sample(frame: Frame, name: str) -> Sample:
    """The arrays as tensors in their own type: a crop may need only a small part of them as floats."""
    valid = None if frame.valid is None else torch.from_numpy(frame.valid)
    return Sample(torch.from_numpy(frame.image), torch.from_numpy(frame.target), name, valid)
