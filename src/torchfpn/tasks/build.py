"""Tasks by name: `create_task` makes a model with its criterion and recipe; `load` reads one from a file."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import Any

from torch import nn

from torchfpn.backbones import check_words, published_scaling
from torchfpn.backbones.first_conv import COLORS
from torchfpn.backbones.names import Fusion
from torchfpn.criteria.panoptic import (
    INSTANCE_WEIGHT,
    SEMANTIC_WEIGHT,
    PanopticCriterion,
    loss_weights,
    loss_words,
)
from torchfpn.criteria.region import RegionCriterion
from torchfpn.criteria.semantic import DeepSupervision, criterion
from torchfpn.errors import ConfigError, FPNError, WeightsError, amount, nearest
from torchfpn.nn.containers import Fork
from torchfpn.recipe import IGNORE, Recipe, Scaling, default_colors
from torchfpn.tasks.model import TASKS, check_name, check_unused, create_model, declared_levels
from torchfpn.tasks.panoptic import MERGING, PanopticPostprocess, PanopticTask
from torchfpn.tasks.start import Start
from torchfpn.tasks.storage import FEATURES, filled_model, read_task_file
from torchfpn.tasks.task import RegionPostprocess, RegionTask, SemanticPostprocess, Task

log = logging.getLogger(__name__)
CENTRED = "detectron2"  # the rule of masks whose pixels have their centres at halves


def band_options(
    bands: Sequence[str],
    *,
    rgb: Sequence[str | int] | None = None,
    band_init: str | Mapping[Any, str] = "repeat",
    fusion: str = "none",
    named: bool = True,
) -> dict[str, Any]:
    """The arguments `rgb` and `band_init` of `create_model` as positions among `bands`, where they matter.

    rgb: names, or positions from 0; None: the bands called red, green and blue. named: whether the names mean anything;
    of bands that were only counted the first three are red, green and blue.

    Raises:
        ConfigError: a band that is not there, or nothing to tell red, green and blue by.
    """
    check_words(fusion, band_init)
    places = color_places(bands, rgb=rgb, named=named)
    if isinstance(band_init, str):
        if fusion == "none" and band_init in ("repeat", "mean"):
            return {"band_init": band_init}
    else:
        band_init = {_position(bands, band, "band_init"): color for band, color in band_init.items()}
        if fusion == "none" and places is None:  # those that are called by a colour begin as that colour
            own = {i: band.lower() for i, band in enumerate(bands) if named and band.lower() in COLORS}
            return {"rgb": (), "band_init": own | band_init}
    if places is None and named:
        found = f"none given, and no bands red, green, blue among {', '.join(bands)}"
        raise ConfigError(found, field="rgb", hint="name the three: rgb=[name, name, name]")
    return {"rgb": (0, 1, 2) if places is None else places, "band_init": band_init}


def color_places(
    bands: Sequence[str], *, rgb: Sequence[str | int] | None = None, named: bool = True
) -> tuple[int, ...] | None:
    """Which bands are red, green and blue, as positions; None where nothing tells. rgb, named: as of `band_options`.

    Raises:
        ConfigError: a band that is not there, or not three of them (none at all may be said).
    """
    if rgb is not None:
        places = tuple(_position(bands, band, "rgb") for band in rgb)
        if places and not len(places) == len(set(places)) == 3:
            found = f"{list(places)} of {len(bands)} bands"
            raise ConfigError(found, field="rgb", allowed="three different bands: red, green, blue")
        return places
    if not named:
        return (0, 1, 2) if len(bands) >= 3 else None
    lower = [band.lower() for band in bands]
    return tuple(lower.index(color) for color in COLORS) if set(COLORS) <= set(lower) else None


def _position(bands: Sequence[str], band: str | int, field: str) -> int:
    if isinstance(band, str):
        if band in bands:
            return list(bands).index(band)
    elif hasattr(band, "__index__") and 0 <= index(band) < len(bands):  # NumPy's whole numbers, too
        return index(band)
    hint = nearest(band, list(bands)) if isinstance(band, str) else f"positions are 0..{len(bands) - 1}"
    raise ConfigError(f"there is no band {band!r}", field=field, allowed=", ".join(bands), hint=hint)


def create_task(
    task: str = "semantic",
    *,
    backbone: str | nn.Module | None = None,
    pyramid: str | nn.Module | None = None,
    head: str | nn.Module | None = None,
    weights: str | Path | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    things: int | Sequence[str] | None = None,
    stuff: int | Sequence[str] | None = None,
    bands: Sequence[str] | None = None,
    in_channels: int | None = None,
    pretrained: bool | str | Path = False,
    rgb: Sequence[str | int] | None = None,
    band_init: str | Mapping[Any, str] = "repeat",
    fusion: Fusion = "none",
    loss: str = "ce",
    label_smoothing: float = 0.0,
    deep_supervision: float = 0.0,
    class_weights: Sequence[float] | None = None,
    instance_weight: float = INSTANCE_WEIGHT,
    semantic_weight: float = SEMANTIC_WEIGHT,
    scaling: Scaling | None = None,
    label_ids: Sequence[int] = (),
    colors: Sequence[tuple[int, int, int]] = (),
    ignore_index: int = IGNORE,
    dtype: str = "",
    nodata: float | None = None,
    file_bands: Sequence[str] = (),
    source: dict[str, Any] | None = None,
    rules: dict[str, Any] | None = None,
    **model_options: Any,
) -> Task:
    """A model with its criterion, its postprocess and its recipe.

    task: "semantic", "detection", "instance" or "panoptic", see `create_model`. Give `classes` (names) or
    `num_classes`; of "panoptic" `things` and `stuff`, names or numbers, which become the classes in this order; `bands`
    (names) or `in_channels`. weights: of "panoptic", a torchfpn model file for detection, instance or panoptic
    segmentation, such as a converted Mask R-CNN; architecture, bands and scaling are its own, as are the weights of all
    parts that it has, and of classes of the same names; the recipe's `source` says what was taken over and what is new.
    loss: terms and factors, such as "ce", "ce + 0.5*lovasz"; label_smoothing: of its cross-entropy; deep_supervision:
    the factor of the same loss on every level of the pyramid; semantic models alone have these. instance_weight,
    semantic_weight: of the two losses of a panoptic model. rgb: which bands are red, green and blue, by name or
    position from 0, by default those of that name; band_init, fusion: how they and the others meet the pretrained
    weights, see `torchfpn.backbone`. scaling: raw values to network values; by default, with pretrained weights and
    red, green, blue and no other bands, the constants that the backbone's weights learnt with (timm's or torchvision's
    own; ImageNet's where they publish none), none otherwise. file_bands, rules: see `Recipe`; of panoptic models
    {"panoptic": {"stuff_area": 64}} sets thresholds of merging. model_options: the other arguments of `create_model`.

    Raises:
        ConfigError: contradicting or missing arguments; whatever `create_model` raises.
    """
    given = dict(locals())
    check_name("task", task, TASKS)
    if weights is not None:
        return _begun(**given)
    if backbone is None:
        raise ConfigError("nothing", field="backbone", hint="give a name, such as resnet50")
    pyramid = "fpn" if pyramid is None else pyramid
    head = TASKS[task][0] if head is None else head
    names, of_things = _class_names(task, classes, num_classes, things, stuff)
    panoptic = {"things": of_things, "stuff": len(names) - of_things}
    counts: dict[str, Any] = panoptic if of_things else {"num_classes": len(names)}
    loss_factors = {"instance_weight": instance_weight, "semantic_weight": semantic_weight}
    others = bool(label_smoothing or deep_supervision or class_weights is not None)
    loss = _loss_words(task, loss, loss_factors, others=others)
    band_names = _bands(bands, in_channels)
    if isinstance(backbone, nn.Module):
        check_unused(rgb=rgb)
    if scaling is not None and len(scaling.offset) != len(band_names):
        found = amount(len(scaling.offset), "scale")
        raise ConfigError(found, field="scaling", allowed=f"one per band: {len(band_names)}")
    model_options = {name: _plain(value, name) for name, value in model_options.items()}
    named = bands is not None or in_channels in (None, 3)
    places = color_places(band_names, rgb=rgb, named=named) if pretrained else None
    if fusion == "none":
        band_init = _of_colors(band_init, band_names, places)
    of_bands = band_options(band_names, rgb=rgb, band_init=band_init, fusion=fusion, named=named)
    model = create_model(
        task,
        backbone=backbone,
        pyramid=pyramid,
        head=head,
        in_channels=len(band_names),
        pretrained=pretrained,
        fusion=fusion,
        **counts,
        **of_bands,
        **model_options,
    )
    recipe = Recipe(
        task=task,
        model={
            "backbone": _word(backbone),
            "pyramid": _word(pyramid),
            "head": _word(head),
            **({"fusion": fusion, "rgb": list(of_bands["rgb"])} if fusion != "none" else {}),
            **model_options,
        },
        classes=names,
        bands=band_names,
        scaling=_usual_scaling(backbone, len(band_names), places) if scaling is None else scaling,
        label_ids=tuple(int(label) for label in label_ids) or tuple(range(len(names))),
        colors=tuple(colors) or default_colors(len(names)),
        ignore_index=ignore_index,
        dtype=dtype,
        nodata=nodata,
        file_bands=_file_bands(file_bands, band_names),
        loss=loss,
        class_weights=tuple(float(weight) for weight in class_weights) if class_weights is not None else None,
        source=source or {},
        things=names[:of_things],
        rules=_own_rules(task, model, rules or {}),
    )
    made = assemble(model, recipe)
    if label_smoothing:
        made.criterion = criterion(loss, recipe.class_weights, label_smoothing=label_smoothing)
    if deep_supervision:
        levels = declared_levels(model.get_submodule("pyramid"), "pyramid")
        made.criterion = DeepSupervision(made.criterion, levels, len(names), factor=deep_supervision)
    return made


def _begun(task: str, weights: str | Path, model_options: dict[str, Any], **given: Any) -> Task:
    """What `create_task` gives of these arguments, with the architecture and the weights of a model file."""
    start = Start.read(weights, task)
    made = create_task(task, **start.arguments(given, model_options))
    told = start.fill(made.model, made.classes, len(made.recipe.things))
    made.recipe = replace(made.recipe, source=made.recipe.source | told)
    log.info("weights of %s; taken over: %s; new: %s", *told.values())
    return made


def assemble(model: nn.Sequential, recipe: Recipe) -> Task:
    """A model and the recipe that says how to train and read it -> the Task."""
    if recipe.task == "semantic":
        return Task(model, criterion(recipe.loss, recipe.class_weights), SemanticPostprocess(), recipe)
    rule = recipe.rules.get("masks", "torchvision")
    regions = RegionCriterion(aligned=rule == CENTRED)
    if recipe.task != "panoptic":
        return RegionTask(model, regions, RegionPostprocess(rule=rule), recipe)
    told = recipe.model.get("semantic_classes", "stuff")
    split: dict[str, Any] = {"things": len(recipe.things), "semantic_classes": told}
    weights: Any = {f"{term}_weight": weight for term, weight in loss_weights(recipe.loss).items()}
    postprocess = PanopticPostprocess(**split, rule=rule, merging=recipe.rules.get("panoptic", {}))
    return PanopticTask(model, PanopticCriterion(**split, **weights, regions=regions), postprocess, recipe)


def _own_rules(task: str, model: nn.Sequential, rules: dict[str, Any]) -> dict[str, Any]:
    """The rules of a recipe, those that the caller leaves out among them.

    Masks are learnt and laid into images by the centres of pixels, if that is how the head reads its maps.
    """
    head: Any = model[-1]
    pool = getattr(head["regions"] if isinstance(head, Fork) else head, "mask_pool", None)
    own: dict[str, Any] = {}
    if pool is not None:
        own["masks"] = CENTRED if getattr(pool, "aligned", True) else "torchvision"
    merging = {"panoptic": {**MERGING, **rules.get("panoptic", {})}} if task == "panoptic" else {}
    return own | rules | merging


def _class_names(
    task: str,
    classes: Sequence[str] | None,
    num_classes: int | None,
    things: int | Sequence[str] | None,
    stuff: int | Sequence[str] | None,
) -> tuple[tuple[str, ...], int]:
    """(names of all classes, how many of them are things: 0 of other tasks than panoptic).

    Raises:
        ConfigError: none, one twice, or those of another task.
    """
    parts: dict[str, Any] = {"things": things, "stuff": stuff}
    if task != "panoptic":
        if given := next((name for name, part in parts.items() if part is not None), None):
            raise ConfigError(f'of task "{task}"', field=given, allowed='task "panoptic"; others have classes')
        return _names("classes", classes, num_classes, "class"), 0
    for field, wrong in (("classes", classes), ("num_classes", num_classes)):
        if wrong is not None:
            raise ConfigError('of task "panoptic"', field=field, allowed="things and stuff, names or their numbers")
    names = []
    for field, part in parts.items():
        listed, count = (None, part) if hasattr(part, "__index__") else (part, None)
        names.append(_names(field, listed, count, field.removesuffix("s")))
    return _names("things and stuff", names[0] + names[1], None, "class"), len(names[0])


def _loss_words(task: str, loss: str, weights: dict[str, float], *, others: bool) -> str:
    """What the recipe keeps of the loss.

    Args:
        task: the task.
        loss: the terms of a semantic model.
        weights: of the two losses of a panoptic model.
        others: whether other settings of a semantic loss are given.

    Raises:
        ConfigError: settings of another task.
    """
    if task != "semantic" and (loss != "ce" or others):
        raise ConfigError(f"of {task}", field="loss", allowed="as it is: its terms belong to the two stages")
    if task == "panoptic":
        return loss_words(**weights)
    usual = {"instance_weight": INSTANCE_WEIGHT, "semantic_weight": SEMANTIC_WEIGHT}
    if wrong := next((name for name in weights if weights[name] != usual[name]), None):
        raise ConfigError(f'{weights[wrong]} of task "{task}"', field=wrong, allowed='task "panoptic"')
    return loss


def _names(field: str, names: Sequence[str] | None, count: int | None, prefix: str) -> tuple[str, ...]:
    if names is None and count is None:
        raise ConfigError("nothing", field=field, hint=f"give {field} or their number")
    if count is not None and not hasattr(count, "__index__"):
        raise ConfigError(f"{count!r}", field=field, allowed="a whole number of them")
    if names is None:
        names = [f"{prefix}{i}" for i in range(count or 0)]
    if not names or (count is not None and len(names) != count):
        raise ConfigError(
            f"{len(names)} {field}", field=field, allowed="at least one, and as many as their number says"
        )
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise ConfigError(f'"{twice}" twice', field=field, allowed="each name once")
    return tuple(names)


def _bands(bands: Sequence[str] | None, in_channels: int | None) -> tuple[str, ...]:
    if bands is None and in_channels in (None, 3):
        return ("red", "green", "blue")
    return _names("bands", bands, in_channels, "band")


def _file_bands(names: Sequence[str], bands: Sequence[str]) -> tuple[str, ...]:
    """The bands of the training files, if `bands` are among them; others no model file can hold."""
    if names and (len(set(names)) < len(names) or not set(bands) <= set(names)):
        allowed = f"each name once, {', '.join(bands)} among them"
        raise ConfigError(", ".join(names), field="file_bands", allowed=allowed)
    return tuple(names)


def _of_colors(band_init: Any, bands: Sequence[str], places: Sequence[int] | None) -> Any:
    """How the first convolution takes the bands: of red, green and blue alone, each keeps its filter in any order."""
    moved = places and len(bands) == 3 and tuple(places) != (0, 1, 2)
    return "copy" if moved and band_init == "repeat" else band_init


def _usual_scaling(backbone: str | nn.Module, bands: int, places: Sequence[int] | None) -> Scaling:
    """That of the pretrained weights on red, green and blue, which stand at `places`; else no change."""
    return _constants(backbone).placed(places) if places and bands == 3 else Scaling.identity(bands)


def _constants(backbone: str | nn.Module) -> Scaling:
    """What the published weights of a backbone learnt with; of one that is built, ImageNet's."""
    return Scaling.imagenet() if isinstance(backbone, nn.Module) else published_scaling(backbone)


