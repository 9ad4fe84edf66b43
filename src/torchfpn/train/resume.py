"""Does a checkpoint go with the training that is to go on from it? Said in one line where it does not."""

import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from torchfpn.backbones.fusion import StageFusion
from torchfpn.config import TrainConfig
from torchfpn.config.read import recorded_setting
from torchfpn.data.dataset import Dataset
from torchfpn.errors import WeightsError
from torchfpn.recipe import Recipe, Scaling
from torchfpn.tasks.model import create_model
from torchfpn.tasks.storage import fill
from torchfpn.tasks.task import Task
from torchfpn.train.checkpoints import SCHEMA, STATE

AS_BEFORE = "resume with what it was trained with, or begin another training with --name"
PREFIX = "task.model."  # of the model's tensors in a checkpoint
LEARNT = "task.criterion."  # of what the criterion learns: the classifiers of deep supervision


class Past(NamedTuple):
    """A training that goes on: its checkpoint, the recipe in that, and how its config.yaml weighs the classes."""

    file: Path
    recipe: Recipe
    weighting: Any = None

    @classmethod
    def of(cls, file: Path, checkpoint: dict[str, Any]) -> "Past":
        """Of a checkpoint in a run folder.

        Raises:
            WeightsError: its recipe cannot be read, or is of a newer version.
        """
        state = checkpoint[STATE]
        if state["schema"] > SCHEMA:
            allowed = f"up to {SCHEMA}"
            raise WeightsError(f"schema {state['schema']}", file=file, allowed=allowed, hint="upgrade torchfpn")
        config = file.absolute().parent.parent / "config.yaml"
        recipe = Recipe.from_json(state["recipe"], file=str(file))
        return cls(file, recipe, recorded_setting(config, "loss.class_weights"))

    def check(self, classes: tuple[str, ...], bands: tuple[str, ...], rules: dict[str, Any]) -> None:
        """Passes a dataset of the same classes and bands, and images that are shown in the same size.

        Raises:
            WeightsError: another one.
        """
        for name, was, now in (("classes", self.recipe.classes, classes), ("bands", self.recipe.bands, bands)):
            if was != now:
                raise WeightsError(", ".join(was), file=self.file, field=name, allowed=_those(", ".join(now)))
        before, after = self.recipe.rules.get("resize"), rules.get("resize")
        if before != after:
            found, allowed = (_resizing(rule) for rule in (before, after))
            raise WeightsError(found, file=self.file, field="resize", allowed=_that(allowed), hint=AS_BEFORE)

    def scaling(self, config: TrainConfig, dataset: Dataset, dtype: str) -> Scaling:
        """That of the checkpoint: found anew, it would move with every image that is added.

        dtype: pixel type of the images.

        Raises:
            WeightsError: config or dataset ask for another one, or the pixels are of another type.
        """
        own = self.recipe.scaling
        method = dataset.scaling_method if config.data.scaling == "auto" else config.data.scaling
        given = dataset.scaling if config.data.scaling == "auto" else None
        if given is not None and (given.offset, given.scale) != (own.offset, own.scale):
            found, allowed = (f"offset {_numbers(s.offset)} and scale {_numbers(s.scale)}" for s in (own, given))
            raise WeightsError(found, file=self.file, field="scaling", allowed=_that(allowed), hint=AS_BEFORE)
        if given is None and method not in ("auto", own.method):
            raise WeightsError(own.method, file=self.file, field="scaling", allowed=_that(method), hint=AS_BEFORE)
        if dtype != self.recipe.dtype and dataset.scaling is None:
            allowed = f"that of the images: {dtype}"
            raise WeightsError(self.recipe.dtype, file=self.file, field="dtype", allowed=allowed, hint=AS_BEFORE)
        return own

    def class_weights(self, method: str) -> list[float] | None:
        """Those of the checkpoint, if it found them by the same method; else None."""
        weights = self.recipe.class_weights
        return None if weights is None or self.weighting != method else list(weights)


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
    past = Past.of(file, checkpoint)
    recipe = past.recipe
    fill(task.model, model_tensors(checkpoint), file=file)
    past.check(task.recipe.classes, task.recipe.bands, task.recipe.rules)
    before, after = _architecture(recipe, task), _architecture(task.recipe, task)
    for name in sorted(before.keys() | after.keys()):  # strides, bands, dilation: what no tensor tells
        was, now = before.get(name), after.get(name)
        if was != now:
            raise WeightsError(f"{was}", file=file, field=name, allowed=_that(f"{now}"))
    had = {n.removeprefix(LEARNT) for n in checkpoint["state_dict"] if n.startswith(LEARNT)}
    if had != set(task.criterion.state_dict()):
        found = f"a training {'with' if had else 'without'} deep supervision"
        raise WeightsError(found, file=file, field="loss.deep_supervision", allowed="the same on resuming, 0 or not")


def changed_data(checkpoint: dict[str, Any], task: Task) -> list[str]:
    """What dataset.yaml says otherwise than when the checkpoint was written, and may: nodata, how tiles are placed."""
    recipe = Recipe.from_json(checkpoint[STATE]["recipe"])
    found = []
    for name in ("nodata", "rules"):
        before, after = (json.dumps(getattr(one, name), sort_keys=True) for one in (recipe, task.recipe))
        if before != after:  # as text: NaN is NaN, and the order of keys is none
            found.append(f"{name}: {after}, was {before}")
    return found


def _resizing(rule: dict[str, Any] | None) -> str:
    """A rule of resizing in words: "antialias True, shorter 80"."""
    return ", ".join(f"{name} {value}" for name, value in sorted((rule or {}).items()) if value is not None) or "none"


def _that(value: str) -> str:
    return f"that of the config: {value}"


def _those(values: str) -> str:
    return f"those of the config: {values}"


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
