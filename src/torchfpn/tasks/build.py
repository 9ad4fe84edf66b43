"""Models and tasks by name: the one place where backbones, pyramids, heads and criteria meet."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from torchfpn.backbones import STRIDES
from torchfpn.backbones import backbone as named_backbone
from torchfpn.criteria.semantic import criterion
from torchfpn.errors import ConfigError, nearest
from torchfpn.heads.semantic import SemanticHead
from torchfpn.nn.any_size import AnySize
from torchfpn.nn.layers import Norm
from torchfpn.postprocess.semantic import SemanticPostprocess
from torchfpn.pyramids.fpn import FPN
from torchfpn.recipe import IGNORE, Recipe, Scaling, default_colors
from torchfpn.tasks.task import Task

PYRAMIDS: dict[str, Callable[..., nn.Module]] = {"fpn": FPN}
TASKS = ("semantic",)


def create_model(
    task: str = "semantic",
    *,
    backbone: str | nn.Module,
    pyramid: str | nn.Module = "fpn",
    head: nn.Module | None = None,
    num_classes: int,
    in_channels: int = 3,
    pretrained: bool | str | Path = False,
    strides: Sequence[int] = STRIDES,
    channels: int = 256,
    smooth: bool = True,
    head_channels: int = 128,
    norm: Norm = "batch",
    dropout: float = 0.0,
    align_corners: bool = False,
    backbone_options: dict[str, Any] | None = None,
) -> AnySize:
    """An nn.Sequential `backbone`, `pyramid`, `head`: normalised images [B, C, H, W] -> logits [B, num_classes, H, W].

    H and W are what was given, from 1 x 1 up. Each of the three words is a name or a module you built: a backbone with
    `.levels`, a pyramid with `.levels`, a head. channels: width of the pyramid; head_channels, norm, dropout,
    align_corners: of the semantic head; smooth: the pyramid's 3x3 convolutions. backbone_options go to the backbone.

    Raises:
        ConfigError: an unknown task, backbone or pyramid (with the nearest names), or a number that cannot be.
        WeightsError: pretrained weights that do not fit or cannot be had.
    """
    if task not in TASKS:
        raise ConfigError(f'"{task}"', field="task", allowed=" | ".join(TASKS), hint=nearest(task, TASKS))
    body = (
        backbone
        if isinstance(backbone, nn.Module)
        else named_backbone(
            backbone, in_channels=in_channels, pretrained=pretrained, strides=strides, **(backbone_options or {})
        )
    )
    levels = _levels(body, "backbone")
    neck = pyramid if isinstance(pyramid, nn.Module) else _pyramid(pyramid)(levels, channels, smooth=smooth)
    if head is None:
        head = SemanticHead(
            _levels(neck, "pyramid"),
            num_classes,
            head_channels,
            norm=norm,
            dropout=dropout,
            align_corners=align_corners,
        )
    return AnySize(multiple=max(level.stride for level in levels), backbone=body, pyramid=neck, head=head)


def create_task(
    task: str = "semantic",
    *,
    backbone: str | nn.Module,
    pyramid: str | nn.Module = "fpn",
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    bands: Sequence[str] | None = None,
    in_channels: int | None = None,
    pretrained: bool | str | Path = False,
    loss: str = "ce",
    class_weights: Sequence[float] | None = None,
    scaling: Scaling | None = None,
    label_ids: Sequence[int] = (),
    colors: Sequence[tuple[int, int, int]] = (),
    ignore_index: int = IGNORE,
    dtype: str = "",
    nodata: float | None = None,
    source: dict[str, Any] | None = None,
    **model_options: Any,
) -> Task:
    """A model with its criterion, its postprocess and its recipe.

    Give `classes` (names) or `num_classes`; `bands` (names) or `in_channels`. loss: terms and factors, such as
    "ce", "ce + 0.5*lovasz". scaling: raw values to network values; by default ImageNet's constants for three bands with
    pretrained weights, none otherwise. model_options: the other arguments of `create_model`.

    Raises:
        ConfigError: contradicting or missing arguments; whatever `create_model` raises.
    """
    names = _names("classes", classes, num_classes, "class")
    band_names = _bands(bands, in_channels)
    model = create_model(
        task,
        backbone=backbone,
        pyramid=pyramid,
        num_classes=len(names),
        in_channels=len(band_names),
        pretrained=pretrained,
        **model_options,
    )
    if scaling is None:
        scaling = Scaling.imagenet() if pretrained and len(band_names) == 3 else Scaling.identity(len(band_names))
    if len(scaling.offset) != len(band_names):
        raise ConfigError(f"{len(scaling.offset)} scales", field="scaling", allowed=f"one per band: {len(band_names)}")
    recipe = Recipe(
        task=task,
        model={
            "backbone": _plain(backbone),
            "pyramid": _plain(pyramid),
            **{k: _plain(v) for k, v in model_options.items()},
        },
        classes=names,
        bands=band_names,
        scaling=scaling,
        label_ids=tuple(label_ids) or tuple(range(len(names))),
        colors=tuple(colors) or default_colors(len(names)),
        ignore_index=ignore_index,
        dtype=dtype,
        nodata=nodata,
        loss=loss,
        class_weights=tuple(class_weights) if class_weights is not None else None,
        source=source or {},
    )
    return assemble(model, recipe)


def assemble(model: nn.Sequential, recipe: Recipe) -> Task:
    """A model and the recipe that says how to train and read it -> the Task."""
    return Task(model, criterion(recipe.loss, recipe.class_weights), SemanticPostprocess(), recipe)


def _levels(piece: nn.Module, field: str) -> Any:
    levels = getattr(piece, "levels", None)
    if not levels:
        raise ConfigError(
            f"{type(piece).__name__} declares no levels", field=field, hint="give it .levels, finest first"
        )
    return levels


def _pyramid(name: str) -> Callable[..., nn.Module]:
    if name not in PYRAMIDS:
        raise ConfigError(f'"{name}"', field="pyramid", allowed=" | ".join(PYRAMIDS), hint=nearest(name, PYRAMIDS))
    return PYRAMIDS[name]


def _names(field: str, names: Sequence[str] | None, count: int | None, prefix: str) -> tuple[str, ...]:
    if names is None and count is None:
        raise ConfigError("nothing", field=field, hint=f"give {field} or their number")
    if names is None:
        names = [f"{prefix}{i}" for i in range(count or 0)]
    if not names or (count is not None and len(names) != count):
        raise ConfigError(
            f"{len(names)} {field}", field=field, allowed="at least one, and as many as their number says"
        )
    return tuple(names)


def _bands(bands: Sequence[str] | None, in_channels: int | None) -> tuple[str, ...]:
    if bands is None and in_channels in (None, 3):
        return ("red", "green", "blue")
    return _names("bands", bands, in_channels, "band")


def _plain(value: Any) -> Any:
    """What the recipe keeps of an argument: plain values as they are, of a module that it must be given again."""
    if isinstance(value, nn.Module):
        return f"<{type(value).__name__}>"
    return list(value) if isinstance(value, tuple) else value
