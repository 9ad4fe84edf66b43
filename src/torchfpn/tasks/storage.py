"""A task as one .safetensors file: the tensors of the model, and the recipe in the metadata. Nothing is unpickled."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.errors import ConfigError, WeightsError, amount
from torchfpn.io.atomic import sweep
from torchfpn.io.model_files import recipe_of
from torchfpn.io.weights import check_finite, read_tensors, write_tensors
from torchfpn.nn.layers import shapes_only
from torchfpn.nn.receptive_field import reach
from torchfpn.recipe import Recipe, is_measures
from torchfpn.tasks.model import check_arguments, create_model
from torchfpn.tasks.pytorch_fpn import original

LONGEST = 500  # characters of what another library says of a model that it cannot build

IMPOSSIBLE = (  # what building a model raises of arguments that do not go together, by Python, torch and timm
    ConfigError, TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, AssertionError,
    RuntimeError, MemoryError,
)  # fmt: skip

HALVES = (torch.bfloat16, torch.float16)
LEVELLED = ("backbone", "pyramid")  # parts whose maps are told
REACHES: dict[str, int | None] = {}  # by architecture
FEATURES = "features"  # a recipe's task where the file holds backbone and pyramid and no head


def save_model(model: nn.Module, recipe: Recipe, path: str | Path) -> None:
    """Writes weights and recipe to `path`, whole or not at all; the same model always makes the same bytes.

    Raises:
        WeightsError: weights with NaN in them, or a folder that is not there.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise WeightsError("no such folder", file=path.parent)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if not _by_hand(recipe):  # `load` builds it in float32, which holds every value of half precision
        tensors = {name: t.float() if t.dtype in HALVES else t for name, t in tensors.items()}
    check_finite(tensors, file=path)
    sweep(path.parent)  # what a killed writer left
    write_tensors(path, tensors, replace(recipe, measures=_known_measures(model, recipe)).to_json())


