"""What a training shows to the network of a split: crops of images with a class for every pixel, or with objects."""

from abc import ABC, abstractmethod
from typing import Any, TypeVar

from torchfpn.config import TrainConfig
from torchfpn.data.augment import Augment
from torchfpn.data.check import TRAIN, VALIDATE
from torchfpn.data.dataset import Dataset
from torchfpn.data.each import Watch
from torchfpn.data.keys import Draw
from torchfpn.data.region_augment import RegionAugment
from torchfpn.data.region_samples import RegionSamples
from torchfpn.data.resize import Resize
from torchfpn.data.samples import SemanticSamples
from torchfpn.data.splits import tile_parts
from torchfpn.recipe import Scaling
from torchfpn.types import Size

S = TypeVar("S")


class First:
    """The first `count` of some samples."""

    def __init__(self, samples: Any, count: int) -> None:
        self.samples, self.count = samples, min(count, len(samples))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, draw: Draw | int) -> Any:
        return self.samples[draw]


def whole_samples(samples: Any, kind: type[S]) -> S | None:
    """The samples of a split that a loader reads, with the same numbers; None if they are of another kind."""
    found = samples.samples if isinstance(samples, First) else samples
    return found if isinstance(found, kind) else None


class Sampling(ABC):
    """How the splits of a dataset are shown."""

    def __init__(self, config: TrainConfig, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        self.plain = self._whole(TRAIN, cache=config.data.cache if config.overfit_batches else False)
        self.bands: tuple[str, ...] = self.plain.bands

    def fixed(self) -> Any:
        """The training images as they are learnt from, always the same: to learn a few of them by heart."""
        return self.plain

    def validation(self) -> Any:
        """Whole images of the split "val" as they are; None where there is none."""
        return self._whole(VALIDATE, cache=self.config.data.cache) if VALIDATE in self.dataset.splits else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the settings, a line each."""
        return ()

    @property
    @abstractmethod
    def rules(self) -> dict[str, Any]:
        """What the recipe has to say about how images are shown."""

    @abstractmethod
    def augmented(self, scaling: Scaling, watch: Watch) -> Any:
        """The training images as they are learnt from. scaling: of the bands, in whose units brightness changes."""

    @abstractmethod
    def _whole(self, split: str, *, cache: bool | str) -> Any:
        """Whole images as they are."""

    def _common(self) -> dict[str, Any]:
        """The rules of every task: whether grey images are taken, how paths of images tell their place."""
        grey = {"grey_as_color": True} if self.dataset.grey_as_color else {}
        folder = tile_parts(self.dataset.splits[TRAIN].images)
        tiles = self.dataset.tiles or (folder[1] if folder is not None else None)
        return grey if tiles is None else grey | {"tiles": tiles}

    def _jitter(self, scaling: Scaling) -> dict[str, Any]:
        """What both kinds of augmentation have."""
        data = self.config.data
        return {
            "scale": data.scale,
            "mirror": data.hflip,
            "flip": data.vflip,
            "turns": data.rotate,
            "brightness": data.brightness,
            "contrast": data.contrast,
            "band_brightness": data.band_brightness,
            "band_contrast": data.band_contrast,
            "noise": data.noise,
            "scaling": scaling,
        }

    def _crop(self) -> Size | None:
        crop = self.config.data.crop
        return (crop, crop) if isinstance(crop, int) else crop


class PixelSampling(Sampling):
    """Crops of one size, labels for each of their pixels."""

    @property
    def rules(self) -> dict[str, Any]:
        """Whether grey images are taken, too, and how tiles are placed."""
        return self._common()

    @property
    def notes(self) -> tuple[str, ...]:
        """Crops that are as large as the images cannot be laid around anything."""
        data, size = self.config.data, self.plain.usual_size
        crop = self._crop() or size
        smaller = crop[0] < size[0] or crop[1] < size[1] or data.scale[1] > 1
        if not data.class_aware or smaller or self.plain.scenes:
            return ()
        sizes = f"crops of {crop[1]} x {crop[0]} pixels, a first image of {size[1]} x {size[0]}"
        return (f"data.class_aware does nothing with images no larger than the crops ({sizes}): give a --data.crop",)

    def augmented(self, scaling: Scaling, watch: Watch) -> SemanticSamples:
        """Crops."""
        data = self.config.data
        crop = self._crop() or self.plain.usual_size
        augment = Augment(crop=crop, class_aware=data.class_aware, **self._jitter(scaling))
        return SemanticSamples(self.dataset, TRAIN, augment=augment, cache=data.cache, watch=watch)

    def _whole(self, split: str, *, cache: bool | str) -> SemanticSamples:
        return SemanticSamples(self.dataset, split, cache=cache)


class ObjectSampling(Sampling):
    """Images of any size, resized, with their objects."""

    @property
    def rules(self) -> dict[str, Any]:
        """The size images are shown in, the larger end of a range, and the rules of every task."""
        resize = self._resize()
        if resize is None:
            return self._common()
        shorter = None if resize.shorter is None else resize.shorter[1]
        return {"resize": {"shorter": shorter, "longer": resize.longest, "antialias": True}} | self._common()

    def fixed(self) -> RegionSamples:
        """Resized as in prediction."""
        return RegionSamples(self.dataset, TRAIN, resize=self._resize(), cache=self.config.data.cache)

    def augmented(self, scaling: Scaling, watch: Watch) -> RegionSamples:
        """Resized, and cropped where a crop is asked for."""
        data = self.config.data
        augment = RegionAugment(
            resize=self._resize(),
            crop=self._crop(),
            around=data.class_aware,
            visible=data.visible,
            covering=data.covering,
            **self._jitter(scaling),
        )
        return RegionSamples(self.dataset, TRAIN, augment=augment, cache=data.cache)

    def _whole(self, split: str, *, cache: bool | str) -> RegionSamples:
        return RegionSamples(self.dataset, split, cache=cache)

    def _resize(self) -> Resize | None:
        data = self.config.data
        if data.shorter is None and data.longest is None:
            return None
        shorter = (data.shorter, data.shorter) if isinstance(data.shorter, int) else data.shorter
        return Resize(shorter, data.longest)
