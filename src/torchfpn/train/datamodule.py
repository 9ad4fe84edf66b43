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
from torchfpn.config.settings import AUTO, ModelConfig, TrainConfig
from torchfpn.criteria.panoptic import PanopticCriterion
from torchfpn.criteria.region import ANCHORS, PROPOSALS, RegionCriterion
from torchfpn.data.check import TRAIN, VALIDATE, check
from torchfpn.data.config import Band, DatasetConfig, read_dataset
from torchfpn.data.datasets import ObjectDataset, SemanticDataset
from torchfpn.data.parallel import Watch, unwatched
from torchfpn.data.sampler import Draw
from torchfpn.data.scaling import find_scaling
from torchfpn.data.splits import raise_problems, tile_parts
from torchfpn.data.statistics import class_counts, class_weights
from torchfpn.data.transforms import Augment, ObjectAugment, Resize
from torchfpn.errors import ConfigError, nearest
from torchfpn.recipe import Scaling
from torchfpn.tasks.build import create_task
from torchfpn.tasks.start import Start
from torchfpn.tasks.task import Task
from torchfpn.train.checkpoints import ResumedRun
from torchfpn.types import Size

S = TypeVar("S")
MOST_CHECKED = 1000  # images and windows that are checked before a training


class Subset:
    """The first `count` samples of a dataset."""

    def __init__(self, samples: Any, count: int) -> None:
        self.samples, self.count = samples, min(count, len(samples))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, draw: Draw | int) -> Any:
        return self.samples[draw]


def full_dataset(samples: Any, kind: type[S]) -> S | None:
    """The dataset of a split that a loader reads, with the same indices; None if it is not a `kind`."""
    found = samples.samples if isinstance(samples, Subset) else samples
    return found if isinstance(found, kind) else None