def _word(value: str | nn.Module) -> str:
    """What the recipe keeps of one of the three words: of a module that it must be given again."""
    return f"<{type(value).__name__}>" if isinstance(value, nn.Module) else value


def _plain(value: Any, field: str) -> Any:
    """What the recipe keeps of an argument, and its JSON gives back: numbers, words, and lists and tables of them.

    Raises:
        ConfigError: something else.
    """
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(each, f"{field}.{key}") for key, each in value.items()}
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, Sequence):
        return [_plain(each, field) for each in value]
    allowed = "numbers, words, lists and tables: a model file keeps them"
    raise ConfigError(f"{value!r}", field=field, allowed=allowed, hint="or build the piece and give it")


def load(path: str | Path, *, model: nn.Sequential | None = None) -> Task:
    """The task that `Task.save` wrote, in eval mode. model: the architecture, where it was built by hand.

    Raises:
        WeightsError: another kind of file, another architecture (the first five tensors that differ are named),
            a newer recipe, NaN in the weights, or a damaged file (the damaged tensors are named).
    """
    tensors, recipe = read_task_file(path)
    if recipe.task == FEATURES:
        found = "a backbone and its pyramid, without a head"
        raise WeightsError(found, file=path, hint="torchfpn.load_model gives the two")
    model = filled_model(tensors, recipe, path, model)
    try:
        return assemble(model, recipe).eval()
    except FPNError as error:
        raise WeightsError(f"the recipe's task cannot be built: {error}", file=path) from error
