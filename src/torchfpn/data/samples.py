"""A split of a dataset as samples for training: images with raw values, NaN where there is none, and class indices."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.utils.data import Dataset as TorchDataset

from torchfpn.data.augment import Augment, pixel_of
from torchfpn.data.class_index import index_scenes
from torchfpn.data.dataset import Dataset
from torchfpn.data.each import Watch, unwatched
from torchfpn.data.keys import Draw, key
from torchfpn.data.reading import Frame, read_pair, refuse_objects
from torchfpn.data.sample import Sample
from torchfpn.data.split_images import SCENE_CROP, SplitImages
from torchfpn.data.splits import Pair
from torchfpn.data.windows import nth_tile, only_inside, with_margin
from torchfpn.files.geo import Window
from torchfpn.types import Size


class SemanticSamples(SplitImages, TorchDataset[Sample]):
    """The samples of one split, by index or by `Draw`; safe in worker processes.

    An image is one sample. A scene (`data.windows`) is never held: with `augment` it is as many samples as crops fit
    into it, each a crop from anywhere in it; without, every window of `nth_tile` is one, seen with a margin that is not
    labelled, so that each pixel counts once.

    Args:
        dataset: as `read_dataset` gave it.
        split: its name.
        augment: applied with a generator of the draw's key; the result depends on nothing else.
        cache: see `SplitImages`.
        watch: shows how far the search for the classes of scenes is; only class-aware crops need it.

    Raises:
        ConfigError: no such split, or one of objects. DataError: files without a partner, or a first image that cannot
            be used.
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