class DataModule(ABC):
    """The splits of a dataset as torch datasets: augmented, whole for validation, or fixed to overfit a few images."""

    def __init__(self, config: TrainConfig, dataset: DatasetConfig) -> None:
        self.config, self.dataset = config, dataset
        self.whole = self._whole(TRAIN, cache=config.data.cache if config.overfit_batches else False)
        self.bands: tuple[str, ...] = self.whole.bands

    def overfit_dataset(self) -> Any:
        """Training images without augmentation, to overfit a few of them."""
        return self.whole

    def validation_dataset(self) -> Any:
        """Whole images of the split "val"; None without that split."""
        return self._whole(VALIDATE, cache=self.config.data.cache) if VALIDATE in self.dataset.splits else None

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each setting that has no effect."""
        return ()

    @property
    @abstractmethod
    def rules(self) -> dict[str, Any]:
        """The rules for the recipe: how images are read and resized."""

    @abstractmethod
    def train_dataset(self, scaling: Scaling, watch: Watch) -> Any:
        """Augmented training images. scaling: of the bands; brightness changes in its units."""

    @abstractmethod
    def _whole(self, split: str, *, cache: bool | str) -> Any:
        """Whole images of a split, not augmented."""

    def _common(self) -> dict[str, Any]:
        """The rules of every task: whether grey images are accepted, and the pattern of tile paths."""
        grey = {"grey_as_color": True} if self.dataset.grey_as_color else {}
        folder = tile_parts(self.dataset.splits[TRAIN].images)
        tiles = self.dataset.tiles or (folder[1] if folder is not None else None)
        return grey if tiles is None else grey | {"tiles": tiles}

    def _augmentation(self, scaling: Scaling) -> dict[str, Any]:
        """The arguments that both kinds of augmentation share."""
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


class SemanticDataModule(DataModule):
    """Semantic segmentation: crops of one size with a label for each pixel."""

    @property
    def rules(self) -> dict[str, Any]:
        """Whether grey images are accepted, and the pattern of tile paths."""
        return self._common()

    @property
    def notes(self) -> tuple[str, ...]:
        """Class-aware crops have no effect where crops are as large as the images."""
        data, size = self.config.data, self.whole.usual_size
        crop = self._crop() or size
        smaller = crop[0] < size[0] or crop[1] < size[1] or data.scale[1] > 1
        if not data.class_aware or smaller or self.whole.scenes:
            return ()
        sizes = f"crops of {crop[1]} x {crop[0]} pixels, a first image of {size[1]} x {size[0]}"
        return (f"data.class_aware does nothing with images no larger than the crops ({sizes}): give a --data.crop",)

    def train_dataset(self, scaling: Scaling, watch: Watch) -> SemanticDataset:
        """Augmented crops."""
        data = self.config.data
        crop = self._crop() or self.whole.usual_size
        augment = Augment(crop=crop, class_aware=data.class_aware, **self._augmentation(scaling))
        return SemanticDataset(self.dataset, TRAIN, augment=augment, cache=data.cache, watch=watch)

    def _whole(self, split: str, *, cache: bool | str) -> SemanticDataset:
        return SemanticDataset(self.dataset, split, cache=cache)


class ObjectDataModule(DataModule):
    """Detection, instance and panoptic segmentation: images of any size, resized, with their objects."""

    @property
    def rules(self) -> dict[str, Any]:
        """The size that images are resized to (of a range the larger end), and the rules of every task."""
        resize, merging = self._resize(), self.config.model.merging
        rules = ({"panoptic": dict(merging)} if merging else {}) | self._common()
        if resize is None:
            return rules
        shorter = None if resize.shorter is None else resize.shorter[1]
        return {"resize": {"shorter": shorter, "longer": resize.longest, "antialias": True}} | rules

    def overfit_dataset(self) -> ObjectDataset:
        """Training images resized as in prediction."""
        return ObjectDataset(self.dataset, TRAIN, resize=self._resize(), cache=self.config.data.cache)

    def train_dataset(self, scaling: Scaling, watch: Watch) -> ObjectDataset:
        """Training images resized, and cropped if `data.crop` is set."""
        data = self.config.data
        augment = ObjectAugment(
            resize=self._resize(),
            crop=self._crop(),
            around=data.class_aware,
            visible=data.visible,
            covering=data.covering,
            **self._augmentation(scaling),
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
class TrainingSetup:
    """The task of a training and its datasets; `validate` is None without a "val" split.

    notes: the notes of `fpn check` on the two splits. weights: the source of the initial weights, in words.
    """

    task: Task
    dataset: DatasetConfig
    train: Any
    validate: Any
    notes: tuple[str, ...] = ()
    weights: str = ""


def resolve_pretrained(config: TrainConfig, before: Path | None) -> TrainConfig:
    """`config` with `model.pretrained: auto` resolved: true if the published weights are on this machine, else false.

    before: the folder of a run that is resumed; its config.yaml has the decision.
    """
    if config.model.pretrained != AUTO:
        return config
    if config.model.weights is not None:
        return replace(config, model=replace(config.model, pretrained=False))
    settled = None if before is None else recorded_setting(before / "config.yaml", "model.pretrained")
    if settled in (None, AUTO):
        published = published_weights(config.model.backbone)
        settled = published is not None and published.file is not None
    return replace(config, model=replace(config.model, pretrained=settled))


def describe_weights(config: TrainConfig) -> str:
    """The source of the initial weights: "random", "ImageNet, from timm/resnet50.a1_in1k", "from weights.pth"."""
    given = config.model.weights or config.model.pretrained
    if isinstance(given, str):
        return f"from {given}"
    return str(published_weights(config.model.backbone) or "published") if given else "random"


def weights_hint(config: TrainConfig) -> str:
    """How to start from other weights than random ones."""
    published = published_weights(config.model.backbone)
    file = "--model.pretrained FILE starts from a file"
    if published is None:
        return file
    return f"{published.name} is not on this machine: --model.pretrained true downloads it, {file}"


def open_dataset(config: TrainConfig) -> DatasetConfig:
    """Reads dataset.yaml and selects the bands of the config.

    Raises:
        ConfigError: no such dataset, split or band; dataset.yaml has no scaling for a selected band.
    """
    dataset = read_dataset(config.dataset)
    if TRAIN not in dataset.splits:
        raise ConfigError('no split "train"', file=dataset.file, field="splits")
    check_task(config, dataset.task, len(dataset.classes))
    if config.data.use_bands is None:
        return dataset
    used = tuple(_band(dataset, band) for band in config.data.use_bands)
    given = _dataset_scaling(dataset, used) if config.data.scaling == "auto" else None
    return replace(dataset, use_bands=used, scaling=given)


def build(
    config: TrainConfig,
    dataset: DatasetConfig,
    watch: Callable[[str], Watch] = lambda _: unwatched,
    *,
    checked: bool = True,
    resumed: ResumedRun | None = None,
) -> TrainingSetup:
    """Computes scaling and class weights of the dataset, and makes its torch datasets and the task.

    Args:
        config: the settings.
        dataset: as `open_dataset` gives it.
        watch: makes a progress display of a title.
        checked: check the files first as `fpn check` does; of several processes only the first one does.
        resumed: a training that is resumed; its scaling and class weights are used.

    Raises:
        FPNError: files, settings or pretrained weights do not fit.
    """
    config = resolve_pretrained(config, None)
    data: DataModule = (ObjectDataModule if dataset.has_objects else SemanticDataModule)(config, dataset)
    if resumed is not None:
        resumed.check(tuple(dataset.names), data.bands, data.rules)
    notes = _check_files(config, dataset, watch("checking the dataset")) if checked else ()
    if resumed is None:
        scaling, dtype = _scaling(config, dataset, data, watch("scaling"))
    else:
        dtype = data.whole.dtype
        scaling = resumed.scaling(config, dataset, dtype)
    weights = _class_weights(config, dataset, watch("class weights"), resumed)
    task = _task(config, dataset, data.bands, scaling, dtype, weights, data.rules)
    if config.model.weights is not None:
        notes = (*notes, "taken over: {taken_over}; new: {new}".format(**task.recipe.source))
    regions = task.criterion.regions if isinstance(task.criterion, PanopticCriterion) else task.criterion
    if isinstance(regions, RegionCriterion):
        regions.anchors = replace(ANCHORS, count=config.loss.anchors)
        regions.proposals = replace(PROPOSALS, count=config.loss.boxes)
        regions.crowds = config.loss.crowds or None
    if config.overfit_batches:
        count = config.overfit_batches * config.batch_size * config.accumulate
        subsets = Subset(data.overfit_dataset(), count), Subset(data.whole, count)
        return TrainingSetup(task, dataset, *subsets, notes, describe_weights(config))
    train, notes = data.train_dataset(scaling, watch("places of the classes")), (*notes, *data.notes)
    return TrainingSetup(task, dataset, train, data.validation_dataset(), notes, describe_weights(config))


def _check_files(config: TrainConfig, dataset: DatasetConfig, watch: Watch) -> tuple[str, ...]:
    """Checks the splits that the training reads as `fpn check` does; returns its notes.

    Raises:
        DataError: files are damaged, or there is nothing to learn from.
    """
    validated = not config.overfit_batches and config.limit_val_batches != 0
    splits = [name for name in (TRAIN, VALIDATE) if name in dataset.splits and (name == TRAIN or validated)]
    report = check(dataset, watch=watch, splits=splits, max_parts=MOST_CHECKED)
    raise_problems(list(report.problems))
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
        **_architecture(model),
        **_class_arguments(config, dataset),
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
    ).to(memory_format=torch.channels_last)


def _architecture(model: ModelConfig) -> dict[str, Any]:
    """The arguments of `create_task` that say what is built; of a model file to begin from, those that are set."""
    names = ("backbone", "pyramid", "head", "channels", "head_channels", "norm", "smooth", "dropout")
    given = {name: getattr(model, name) for name in names}
    if model.weights is None:
        return {**given, **model.options}
    usual = ModelConfig()
    given = {name: value for name, value in given.items() if value != getattr(usual, name)}
    return {"weights": model.weights, **given, **model.options}


def _scaling(config: TrainConfig, dataset: DatasetConfig, data: DataModule, watch: Watch) -> tuple[Scaling, str]:
    """The scaling of the training images, and their pixel type.

    Where neither config nor dataset says which, that of the model file to begin from, if it is for such images.
    """
    model = config.model
    is_open = config.data.scaling == dataset.scaling_method == "auto" and dataset.scaling is None
    if model.weights is not None and is_open:
        own, pixels = Start.read(model.weights, dataset.task).scaling()
        if pixels == data.whole.dtype and len(own.offset) == len(data.bands):
            return own, pixels
    constants = published_scaling(model.backbone) if model.pretrained else False
    return find_scaling(dataset, TRAIN, config.data.scaling, pretrained=constants, watch=watch)


def _class_arguments(config: TrainConfig, dataset: DatasetConfig) -> dict[str, Any]:
    """The classes of the task; of panoptic tasks in their two kinds, with the weights of the two losses."""
    if not dataset.is_panoptic:
        return {"classes": dataset.names}
    weights = {name: getattr(config.loss, name) for name in ("instance_weight", "semantic_weight")}
    return {"things": dataset.things, "stuff": dataset.stuff, **weights}


def _dataset_scaling(dataset: DatasetConfig, used: tuple[Band, ...]) -> Scaling | None:
    """The scaling of dataset.yaml for the bands that the config selects.

    Raises:
        ConfigError: it has none for one of them.
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


