"""A split of a dataset as samples for training: images with raw values, NaN where there is none, and class indices."""

import torch
from torch.utils.data import Dataset as TorchDataset

from torchfpn.data.augment import Augment
from torchfpn.data.cache import AUTO_BYTES, FrameCache, frame_bytes, most_memory
from torchfpn.data.dataset import Dataset
from torchfpn.data.keys import Draw, key
from torchfpn.data.reading import Frame, read_pair
from torchfpn.data.sample import Sample
from torchfpn.errors import DataError


class SemanticSamples(TorchDataset[Sample]):
    """The samples of one split, by index or by `Draw`; safe in worker processes.

    Args:
        dataset: as `read_dataset` gave it.
        split: its name.
        augment: applied with a generator of the draw's key; the result depends on nothing else.
        cache: keep decoded files in memory shared with the workers: True, False, or "auto" (if the split, judged by
            its first image, takes no more than 1 GiB).

    Attributes:
        pairs: the files. bands: names of the bands of every image. dtype: of their pixels.

    Raises:
        ConfigError: no such split. DataError: files without a partner, or a first image that cannot be used.
    """

    def __init__(
        self, dataset: Dataset, split: str, *, augment: Augment | None = None, cache: bool | str = "auto"
    ) -> None:
        self.dataset, self.split, self.augment = dataset, split, augment
        self.pairs = dataset.pairs(split)
        first = read_pair(dataset, self.pairs[0])
        self.bands, self.dtype = first.band_names, str(first.image.dtype)
        self._cache = _make_cache(first, len(self.pairs), cache)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: Draw | int) -> Sample:
        """One sample; an index alone stands for the draw with the key of that index.

        Raises:
            DataError: the file cannot be used, or has other bands or another pixel type than the first one.
        """
        index, seed = draw if isinstance(draw, tuple) else (draw, key(draw))
        sample = _as_sample(self.frame(index), str(self.pairs[index].image))
        if self.augment is None:
            return sample.finished()
        return self.augment(sample, torch.Generator().manual_seed(seed))

    def frame(self, index: int) -> Frame:
        """The image and the labels as read, not augmented; not to be changed in place."""
        if index >= len(self.pairs):
            raise IndexError(index)  # what ends a `for` over the samples
        frame = self._cache.get(index) if self._cache else None
        if frame is None:
            frame = read_pair(self.dataset, self.pairs[index])
            self._check_like_first(index, frame)
            if self._cache:
                self._cache.put(index, frame)
        return frame

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
