"""`convert`: a checkpoint of another project becomes a Task with the same numbers, or backbone and pyramid.

file --read_tensors--> names and tensors --family--> which model --build--> ours --place--> every tensor in its place
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchfpn.backbones.first_conv import COLORS, add_bands, standardises
from torchfpn.criteria.panoptic import INSTANCE_WEIGHT, SEMANTIC_WEIGHT, loss_words
from torchfpn.errors import ConfigError, WeightsError, amount, nearest
from torchfpn.importers.detectron2 import DETECTRON2
from torchfpn.importers.family import Anchors, Asked, Family, Found
from torchfpn.importers.kuangliu import KUANGLIU
from torchfpn.importers.pytorch_fpn import PYTORCH_FPN
from torchfpn.importers.robosat import ROBOSAT
from torchfpn.importers.smp import SMP
from torchfpn.importers.torchvision import TORCHVISION
from torchfpn.io.bands import match_bands
from torchfpn.io.model_files import RECIPE
from torchfpn.io.weights import Weights, check_finite, listed, originals, prefixes, read_weights, state_dict_of
from torchfpn.recipe import Inputs, Recipe, Scaling, default_colors
from torchfpn.tasks.build import assemble
from torchfpn.tasks.panoptic import MERGING
from torchfpn.tasks.storage import FEATURES, build_model
from torchfpn.tasks.task import Task

FAMILIES: tuple[Family, ...] = (PYTORCH_FPN, ROBOSAT, KUANGLIU, SMP, TORCHVISION, DETECTRON2)
SETS = 4  # so many models of one size may a file hold, such as averages and a teacher beside the model itself


def convert(
    path_or_state_dict: str | Path | Mapping[str, Any],
    source: str | None = None,
    backbone: str | None = None,
    align_corners: bool = False,
    bands: int | Sequence[str] | None = None,
    *,
    scaling: Scaling | None = None,
    variant: str | None = None,
    anchors: Sequence[Any] | None = None,
) -> Task | nn.Sequential:
    """The model that a checkpoint of another project holds, in eval mode, with the same outputs.

    path_or_state_dict: .pth, .pt, .ckpt, .safetensors, .pkl of NumPy arrays, or a state_dict. The family is known by
    its names: pytorch-fpn, robosat, kuangliu, segmentation-models-pytorch, torchvision (its detectors on ResNets and
    MobileNetV3), detectron2 (Faster R-CNN, Mask R-CNN, Panoptic FPN); source: its name, where they fit several.
    backbone: the encoder, where names and shapes leave it open (timm's in segmentation-models-pytorch). variant: what
    else a file may leave open: of torchvision "320", the MobileNet for small images, and, of frozen norms, "coco_v1" or
    "backbone" (`torchfpn.importers.torchvision`); of detectron2 "caffe" or "torchvision", how its ResNet was trained
    (`torchfpn.importers.detectron2`). anchors: of a detector, (sizes, ratios), where it was trained with others than
    the usual ones: sizes in pixels of each level, finest first, a number or several; ratios of height to width; a
    checkpoint of torchvision holds neither. align_corners: of kuangliu's enlargement. bands: more bands than the model
    was trained with, their number or all their names; weights of new bands are zero, so that the outputs stay what they
    were. Filters and scaling follow the names red, green and blue, wherever they stand; the bands of a model of another
    number come first, in their order. scaling: raw values to what the network was fed; by default the family's own:
    none for models that take normalised images, ImageNet's constants for robosat and segmentation-models-pytorch, and
    for torchvision, whose images are in 0..1; detectron2's mean. The recipe's `inputs` say which range that is.

    A Task; where the file has no head (kuangliu), the nn.Sequential of backbone and pyramid.

    Raises:
        WeightsError: not a checkpoint, of no known family, or a tensor is missing, left over, or of another shape.
        ConfigError: `backbone` is needed or does not fit, no such variant, impossible bands or bands that do not tell
            red, green and blue, anchors of another number.
    """
    return converted(
        path_or_state_dict,
        source=source,
        backbone=backbone,
        align_corners=align_corners,
        bands=bands,
        scaling=scaling,
        variant=variant,
        anchors=anchors,
    ).made


@dataclass(frozen=True)
class Converted:
    """What `convert` gives, and what can be said of it.

    placed: how many tensors found their place. unread: names of those that the original never computes with either.
    """

    made: Task | nn.Sequential
    recipe: Recipe
    family: str
    about: str
    placed: int
    unread: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def model(self) -> nn.Sequential:
        """The network, with or without a head."""
        return self.made.model if isinstance(self.made, Task) else self.made


def converted(
    path_or_state_dict: str | Path | Mapping[str, Any],
    *,
    source: str | None = None,
    backbone: str | None = None,
    align_corners: bool = False,
    bands: int | Sequence[str] | None = None,
    scaling: Scaling | None = None,
    variant: str | None = None,
    anchors: Sequence[Any] | None = None,
) -> Converted:
    """As `convert`, with the report."""
    weights, file = _read(path_or_state_dict)
    tensors, family, others = _family(weights.tensors, source, file)
    check_finite(tensors, file=file)
    if variant is not None and variant not in family.variants:
        allowed = f"{family.name} has {' | '.join(family.variants) or 'none'}"
        raise ConfigError(f'"{variant}"', field="variant", allowed=allowed, hint=nearest(variant, family.variants))
    for name, given in (("backbone", backbone), ("align_corners", align_corners), ("anchors", anchors)):
        if given not in (None, False) and name not in family.asks:
            raise ConfigError(f"has no effect on {family.name}", file=file, field=name, hint="leave it out")
    own = None if anchors is None else Anchors.given(anchors)
    found = family.read(tensors, Asked(file, backbone, align_corners, variant, own))
    placed_bands = _bands(found, bands, file)
    recipe = _recipe(found, family, placed_bands, scaling, file)
    model = build_model(recipe)
    unread = _place(model, found, placed_bands, file)
    made = model.eval() if recipe.task == FEATURES else assemble(model, recipe).eval()
    placed = len(found.tensors) - len(unread)
    return Converted(made, recipe, family.name, found.about, placed, unread, (*found.notes, *weights.notes, *others))


def _read(given: str | Path | Mapping[str, Any]) -> tuple[Weights, str]:
    """(tensors, what to call them in messages)."""
    if isinstance(given, Mapping):
        return state_dict_of(given, file="state_dict"), "state_dict"
    weights = read_weights(given)
    if RECIPE in weights.metadata:
        raise WeightsError("already a torchfpn model", file=given, hint="torchfpn.load reads it")
    return weights, str(given)


def _family(
    tensors: dict[str, Tensor], source: str | None, file: str
) -> tuple[dict[str, Tensor], Family, tuple[str, ...]]:
    """(the tensors of the model, without what stands before their names; the family; notes).

    Training scripts wrap the model (DataParallel's "module.", Lightning's "model.") and keep other tensors beside it,
    such as constants, states of metrics, or a moving average of the model.

    Raises:
        ConfigError: no such family.
        WeightsError: of no family, or several models.
    """
    known = {family.name: family for family in FAMILIES}
    if source is not None and source not in known:
        raise ConfigError(f'"{source}"', field="source", allowed=" | ".join(known), hint=nearest(source, known))
    candidates = [known[source]] if source else list(FAMILIES)
    scores = [
        (family.score(inner), prefix, family)
        for prefix, _ in prefixes(tensors, -(-len(tensors) // SETS))
        if (inner := _behind(tensors, prefix))
        for family in candidates
    ]
    best, _, family = max(scores, key=lambda row: row[0])
    if best == 0:
        first = next(iter(tensors))
        raise WeightsError(
            f'not of a known family: {amount(len(tensors), "tensor")}, the first is "{first}"',
            file=file,
            allowed=" | ".join(family.name for family in candidates),
            hint="a backbone alone goes to create_model(pretrained=<file>)",
        )
    alike = [prefix for score, prefix, other in scores if score == best and other is family]
    models = [prefix for prefix in originals(alike) if not any(prefix != o and prefix.startswith(o) for o in alike)]
    if len(models) > 1:
        found = f"several models of {family.name}: {listed([prefix + '*' for prefix in models])}"
        raise WeightsError(found, file=file, hint="save the one you mean alone")
    chosen = _behind(tensors, models[0])
    left = [name for name in tensors if not name.startswith(models[0])]
    return chosen, family, (f"left out, beside {models[0]}*: {listed(left)}",) if left else ()


def _behind(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class _Bands(NamedTuple):
    """The bands of the model that is made. places: of the file's own bands among them."""

    names: tuple[str, ...]
    places: tuple[int, ...]

    @property
    def as_they_are(self) -> bool:
        """Whether they are the file's, in its order."""
        return self.places == tuple(range(len(self.names)))


def _bands(found: Found, bands: int | Sequence[str] | None, file: str) -> _Bands:
    """The names of all bands, and which of them the file's are: by the names red, green and blue, else the first ones.

    Raises:
        ConfigError: too few, a name twice, or names that leave open which are red, green and blue.
    """
    own = ["red", "green", "blue"] if found.in_channels == 3 else [f"band{i}" for i in range(found.in_channels)]
    names = list(own) if bands is None else bands
    if isinstance(names, int):
        names = [*own, *(f"band{i}" for i in range(len(own), names))][: max(names, 0)]
    names = list(names)
    if len(names) < len(own) or len(set(names)) != len(names):
        raise ConfigError(f"{bands}", field="bands", file=file, allowed=f"{len(own)} or more, each name once")
    places = match_bands(names, own)
    if places is None and own == list(COLORS):
        some = any(match_bands(names, [color]) for color in own)
        if some or len(names) > len(own):
            raise ConfigError(
                ", ".join(names)[:80],
                field="bands",
                file=file,
                allowed="red, green and blue among them: the model's filters follow these names",
                hint="of a model of three other bands: name these three, and none by a colour",
            )
    places = list(range(len(own))) if places is None else places
    several = len(found.first_convs) > 1 or found.folds > 1  # streams of certain bands, or pixels as channels
    if several and places != list(range(len(own))):
        raise ConfigError(", ".join(names)[:80], field="bands", file=file, allowed=f"{', '.join(own)} first")
    if found.folds > 1 and len(names) != len(own):
        allowed = f"{len(own)}: {found.about} takes blocks of pixels for channels"
        raise ConfigError(f"{len(names)}", field="bands", file=file, allowed=allowed)
    return _Bands(tuple(names), tuple(places))


def _recipe(found: Found, family: Family, bands: _Bands, scaling: Scaling | None, file: str) -> Recipe:
    inputs = found.inputs if scaling in (None, found.scaling) else scaled_inputs(scaling)
    scaling = scaling or found.scaling
    count, given = len(bands.names), len(scaling.offset)
    if given not in (count, found.in_channels):
        raise ConfigError(amount(given, "scale"), field="scaling", allowed=f"one for each of {amount(count, 'band')}")
    if given == found.in_channels and not bands.as_they_are:
        offset, scale = [0.0] * count, [1.0] * count
        for place, own_offset, own_scale in zip(bands.places, scaling.offset, scaling.scale, strict=True):
            offset[place], scale[place] = own_offset, own_scale
        scaling = Scaling(tuple(offset), tuple(scale), scaling.method)
    classes = found.classes or _unnamed(found)
    return Recipe(
        task=FEATURES if found.num_classes is None else found.task,
        model=found.model,
        classes=classes,
        bands=bands.names,
        scaling=scaling,
        label_ids=found.label_ids or tuple(range(len(classes))),
        colors=default_colors(len(classes)),
        source={"family": family.name, "model": found.about, "file": Path(file).name},
        rules=found.rules | ({"panoptic": dict(MERGING)} if found.things else {}),
        inputs=inputs,
        things=classes[: found.things],
        loss=loss_words(INSTANCE_WEIGHT, SEMANTIC_WEIGHT) if found.things else "ce",
    )


def _unnamed(found: Found) -> tuple[str, ...]:
    """Names of the classes of a checkpoint that does not tell them."""
    count = found.num_classes or 0
    if not found.things:
        return tuple(f"class{i}" for i in range(count))
    stuff = tuple(f"stuff{i}" for i in range(count - found.things))
    return (*(f"thing{i}" for i in range(found.things)), *stuff)


def scaled_inputs(scaling: Scaling) -> Inputs | None:
    """The range of images that the caller's `scaling` is for: 8-bit values, where it says "imagenet" or "unit"."""
    return Inputs.eight_bit() if scaling.method in ("imagenet", "unit") else None


def _place(model: nn.Module, found: Found, bands: _Bands, file: str) -> tuple[str, ...]:
    """Fills the model; the names of the tensors that were left out because the original does not read them either.

    Raises:
        WeightsError: a tensor that is missing, left over, or of another shape; the first three are named.
        ConfigError: other bands for a first convolution that cannot compute with filters of zeros.
    """
    own, left = model.state_dict(), dict(found.tensors)
    filled, wrong = {}, []
    first = None if bands.as_they_are else found.first_convs[-1]
    for name, tensor in own.items():
        theirs = found.name_of(name)
        given = left.pop(theirs, None)
        if given is None and name.endswith("num_batches_tracked"):  # unknown before torch 0.4.1
            given = torch.zeros_like(tensor)
        if given is None:
            wrong.append(f'"{theirs}" {list(tensor.shape)} is missing')
            continue
        if name == first:
            given = _spread(given, tensor.shape[1], bands, found)
        if given.shape != tensor.shape:
            wrong.append(f'"{theirs}" is {list(given.shape)}, not {list(tensor.shape)}')
            continue
        filled[name] = given.to(tensor.dtype)
    unread = tuple(name for name in left if found.is_unread(name))
    wrong += [f'"{name}" {list(left[name].shape)} has no place' for name in left if name not in unread]
    if wrong:
        raise WeightsError(
            f"{amount(len(wrong), 'tensor does', 'tensors do')} not fit {found.about}: {'; '.join(wrong[:3])}",
            file=file,
            hint="the file is incomplete, or the model was modified",
        )
    model.load_state_dict(filled)
    if first is not None:
        _answer_as_before(model.get_submodule(first.removesuffix(".weight")), found, bands, file)
    return unread


def _answer_as_before(conv: nn.Module, found: Found, bands: _Bands, file: str) -> None:
    """Of a first convolution that standardises its weights: zeros beside them would change what it makes of them."""
    if not standardises(conv):
        return
    if not add_bands(conv, found.tensors[found.name_of(found.first_convs[-1])].float(), bands.places):
        what = f"{found.about}, which standardises the weights of its first convolution"
        raise ConfigError(f"{len(bands.names)} bands for {what}", file=file, field="bands", allowed="its own")


def _spread(weight: Tensor, channels: int, bands: _Bands, found: Found) -> Tensor:
    """Filters of the file's bands -> filters of all of `channels`, those of added bands zero."""
    places = bands.places if len(found.first_convs) == 1 else tuple(range(weight.shape[1]))
    wide = weight.new_zeros(len(weight), channels, *weight.shape[2:])
    wide[:, list(places)] = weight
    return wide