def _known_measures(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """What `measured` finds; nothing of a model built by hand that cannot be measured, or says what cannot be."""
    found = dict[str, Any]()
    with contextlib.suppress(Exception):  # code of the user: no reason not to save
        found = measured(model, recipe)
    return found if is_measures(found) else {}


def measured(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """What `fpn info` says of an architecture, as plain values: see `Recipe.measures`."""
    pieces: dict[str, Any] = dict(model.named_children())
    multiple: Any = getattr(model, "multiple", None)
    return {
        "parameters": {name: sum(p.numel() for p in piece.parameters()) for name, piece in pieces.items()},
        "levels": {
            name: [[int(n) for n in level] for level in pieces[name].levels] for name in LEVELLED if name in pieces
        },
        "multiple": None if multiple is None else int(multiple),
        "reach": _reach(model, recipe) if recipe.task == "semantic" else None,
    }


def _by_hand(recipe: Recipe) -> bool:
    return any(str(value).startswith("<") for value in recipe.model.values())


def _reach(model: nn.Module, recipe: Recipe) -> int | None:
    """That of the architecture: worked out once a process for each, since a look at large strips takes seconds."""
    if _by_hand(recipe):
        return reach(model, len(recipe.bands))
    key = json.dumps([recipe.model, len(recipe.bands)], sort_keys=True)
    if key not in REACHES:
        REACHES[key] = reach(model, len(recipe.bands))
    return REACHES[key]


def load_model(path: str | Path) -> nn.Sequential:
    """The model alone, in eval mode, of any file of ours; also of one that holds backbone and pyramid and no head.

    Raises:
        WeightsError: as `load`.
    """
    tensors, recipe = read_task_file(path)
    return filled_model(tensors, recipe, path).eval()


def read_task_file(path: str | Path) -> tuple[dict[str, Tensor], Recipe]:
    """Tensors and recipe of a model file.

    Raises:
        WeightsError: see `load`.
    """
    tensors, metadata = read_tensors(path)
    return tensors, recipe_of(metadata, path)


def fill(model: nn.Module, tensors: dict[str, Tensor], *, file: str | Path) -> None:
    """Copies `tensors` into `model`, every one of them and none missing.

    Raises:
        WeightsError: names, shapes or types differ; the first five are named.
    """
    _check_fitting(model, tensors, file)
    model.load_state_dict(tensors)


def _check_fitting(model: nn.Module, tensors: dict[str, Tensor], file: str | Path) -> None:
    """Raises the WeightsError of `fill`."""
    own = model.state_dict()
    wrong = [f"missing {name} {list(own[name].shape)}" for name in own if name not in tensors]
    wrong += [f"unknown {name} {list(tensors[name].shape)}" for name in tensors if name not in own]
    for name in own:
        if name in tensors and (own[name].shape, own[name].dtype) != (tensors[name].shape, tensors[name].dtype):
            wrong.append(f"{name} is {_kind(tensors[name])}, the model's {_kind(own[name])}")
    if wrong:
        shown = "; ".join(wrong[:5])
        raise WeightsError(
            f"{amount(len(wrong), 'tensor does', 'tensors do')} not fit: {shown}",
            file=file,
            hint="another architecture wrote it",
        )


def _read_by(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` without those of the stages behind the last map, which files of torchfpn 0.1.0 hold."""
    backbone: Any = getattr(model, "backbone", None)
    if tensors.keys() <= model.state_dict().keys() or not hasattr(backbone, "unread"):
        return tensors
    unread = {f"backbone.{name}": shape for name, shape in backbone.unread().items()}
    return {name: tensor for name, tensor in tensors.items() if unread.get(name) != tensor.shape}


def build_model(recipe: Recipe) -> nn.Sequential:
    """The architecture that a recipe names, weights as they come."""
    options: dict[str, Any] = dict(recipe.model)
    is_original = options.pop("original", None) is not None  # a graph that create_model's words cannot say
    check_arguments(original if is_original else create_model, options, "model")
    if is_original:
        return original(num_classes=len(recipe.classes), in_channels=len(recipe.bands), **options)
    if recipe.task == FEATURES:
        features: nn.Sequential = create_model(num_classes=1, in_channels=len(recipe.bands), **options)[:-1]
        return features
    if recipe.task == "panoptic":
        options |= {"things": len(recipe.things), "stuff": len(recipe.classes) - len(recipe.things)}
    else:
        options["num_classes"] = len(recipe.classes)
    return create_model(recipe.task, in_channels=len(recipe.bands), **options)


def filled_model(
    tensors: dict[str, Tensor], recipe: Recipe, path: str | Path, model: nn.Sequential | None = None
) -> nn.Sequential:
    """The recipe's model, or the one given, with the weights of a model file.

    Raises:
        WeightsError: a model built by hand that is not given, a recipe that cannot be built, weights that do not fit.
    """
    by_hand = sorted(f"{key} {value}" for key, value in recipe.model.items() if str(value).startswith("<"))
    if model is None and by_hand:
        raise WeightsError(
            f"built by hand: {', '.join(by_hand)}",
            file=path,
            hint="give the architecture: torchfpn.load(path, model=...)",
        )
    try:
        if model is None:
            _check_built(recipe, tensors, path)
            model = build_model(recipe)
    except IMPOSSIBLE as error:
        said = str(error) if str(error) and not isinstance(error, KeyError) else repr(error)
        raise WeightsError(f"the recipe's model cannot be built: {said[:LONGEST]}", file=path) from error
    fill(model, _read_by(model, tensors), file=path)
    return model


def _check_built(recipe: Recipe, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Holds the tensors against the recipe's model before it takes memory, which its numbers could ask without bound.

    Raises:
        WeightsError: as `fill`.
    """
    try:
        with shapes_only():
            model = build_model(recipe)
            fitting = _read_by(model, tensors)
    except RuntimeError as error:
        if "meta" not in str(error):  # a tensor larger than any memory
            raise
        return  # networks that compute with numbers of their own while they are built
    _check_fitting(model, fitting, path)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
