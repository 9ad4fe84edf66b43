"""Does a checkpoint go with the training that is to go on from it? Said in one line where it does not."""

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor

from torchfpn.backbones.fusion import StageFusion
from torchfpn.errors import WeightsError
from torchfpn.recipe import Recipe
from torchfpn.tasks.model import create_model
from torchfpn.tasks.storage import fill
from torchfpn.tasks.task import Task
from torchfpn.train.checkpoints import SCHEMA, STATE

PREFIX = "task.model."  # of the model's tensors in a checkpoint
LEARNT = "task.criterion."  # of what the criterion learns: the classifiers of deep supervision


def model_tensors(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of the model as they were in the training, not averaged."""
    return {n.removeprefix(PREFIX): t for n, t in checkpoint["state_dict"].items() if n.startswith(PREFIX)}


def kept_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights a model file gets: the averages where there are any."""
    ema = checkpoint[STATE]["ema"]
    return model_tensors(checkpoint) | (ema["averages"] if ema is not None else {})


def check_fit(checkpoint: dict[str, Any], task: Task, file: Path) -> None:
    """Passes a checkpoint of a training of this very `task`.

    Raises:
        WeightsError: another version, other classes or bands, another architecture, or other tensors, of which the
            first five are named.
    """
    state = checkpoint[STATE]
    if state["schema"] > SCHEMA:
        raise WeightsError(f"schema {state['schema']}", file=file, allowed=f"up to {SCHEMA}", hint="upgrade torchfpn")
    recipe = Recipe.from_json(state["recipe"], file=str(file))
    fill(task.model, model_tensors(checkpoint), file=file)
    for name in ("classes", "bands"):
        was, now = getattr(recipe, name), getattr(task.recipe, name)
        if was != now:
            raise WeightsError(", ".join(was), file=file, field=name, allowed=f"those of the config: {', '.join(now)}")
    before, after = _architecture(recipe, task), _architecture(task.recipe, task)
    for name in sorted(before.keys() | after.keys()):  # strides, bands, dilation: what no tensor tells
        was, now = before.get(name), after.get(name)
        if was != now:
            raise WeightsError(f"{was}", file=file, field=name, allowed=f"that of the config: {now}")
    had = {n.removeprefix(LEARNT) for n in checkpoint["state_dict"] if n.startswith(LEARNT)}
    if had != set(task.criterion.state_dict()):
        found = f"a training {'with' if had else 'without'} deep supervision"
        raise WeightsError(found, file=file, field="loss.deep_supervision", allowed="the same on resuming, 0 or not")


def changed_data(checkpoint: dict[str, Any], task: Task) -> list[str]:
    """What follows from the data and is not what it was when the checkpoint was written: scaling, pixel type, nodata.

    It is found anew at every start, so it changes with images that are added and with settings of the data.
    """
    recipe = Recipe.from_json(checkpoint[STATE]["recipe"])
    found = []
    was, now = recipe.scaling, task.recipe.scaling
    for name in ("offset", "scale"):
        before, after = getattr(was, name), getattr(now, name)
        if before != after:
            found.append(f"scaling.{name}: {_numbers(after)}, was {_numbers(before)}")
    for name in ("dtype", "nodata", "rules"):
        before, after = repr(getattr(recipe, name)), repr(getattr(task.recipe, name))
        if before != after:  # as text: NaN is NaN
            found.append(f"{name}: {after}, was {before}")
    return found


def _numbers(values: Any) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _architecture(recipe: Recipe, task: Task) -> dict[str, Any]:
    """What a recipe says of the architecture, one way of saying it for all. task: has the tensors it speaks of."""
    parameters = inspect.signature(create_model).parameters.values()
    known = {p.name: p.default for p in parameters if p.default is not p.empty}
    said = {name: value or None if name.endswith("_options") else value for name, value in recipe.model.items()}
    model = {**known, **said}
    if model["strides"] == [4, 8, 16, 32]:
        model["strides"] = None  # as many maps have been found in the checkpoint
    if isinstance(task.model.backbone, StageFusion):
        stages = [int(name.removeprefix("c")) for name, _ in task.model.backbone.main.named_children()]
        model["points"] = sorted(set(model["points"] or stages))
    del model["dropout"]  # of the training
    return {name: list(value) if isinstance(value, tuple) else value for name, value in model.items()}


def explain_restore(error: ValueError, file: Path | None) -> WeightsError | None:
    """What to tell when the optimiser's state could not be restored; None for any other error."""
    if file is None or "parameter group" not in str(error):
        return None
    return WeightsError(
        "the optimiser's state is of other parameter groups",
        file=file,
        hint="leave --freeze and --optimizer as they were",
    )
