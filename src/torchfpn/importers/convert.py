"""A checkpoint of another project -> a Task with the same numbers, or backbone and pyramid where there is no head.

file --read_tensors--> names and tensors --family--> which model --build--> ours --place--> every tensor in its place
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.errors import ConfigError, WeightsError, amount, nearest
from torchfpn.files.checkpoints import (
    RECIPE,
    Weights,
    check_finite,
    listed,
    originals,
    prefixes,
    read_weights,
    state_dict_of,
)
from torchfpn.importers.detectron2 import DETECTRON2
from torchfpn.importers.family import Anchors, Asked, Family, Found
from torchfpn.importers.kuangliu import KUANGLIU
from torchfpn.importers.pytorch_fpn import PYTORCH_FPN
from torchfpn.importers.robosat import ROBOSAT
from torchfpn.importers.smp import SMP
from torchfpn.importers.torchvision_detectors import TORCHVISION
from torchfpn.recipe import Inputs, Recipe, Scaling, default_colors
from torchfpn.tasks.build import assemble
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
    MobileNetV3), detectron2 (Faster and Mask R-CNN with an FPN); source: its name, where they fit several. backbone:
    the encoder, where names and shapes leave it open (timm's in segmentation-models-pytorch). variant: what else a file
    may leave open: of torchvision "320", the MobileNet for small images; of detectron2 "caffe" or "torchvision", how
    its ResNet was trained (`torchfpn.importers.detectron2`). anchors: of a detector, (sizes, ratios), where it was
    trained with others than the usual ones: sizes in pixels of each level, finest first, a number or several; ratios
    of height to width; a checkpoint of torchvision holds neither. align_corners: of kuangliu's enlargement. bands: more
    bands than the model was trained with, their number or all their names; weights of new bands are zero, so that the
    outputs stay what they were. scaling: raw values to what the network was fed; by default the family's own: none for
    models that take normalised images, ImageNet's constants for robosat and segmentation-models-pytorch, and for
    torchvision, whose images are in 0..1; detectron2's mean. The recipe's `inputs` say which range that is.

    A Task; where the file has no head (kuangliu), the nn.Sequential of backbone and pyramid.

    Raises:
        WeightsError: not a checkpoint, of no known family, or a tensor is missing, left over, or of another shape.
        ConfigError: `backbone` is needed or does not fit, no such variant, impossible bands, anchors of another number.
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
            raise ConfigError(f"says nothing of {family.name}", file=file, field=name, hint="leave it out")
    own = None if anchors is None else Anchors.given(anchors)
    found = family.read(tensors, Asked(file, backbone, align_corners, variant, own))
    names = _band_names(found, bands, file)
    recipe = _recipe(found, family, names, scaling, file)
    model = build_model(recipe)
    unread = _place(model, found, len(names) - found.in_channels, file)
    made = model.eval() if recipe.task == FEATURES else assemble(model, recipe).eval()
    placed = len(found.tensors) - len(unread)
    return Converted(made, recipe, family.name, found.about, placed, unread, (*found.notes, *weights.notes, *others))


def _read(given: str | Path | Mapping[str, Any]) -> tuple[Weights, str]:
    """(tensors, what to call them in messages)."""
    if isinstance(given, Mapping):
        return state_dict_of(given, file="state_dict"), "state_dict"
    weights = read_weights(given)
    if RECIPE in weights.metadata:
        raise WeightsError("a torchfpn model already", file=given, hint="torchfpn.load reads it")
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
            f'of no family that is known here: {amount(len(tensors), "tensor")}, the first is "{first}"',
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


def _band_names(found: Found, bands: int | Sequence[str] | None, file: str) -> tuple[str, ...]:
    own = ["red", "green", "blue"] if found.in_channels == 3 else [f"band{i}" for i in range(found.in_channels)]
    if bands is None:
        return tuple(own)
    names = [*own, *(f"band{i}" for i in range(len(own), bands))] if isinstance(bands, int) else list(bands)
    wanted = bands if isinstance(bands, int) else len(names)
    if wanted < len(own) or len(set(names)) != len(names):
        raise ConfigError(f"{bands}", field="bands", file=file, allowed=f"{len(own)} or more, each name once")
    return tuple(names)


def _recipe(found: Found, family: Family, bands: tuple[str, ...], scaling: Scaling | None, file: str) -> Recipe:
    inputs = found.inputs if scaling in (None, found.scaling) else scaled_inputs(scaling)
    scaling = scaling or found.scaling
    missing = len(bands) - len(scaling.offset)
    if missing < 0 or (missing > 0 and len(scaling.offset) != found.in_channels):
        raise ConfigError(
            amount(len(scaling.offset), "scale"),
            field="scaling",
            allowed=f"one for each of {amount(len(bands), 'band')}",
        )
    if missing:
        wide = (*scaling.offset, *([0.0] * missing)), (*scaling.scale, *([1.0] * missing))
        scaling = Scaling(*wide, scaling.method)
    classes = found.classes or tuple(f"class{i}" for i in range(found.num_classes or 0))
    return Recipe(
        task=FEATURES if found.num_classes is None else found.task,
        model=found.model,
        classes=classes,
        bands=bands,
        scaling=scaling,
        label_ids=found.label_ids or tuple(range(len(classes))),
        colors=default_colors(len(classes)),
        source={"family": family.name, "model": found.about, "file": Path(file).name},
        rules=found.rules,
        inputs=inputs,
    )


def scaled_inputs(scaling: Scaling) -> Inputs | None:
    """The range of images that the caller's `scaling` is for: 8-bit values, where it says "imagenet" or "unit"."""
    return Inputs.eight_bit() if scaling.method in ("imagenet", "unit") else None


def _place(model: nn.Module, found: Found, added: int, file: str) -> tuple[str, ...]:
    """Fills the model; the names of the tensors that were left out because the original does not read them either.

    added: bands that the first convolution takes beyond the file's.

    Raises:
        WeightsError: a tensor that is missing, left over, or of another shape; the first three are named.
    """
    own, left = model.state_dict(), dict(found.tensors)
    filled, wrong = {}, []
    for name, tensor in own.items():
        theirs = found.name_of(name)
        given = left.pop(theirs, None)
        if given is None and name.endswith("num_batches_tracked"):  # unknown before torch 0.4.1
            given = torch.zeros_like(tensor)
        if given is None:
            wrong.append(f'"{theirs}" {list(tensor.shape)} is missing')
            continue
        if added and name == found.first_convs[-1]:
            given = torch.cat([given, given.new_zeros(len(given), added, *given.shape[2:])], dim=1)
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
            hint="the file is incomplete, or of a changed model",
        )
    model.load_state_dict(filled)
    return unread
