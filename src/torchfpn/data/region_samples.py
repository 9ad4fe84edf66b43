"""A split of a dataset of objects as samples for training: raw values, NaN where there is none; boxes and masks."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from torchfpn.data.annotated import split_annotations
from torchfpn.data.dataset import Dataset
from torchfpn.data.geometry import Geometry
from torchfpn.data.keys import Draw, key
from torchfpn.data.moving import every_object
from torchfpn.data.reading import Frame, read_picture
from torchfpn.data.region_augment import RegionAugment
from torchfpn.data.region_sample import RegionSample, without_gaps
from torchfpn.data.resize import Resize, times
from torchfpn.data.split_images import SCENE_CROP, SplitImages
from torchfpn.data.splits import Pair
from torchfpn.data.truth import Truth
from torchfpn.data.truths import truth_of
from torchfpn.data.windows import nth_tile
from torchfpn.errors import ConfigError
from torchfpn.files.geo import Window
from torchfpn.types import Size

_NO_TARGET = np.zeros((0, 0), np.uint8)


class RegionSamples(SplitImages, TorchDataset[RegionSample]):
    """The samples of one split of a dataset of objects, by index or by `Draw`; safe in worker processes.

    An image is one sample. A scene (`data.windows`) is never held: with `augment` it is as many samples as crops fit
    into it, each a crop from anywhere in it; without, every window of `nth_tile` is one, and an object on the edge of
    two is in both, cut.

    Args:
        dataset: as `read_dataset` gave it; its task says whether there are masks.
        split: its name.
        augment: applied with a generator of the draw's key; the result depends on nothing else. Scenes need its `crop`.
        resize: how large images are shown without `augment`; None: as they are.
        cache: see `SplitImages`.

    Attributes:
        annotations: of the split, where they are a COCO file, with the ids of images and objects; else None.

    Raises:
        ConfigError: no such split, or one of pixels. DataError: annotations or files that cannot be used.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        augment: RegionAugment | None = None,
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

    def __getitem__(self, draw: Draw | int) -> RegionSample:
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

    def truth(self, number: int) -> Truth:
        """The objects of the image number `number` of `pairs` as they are labelled, nothing moved or cut.

        Raises:
            DataError: the labels cannot be used, or do not fit the image.
        """
        if number in self.scenes:
            return truth_of(self.dataset, self.pairs[number], self.scenes[number].size, self.annotations)
        height, width = self.whole(number).image.shape[1:]
        return truth_of(self.dataset, self.pairs[number], (height, width), self.annotations)

    def read_frame(self, pair: Pair, window: Window | None = None) -> Frame:
        """The image; what is labelled takes no memory beside it."""
        picture = read_picture(self.dataset, pair.image, window)
        return Frame(picture.array, picture.valid, _NO_TARGET, picture.band_names)

    def _scene_boxes(self, number: int) -> NDArray[np.float32]:
        """[N, 4] of all objects of a scene; found once in each process that reads samples."""
        if number not in self._boxes:
            self._boxes[number] = self.truth(number).boxes
        return self._boxes[number]

    def _window(self, number: int, window: Window) -> tuple[Tensor, Tensor | None, Truth]:
        truth = truth_of(self.dataset, self.pairs[number], self.scenes[number].size, self.annotations, window)
        return *_tensors(self.part(number, window)), truth

    def _plain(self, image: Tensor, valid: Tensor | None, truth: Truth, name: str) -> RegionSample:
        """Not augmented: the whole, resized if that is wanted."""
        size = (image.shape[-2], image.shape[-1])
        out = size if self.resize is None else times(size, self.resize.factor(size))
        geometry = Geometry(Window(0, 0, *size), out)
        shown = geometry.on_image(image, valid)
        if valid is not None or image.is_floating_point():
            shown = without_gaps(shown)
        return RegionSample(shown, every_object(truth, geometry), name)


def _tensors(frame: Frame) -> tuple[Tensor, Tensor | None]:
    """The image in its own type, and where it is valid."""
    return torch.from_numpy(frame.image), None if frame.valid is None else torch.from_numpy(frame.valid)