def _class_weights(
    config: TrainConfig, dataset: DatasetConfig, watch: Watch, resumed: ResumedRun | None
) -> list[float] | None:
    wanted = config.loss.class_weights
    if not isinstance(wanted, str):
        return wanted
    found = None if resumed is None else resumed.class_weights(wanted)
    return found or class_weights(class_counts(dataset, TRAIN, watch=watch), method=wanted)


def _band_init(
    dataset: DatasetConfig, bands: tuple[str, ...], how: str | dict[str | int, str]
) -> str | dict[str | int, str]:
    if isinstance(how, str):
        return how
    return {_input(dataset, bands, band, "model.band_init"): color for band, color in how.items()}


def _input(dataset: DatasetConfig, bands: tuple[str, ...], band: str | int, field: str) -> str | int:
    """A band of the files, by name or number from 1 -> its name, or its index among the model's bands."""
    found = _band(dataset, band, field)
    if isinstance(found, str):
        return found
    known = dataset.use_bands or range(1, len(bands) + 1)
    if found not in known:
        raise ConfigError(f"band {band}", field=field, allowed="one of " + ", ".join(map(str, known)))
    return list(known).index(found)


def _band(dataset: DatasetConfig, band: str | int, field: str = "data.use_bands") -> Band:
    """A band by its name where the dataset has names, else by its number from 1."""
    names = dataset.bands
    if isinstance(band, int):
        if band < 1 or (names and band > len(names)):
            raise ConfigError(f"band {band}", field=field, allowed=f"1 to {len(names) or 'the last'}")
        return names[band - 1] if names else band
    if names and band not in names:
        raise ConfigError(f'there is no band "{band}"', field=field, hint=nearest(band, names))
    return band
