"""From the config to the data and the task of a training: sampling of the splits, scaling, class weights, weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from torchfpn import __version__
from torchfpn.backbones import published_scaling, published_weights
from torchfpn.config.checks import check_task
from torchfpn.config.parsing import recorded_setting
from torchfpn.config.settings import AUTO, TrainConfig
from torchfpn.criteria.region import ANCHORS, PROPOSALS, RegionCriterion
from torchfpn.data.check import TRAIN, VALIDATE, check
from torchfpn.data.config import Band, DatasetConfig, read_dataset
from torchfpn.data.datasets import ObjectDataset, SemanticDataset
from torchfpn.data.parallel import Watch, unwatched
from torchfpn.data.sampler import Draw
from torchfpn.data.scaling import find_scaling
from torchfpn.data.splits import refuse, tile_parts
from torchfpn.data.statistics import class_counts, class_weights
from torchfpn.data.transforms import Augment, ObjectAugment, Resize
from torchfpn.errors import ConfigError, nearest
from torchfpn.recipe import Scaling
from torchfpn.tasks.build import create_task
from torchfpn.tasks.task import Task
from torchfpn.train.checkpoints import Past
from torchfpn.types import Size

S = TypeVar("S")
MOST_CHECKED = 1000  # images and windows of scenes that are looked at before a training


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

    def __init__(self, config: TrainConfig, dataset: DatasetConfig) -> None:
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

    def augmented(self, scaling: Scaling, watch: Watch) -> SemanticDataset:
        """Crops."""
        data = self.config.data
        crop = self._crop() or self.plain.usual_size
        augment = Augment(crop=crop, class_aware=data.class_aware, **self._jitter(scaling))
        return SemanticDataset(self.dataset, TRAIN, augment=augment, cache=data.cache, watch=watch)

    def _whole(self, split: str, *, cache: bool | str) -> SemanticDataset:
        return SemanticDataset(self.dataset, split, cache=cache)


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

    def fixed(self) -> ObjectDataset:
        """Resized as in prediction."""
        return ObjectDataset(self.dataset, TRAIN, resize=self._resize(), cache=self.config.data.cache)

    def augmented(self, scaling: Scaling, watch: Watch) -> ObjectDataset:
        """Resized, and cropped where a crop is asked for."""
        data = self.config.data
        augment = ObjectAugment(
            resize=self._resize(),
            crop=self._crop(),
            around=data.class_aware,
            visible=data.visible,
            covering=data.covering,
            **self._jitter(scaling),
        )
        return ObjectDataset(self.dataset, TRAIN, augment=augment, cache=data.cache)

    def _whole(self, split: str, *, cache: bool | str) -> ObjectDataset:
        return ObjectDataset(self.dataset, split, cache=cache)

    def _resize(self) -> Resize | None:
        data = self.config.data
        if data.shorter is None and data.longest is None:
            return None
        shorter = (data.shorter, data.shorter) if isinstance(data.shorter, int) else data.shorter
        return Resize(shorter, data.longest)


@dataclass(frozen=True)
class Parts:
    """What a training is made of: the task, its samples; `validate` is None without a "val" split.

    notes: what `fpn check` finds worth a look in the two splits. weights: those that the model began from, in words.
    """

    task: Task
    dataset: DatasetConfig
    train: Any
    validate: Any
    notes: tuple[str, ...] = ()
    weights: str = ""


def settle_weights(config: TrainConfig, before: Path | None) -> TrainConfig:
    """`config` with `model.pretrained` other than "auto": true where published weights are on this machine, else false.

    before: the folder of the run that goes on; it keeps the weights that it began from.
    """
    if config.model.pretrained != AUTO:
        return config
    settled = None if before is None else recorded_setting(before / "config.yaml", "model.pretrained")
    if settled in (None, AUTO):
        published = published_weights(config.model.backbone)
        settled = published is not None and published.file is not None
    return replace(config, model=replace(config.model, pretrained=settled))


def weights_in_words(config: TrainConfig) -> str:
    """The weights that a model begins from: "random", "ImageNet, from timm/resnet50.a1_in1k", "from weights.pth"."""
    given = config.model.pretrained
    if isinstance(given, str):
        return f"from {given}"
    return str(published_weights(config.model.backbone) or "published") if given else "random"


def ways_to_weights(config: TrainConfig) -> str:
    """How to begin from other weights than random ones."""
    published = published_weights(config.model.backbone)
    file = "--model.pretrained FILE starts from a file"
    if published is None:
        return file
    return f"{published.name} is not on this machine: --model.pretrained true downloads it, {file}"


def open_dataset(config: TrainConfig) -> DatasetConfig:
    """The dataset, with the bands that the config chooses.

    Raises:
        ConfigError: no such dataset, split or band; a scaling that is given does not say the numbers of a band.
    """
    dataset = read_dataset(config.dataset)
    if TRAIN not in dataset.splits:
        raise ConfigError('no split "train"', file=dataset.file, field="splits")
    check_task(config, dataset.task, len(dataset.classes))
    if config.data.use_bands is None:
        return dataset
    used = tuple(_band(dataset, band) for band in config.data.use_bands)
    given = _given_scaling(dataset, used) if config.data.scaling == "auto" else None
    return replace(dataset, use_bands=used, scaling=given)


def build(
    config: TrainConfig,
    dataset: DatasetConfig,
    watch: Callable[[str], Watch] = lambda _: unwatched,
    *,
    checked: bool = True,
    past: Past | None = None,
) -> Parts:
    """Reads what is needed of the dataset, and makes the task. watch: of a title, shows how far the reading is.

    checked: looks at the files first as `fpn check` does; of several processes the first one is enough. past: the
    training that goes on; what it found of its images (scaling, class weights) is not found again.

    Raises:
        FPNError: whatever is wrong with files, settings or pretrained weights.
    """
    config = settle_weights(config, None)
    sampling: Sampling = (ObjectSampling if dataset.has_objects else PixelSampling)(config, dataset)
    if past is not None:
        past.check(tuple(dataset.names), sampling.bands, sampling.rules)
    notes = _look(config, dataset, watch("checking the dataset")) if checked else ()
    if past is None:
        method, pretrained = config.data.scaling, bool(config.model.pretrained)
        constants = published_scaling(config.model.backbone) if pretrained else False
        scaling, dtype = find_scaling(dataset, TRAIN, method, pretrained=constants, watch=watch("scaling"))
    else:
        dtype = sampling.plain.dtype
        scaling = past.scaling(config, dataset, dtype)
    weights = _class_weights(config, dataset, watch("class weights"), past)
    task = _task(config, dataset, sampling.bands, scaling, dtype, weights, sampling.rules)
    if isinstance(task.criterion, RegionCriterion):
        task.criterion.anchors = replace(ANCHORS, count=config.loss.anchors)
        task.criterion.proposals = replace(PROPOSALS, count=config.loss.boxes)
        task.criterion.crowds = config.loss.crowds or None
    if config.overfit_batches:
        count = config.overfit_batches * config.batch_size * config.accumulate
        few = First(sampling.fixed(), count), First(sampling.plain, count)
        return Parts(task, dataset, *few, notes, weights_in_words(config))
    train, notes = sampling.augmented(scaling, watch("places of the classes")), (*notes, *sampling.notes)
    return Parts(task, dataset, train, sampling.validation(), notes, weights_in_words(config))


def _look(config: TrainConfig, dataset: DatasetConfig, watch: Watch) -> tuple[str, ...]:
    """The notes of `fpn check` on what the training reads.

    Raises:
        DataError: it would find files that are bad, or nothing to learn from.
    """
    validated = not config.overfit_batches and config.limit_val_batches != 0
    splits = [name for name in (TRAIN, VALIDATE) if name in dataset.splits and (name == TRAIN or validated)]
    report = check(dataset, watch=watch, splits=splits, most=MOST_CHECKED)
    refuse(list(report.problems))
    return report.notes


def _task(
    config: TrainConfig,
    dataset: DatasetConfig,
    bands: tuple[str, ...],
    scaling: Scaling,
    dtype: str,
    weights: list[float] | None,
    rules: dict[str, Any],
) -> Task:
    model = config.model
    torch.manual_seed(config.seed)
    return create_task(
        dataset.task,
        backbone=model.backbone,
        pyramid=model.pyramid,
        head=model.head,
        classes=dataset.names,
        bands=bands,
        pretrained=model.pretrained,
        fusion=model.fusion,
        rgb=None if model.rgb is None else [_input(dataset, bands, band, "model.rgb") for band in model.rgb],
        band_init=_band_init(dataset, bands, model.band_init),
        loss=config.loss.terms,
        label_smoothing=config.loss.label_smoothing,
        deep_supervision=config.loss.deep_supervision,
        class_weights=weights,
        scaling=scaling,
        label_ids=[c.id for c in dataset.classes],
        colors=[c.color for c in dataset.classes],
        ignore_index=dataset.ignore_index,
        dtype=dtype,
        nodata=dataset.nodata,
        file_bands=dataset.bands if set(bands) <= set(dataset.bands) else (),
        source={"trained_with": f"torchfpn {__version__}"},
        rules=rules,
        channels=model.channels,
        head_channels=model.head_channels,
        norm=model.norm,
        smooth=model.smooth,
        dropout=model.dropout,
        **model.options,
    ).to(memory_format=torch.channels_last)


def _given_scaling(dataset: DatasetConfig, used: tuple[Band, ...]) -> Scaling | None:
    """The numbers that dataset.yaml gives, of the bands that the config chooses instead of the dataset's.

    Raises:
        ConfigError: it gives none of one of them.
    """
    given = dataset.scaling
    if given is None:
        return None
    known: Sequence[Band] = dataset.use_bands or dataset.bands or range(1, len(given.offset) + 1)
    if missing := [band for band in used if band not in known]:
        raise ConfigError(
            f"band {missing[0]}, of which dataset.yaml gives no scaling",
            field="data.use_bands",
            allowed="some of " + ", ".join(map(str, known)),
            hint="--data.scaling mean-std finds another one",
        )
    places = [list(known).index(band) for band in used]
    return replace(given, offset=tuple(given.offset[i] for i in places), scale=tuple(given.scale[i] for i in places))


def _class_weights(config: TrainConfig, dataset: DatasetConfig, watch: Watch, past: Past | None) -> list[float] | None:
    wanted = config.loss.class_weights
    if not isinstance(wanted, str):
        return wanted
    found = None if past is None else past.class_weights(wanted)
    return found or class_weights(class_counts(dataset, TRAIN, watch=watch), method=wanted)


def _band_init(
    dataset: DatasetConfig, bands: tuple[str, ...], how: str | dict[str | int, str]
) -> str | dict[str | int, str]:
    if isinstance(how, str):
        return how
    return {_input(dataset, bands, band, "model.band_init"): color for band, color in how.items()}


def _input(dataset: DatasetConfig, bands: tuple[str, ...], band: str | int, field: str) -> str | int:
    """A band of the files by name or number from 1 -> its name, or its place among those the model sees."""
    found = _band(dataset, band, field)
    if isinstance(found, str):
        return found
    known = dataset.use_bands or range(1, len(bands) + 1)
    if found not in known:
        raise ConfigError(f"band {band}", field=field, allowed="one of " + ", ".join(map(str, known)))
    return list(known).index(found)


def _band(dataset: DatasetConfig, band: str | int, field: str = "data.use_bands") -> Band:
    """A band as datasets name them: by its name, where the dataset has names."""
    names = dataset.bands
    if isinstance(band, int):
        if band < 1 or (names and band > len(names)):
            raise ConfigError(f"band {band}", field=field, allowed=f"1 to {len(names) or 'the last'}")
        return names[band - 1] if names else band
    if names and band not in names:
        raise ConfigError(f'there is no band "{band}"', field=field, hint=nearest(band, names))
    return band
