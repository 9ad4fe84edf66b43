"""Every setting of a training, with its default, its range and a line of help, as frozen dataclasses without torch.

`option` makes a field; its metadata feed the help of the command line and the checks of `torchfpn.config.checks`.
"""

# ruff: noqa: RUF009 - `option` is dataclasses.field
from dataclasses import dataclass, field
from typing import Any, Literal

Number = int | float
WIDEST = 65536  # channels
AUTO = "auto"  # of `model.pretrained`
MANY = 65536  # images in a batch, batches in a step


def option(default: Any, text: str, *, least: Number | None = None, most: Number | None = None) -> Any:
    """A dataclass field with a help text and, for numbers, the range both ends of which are allowed."""
    metadata = {"help": text, "least": least, "most": most}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelConfig:
    """The model: arguments of `torchfpn.create_model`."""

    backbone: str = option("resnet50", "any timm model with feature maps, or torchvision/<name>")
    pyramid: str = option("fpn", "fpn, panet, or simple for a plain vision transformer")
    head: str | None = option(
        None, "sum (Panoptic FPN), concat (COCO-Stuff 2017, robosat), finest; of objects two-stage; null: the first"
    )
    fusion: Literal["none", "fusenet", "late"] = option("none", "a second backbone for bands besides red, green, blue")
    rgb: list[str | int] | None = option(
        None, "bands that are red, green, blue; names or numbers from 1; null: by name"
    )
    band_init: str | dict[str | int, str] = option(
        "repeat", "how pretrained weights meet the bands: repeat, mean, copy, zero, or e.g. {nir: red}"
    )
    channels: int = option(256, "channels of every pyramid level", least=1, most=WIDEST)
    head_channels: int = option(128, "channels inside the head", least=1, most=WIDEST)
    norm: Literal["batch", "group"] = option("batch", "normalisation of the head; batch tiles exactly")
    smooth: bool = option(True, "3x3 convolution on every pyramid level")
    merging: dict[str, float] = option(
        {}, "panoptic: thresholds of merging that differ from {score: 0.5, overlap: 0.5, stuff_area: 4096} (pixels)"
    )
    dropout: float = option(0.0, "rate of spatial dropout before the classifier", least=0.0, most=0.9)
    pretrained: bool | str = option(
        AUTO, "auto (published weights that are on this machine, else random), true (downloads them), false, or a file"
    )
    weights: str | None = option(
        None,
        "panoptic: a torchfpn model for detection, instance or panoptic segmentation to begin from, such as a "
        "converted Mask R-CNN; the architecture is its own",
    )
    options: dict[str, Any] = option(
        {},
        "further arguments of create_model, e.g. {strides: [4, 8, 16, 32]}; a later --config adds to "
        "them, this flag replaces them",
    )


@dataclass(frozen=True)
class DataConfig:
    """Input pipeline: size, crops, augmentation, bands, scaling."""

    shorter: tuple[int, int] | int | None = option(
        None, "detection: shorter side after resizing; a range: random in training", least=1
    )
    longest: int | None = option(None, "detection: longest side after resizing", least=1)
    crop: tuple[int, int] | int | None = option(
        None, "height, width of training crops; null: size of the first image (scenes: 512, detection: no crops)"
    )
    scale: tuple[float, float] = option((1.0, 1.0), "range of random scaling, e.g. [0.5, 2.0]", least=0.05)
    hflip: float = option(0.5, "probability of a horizontal flip", least=0.0, most=1.0)
    vflip: float = option(0.0, "probability of a vertical flip", least=0.0, most=1.0)
    rotate: bool = option(False, "rotate by a random multiple of 90 degrees (for images from above)")
    brightness: float = option(0.0, "largest random shift, in units of the band's scale", least=0.0, most=5.0)
    contrast: float = option(0.0, "largest random stretch, 0.2: by e^-0.2 to e^0.2", least=0.0, most=3.0)
    band_brightness: float = option(0.0, "as brightness, drawn for each band by itself", least=0.0, most=5.0)
    band_contrast: float = option(0.0, "as contrast, drawn for each band by itself", least=0.0, most=3.0)
    noise: float = option(0.0, "largest random noise, in units of the band's scale", least=0.0, most=5.0)
    class_aware: float = option(
        0.0,
        "probability that a crop is centred on a randomly drawn class (of objects: on an object of it)",
        least=0.0,
        most=1.0,
    )
    visible: float = option(
        0.1,
        "of objects cut by a crop: lowest visible share of the box to train on it, or ...",
        least=0.0,
        most=1.0,
    )
    covering: float = option(
        0.1,
        "... lowest share of the crop that the visible part covers; other cut objects are ignored",
        least=0.0,
        most=1.0,
    )
    cache: bool | Literal["auto"] = option("auto", "keep decoded images in memory; auto: if they are few")
    use_bands: list[str | int] | None = option(None, "bands to use, names or numbers from 1; null: the dataset's")
    scaling: Literal["auto", "imagenet", "mean-std", "percentile"] = option(
        "auto", "how raw values are normalised; auto: as dataset.yaml says"
    )


