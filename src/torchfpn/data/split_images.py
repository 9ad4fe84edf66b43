"""The images of a split, one by one or window by window, each like the first and read from its file at most once."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from itertools import accumulate

from torchfpn.data.cache import AUTO_BYTES, FrameCache, frame_bytes, most_memory
from torchfpn.data.dataset import Dataset
from torchfpn.data.headers import Header
from torchfpn.data.reading import Frame, check_order, grey_cure
from torchfpn.data.splits import Pair
from torchfpn.data.windows import scene_of, tile_count
from torchfpn.errors import DataError, amount
from torchfpn.files.geo import Window
from torchfpn.types import Size

MOST_CROPS = 2**20  # samples that a scene is at most; the order of an epoch is a list of them
SCENE_CROP = 512  # pixels of a side, where nobody says how large crops of a scene are


class SplitImages(ABC):
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

    def __init__(self, dataset: Dataset, split: str, *, crop: Size | None, cache: bool | str) -> None:
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
