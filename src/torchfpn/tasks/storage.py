"""A task as one .safetensors file: the model's tensors, and the recipe in the file's metadata. Nothing is unpickled."""

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from torchfpn.errors import WeightsError
from torchfpn.files.atomic import write_bytes
from torchfpn.files.checkpoints import check_finite, read_tensors
from torchfpn.recipe import Recipe
from torchfpn.tasks.build import assemble
from torchfpn.tasks.model import create_model
from torchfpn.tasks.task import Task

RECIPE = "torchfpn"  # the key of the recipe in the file's metadata
METADATA = {RECIPE, "format"}  # "format" is what other tools add, and older versions did


def save(task: Task, path: str | Path) -> None:
    """Writes weights and recipe to `path`, whole or not at all; the same task always makes the same bytes.

    Raises:
        WeightsError: weights with NaN in them, or a folder that is not there.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise WeightsError("no such folder", file=path.parent)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in task.model.state_dict().items()}
    check_finite(tensors, file=path)
    # one key and no more: safetensors writes several in an order that changes
    write_bytes(path, safetensors.torch.save(tensors, metadata={RECIPE: task.recipe.to_json()}))


def load(path: str | Path, *, model: nn.Sequential | None = None) -> Task:
    """The task that `Task.save` wrote, in eval mode. model: the architecture, where it was built by hand.

    Raises:
        WeightsError: another kind of file, another architecture (the first five tensors that differ are named),
            a newer recipe, NaN in the weights.
    """
    tensors, recipe = read_task_file(path)
    model = model or _model(recipe, Path(path))
    fill(model, tensors, file=path)
    return assemble(model, recipe).eval()


def read_recipe(path: str | Path) -> Recipe:
    """The recipe of a model file (its tensors are read and checked on the way)."""
    return read_task_file(path)[1]


def read_task_file(path: str | Path) -> tuple[dict[str, Tensor], Recipe]:
    """Tensors and recipe of a model file.

    Raises:
        WeightsError: see `load`.
    """
    tensors, metadata = read_tensors(path)
    if RECIPE not in metadata:
        raise WeightsError("no recipe in the file", file=path, allowed="a file written by task.save or fpn train")
    if extra := sorted(metadata.keys() - METADATA):
        raise WeightsError(f'metadata "{extra[0]}"', file=path, allowed=" | ".join(sorted(METADATA)))
    return tensors, Recipe.from_json(metadata[RECIPE], file=str(path))


def fill(model: nn.Module, tensors: dict[str, Tensor], *, file: str | Path) -> None:
    """Copies `tensors` into `model`, every one of them and none missing.

    Raises:
        WeightsError: names, shapes or types differ; the first five are named.
    """
    own = model.state_dict()
    wrong = [f"missing {name} {list(own[name].shape)}" for name in own if name not in tensors]
    wrong += [f"unknown {name} {list(tensors[name].shape)}" for name in tensors if name not in own]
    for name in own:
        if name in tensors and (own[name].shape, own[name].dtype) != (tensors[name].shape, tensors[name].dtype):
            wrong.append(f"{name} is {_kind(tensors[name])}, the model's {_kind(own[name])}")
    if wrong:
        shown = "; ".join(wrong[:5])
        raise WeightsError(f"{len(wrong)} tensors do not fit: {shown}", file=file, hint="another architecture wrote it")
    model.load_state_dict(tensors)


def _model(recipe: Recipe, path: Path) -> nn.Sequential:
    by_hand = sorted(f"{key} {value}" for key, value in recipe.model.items() if str(value).startswith("<"))
    if by_hand:
        raise WeightsError(
            f"built by hand: {', '.join(by_hand)}",
            file=path,
            hint="give the architecture: torchfpn.load(path, model=...)",
        )
    options: dict[str, Any] = dict(recipe.model)
    return create_model(recipe.task, num_classes=len(recipe.classes), in_channels=len(recipe.bands), **options)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