@dataclass(frozen=True)
class LossConfig:
    """The loss."""

    terms: str = option("ce", 'sum of losses: "ce", "ce+dice", "ce + 0.5*lovasz", "focal", ...')
    class_weights: str | list[float] | None = option(
        None, "null, a method (median-frequency, sqrt-median-frequency, inverse, enet), or a number per class"
    )
    label_smoothing: float = option(0.0, "share of the target spread over all classes (ce)", least=0.0, most=0.9)
    deep_supervision: float = option(0.0, "factor of the same loss on every level of the pyramid; 0: none", least=0.0)
    anchors: int = option(256, "detection: anchors per image in the loss of the first stage", least=1)
    boxes: int = option(512, "detection: boxes per image in the loss of the second stage", least=1)
    instance_weight: float = option(1.0, "panoptic: factor of the losses of things", least=1e-6, most=1e6)
    semantic_weight: float = option(0.5, "panoptic: factor of the loss of all pixels", least=1e-6, most=1e6)
    crowds: float = option(
        0.7,
        "of objects: boxes with more than this share in a crowd or an ignored object are no background; 0: all are",
        least=0.0,
        most=1.0,
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser."""

    name: Literal["adamw", "sgd"] = option("adamw", "optimiser")
    weight_decay: float = option(0.01, "decay of weights; norms and biases have none", least=0.0)
    momentum: float = option(0.9, "of sgd", least=0.0, most=0.9999)
    betas: tuple[float, float] = option((0.9, 0.999), "of adamw", least=0.0, most=0.99999)
    backbone_lr: float = option(1.0, "learning rate of the backbone, as a factor of lr", least=0.0)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate schedule, per step."""

    name: Literal["poly", "cosine", "constant"] = option("poly", "shape after the warm-up")
    power: float = option(0.9, "exponent of poly", least=0.0)
    warmup: int = option(0, "steps of linear warm-up", least=0)
    min_factor: float = option(0.0, "final learning rate, as a factor of lr", least=0.0, most=1.0)


@dataclass(frozen=True)
class TrainConfig:
    """One training, whole. The first lines are what most people change."""

    dataset: str = option("", "folder with a dataset.yaml, or that file (required)")
    name: str = option("", "name of the run folder; default: the config file's or the dataset's")
    out: str = option("runs", "parent of the run folders")
    max_epochs: int = option(50, "epochs", least=1)
    batch_size: int = option(8, "images per forward pass", least=1, most=MANY)
    lr: float = option(1e-3, "peak learning rate", least=0.0, most=1000.0)
    seed: int = option(0, "random seed", least=0)
    resume: bool | str = option(False, "resume: true (the newest run of this name), a run folder, or a checkpoint")
    overwrite: bool = option(False, "replace the run folder instead of making name-2, name-3, ...")
    devices: int | Literal["auto"] = option("auto", "number of devices, or auto", least=1)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = option("auto", "type of device")
    strategy: str = option("auto", "Lightning's strategy for several devices: ddp, ddp_spawn, ...")
    precision: Literal["auto", "bf16-mixed", "32-true"] = option("auto", "auto: bf16-mixed where the machine has it")
    num_workers: int | Literal["auto"] = option("auto", "data loading processes", least=0, most=256)
    steps_per_epoch: int | None = option(
        None, "steps of a (virtual) epoch; null: one pass over the images, to the nearest whole step", least=1
    )
    accumulate: int = option(
        1, "forward passes per step; a step sees accumulate x batch_size images", least=1, most=MANY
    )
    val_every: int = option(1, "epochs between validations", least=1)
    ema: float = option(0.99, "decay of the averaged weights, warmed up; 0: none", least=0.0, most=0.999999)
    freeze: str = option("none", "none, backbone, stem, or names of modules; their batch-norm statistics too")
    clip_grad: float = option(0.0, "maximum gradient norm; 0: no clipping", least=0.0)
    early_stop: int = option(0, "stop after this many validations without a better mIoU or AP; 0: never", least=0)
    keep: Literal["best", "last"] = option("best", "which weights become model.safetensors")
    auto_batch: bool = option(False, "when the device runs out of memory, halve the batch and continue")
    max_bad_steps: int = option(10, "steps in a row with a NaN loss that are skipped before giving up", least=0)
    limit_train_batches: int | float | None = option(None, "at most this many steps per epoch; 0.5: half", least=0)
    limit_val_batches: int | float | None = option(None, "validate on this many images; 0.5: half", least=0)
    fast_dev_run: bool = option(False, "run one step and one image through every stage, keep nothing")
    overfit_batches: int = option(0, "train and validate on this many batches without augmentation; 0: off", least=0)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


GROUPS: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "loss": LossConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
}
