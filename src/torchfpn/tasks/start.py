"""A panoptic task that begins from the model file of a detector: its architecture, and every tensor that has a place.

Backbone, pyramid and region head are taken over; of classifiers the rows of classes of the same names. What the file
does not have, such as the semantic branch of a Mask R-CNN, begins anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from torchfpn.errors import ConfigError, WeightsError, amount
from torchfpn.recipe import Recipe, Scaling
from torchfpn.tasks.storage import read_task_file

STARTS = ("panoptic",)  # tasks that begin from a file
SOURCES = ("detection", "instance", "panoptic")  # tasks of such files
OF_SEMANTIC = ("head", "head_channels", "norm", "dropout", "align_corners", "semantic_classes")
OF_TASK = ("backbone", "pyramid", "fusion", "rgb")  # arguments that create_task names itself
REGIONS, SEMANTIC = "head.regions.", "head.semantic."
BY_CLASS = {  # of a region head: tensors with rows for each class -> (rows of a class, rows behind them)
    "box.predict.scores": (1, 1),  # background
    "box.predict.deltas": (4, 0),
    "mask.classify": (1, 0),
}
CLASSIFIERS = ("logits.classify", "logits.classify.conv")  # of a semantic branch


@dataclass(frozen=True)
class Start:
    """A model file that a task begins from."""

    path: Path
    tensors: Mapping[str, Tensor]
    recipe: Recipe

    @classmethod
    def read(cls, path: str | Path, task: str) -> "Start":
        """The file of a detector.

        Raises:
            ConfigError: a task that begins from no such file.
            WeightsError: no model file, or one of another task, or built by hand.
        """
        if task not in STARTS:
            hint = "pretrained=<file> takes the backbone"
            raise ConfigError(f'of task "{task}"', field="weights", allowed=f'task "{" | ".join(STARTS)}"', hint=hint)
        tensors, recipe = read_task_file(path)
        if recipe.task not in SOURCES:
            hint = "pretrained=<file> takes its backbone"
            raise WeightsError(f'a model of task "{recipe.task}"', file=path, allowed=" | ".join(SOURCES), hint=hint)
        if by_hand := [f"{name} {word}" for name, word in recipe.model.items() if str(word).startswith("<")]:
            raise WeightsError(f"built by hand: {', '.join(by_hand)}", file=path, allowed="a model of create_task")
        return cls(Path(path), tensors, recipe)

    @property
    def is_panoptic(self) -> bool:
        """Whether the file has a semantic branch, too."""
        return self.recipe.task == "panoptic"

    def arguments(self, given: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of create_task for the file's architecture, bands and scaling, and the caller's others.

        Args:
            given: the caller's arguments; None, or the default, leaves it to the file.
            options: the caller's arguments of create_model.

        Raises:
            ConfigError: one that the file has otherwise.
        """
        own = {"pyramid": "fpn", "fusion": "none", "rgb": None, **self.recipe.model}
        for name, unsaid in (("backbone", None), ("pyramid", None), ("fusion", "none"), ("rgb", None)):
            if given[name] != unsaid and given[name] != own[name]:
                self._refuse(name, given[name], own[name])
        if given["pretrained"]:
            raise ConfigError(f"{given['pretrained']}", field="pretrained", allowed="none with weights")
        more = self._options(options)
        arguments: dict[str, Any] = {
            **given,
            "bands": self._bands(given["bands"], given["in_channels"]),
            "in_channels": None,
            **{name: own[name] for name in ("backbone", "pyramid", "fusion", "rgb")},
            "head": given["head"] or more.pop("head", None),
            **more,
        }
        if given["scaling"] is None:
            arguments["scaling"], arguments["dtype"] = self.scaling()
        return arguments

    def _refuse(self, name: str, value: Any, own: Any) -> None:
        allowed = f"{_short(own)}, as {self.path.name} has it"
        raise ConfigError(_short(value), field=name, allowed=allowed, hint="leave it out")

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The other arguments of `create_model`: the file's, with the caller's for what the file leaves open.

        Raises:
            ConfigError: a part of the architecture that the file has otherwise.
        """
        options = {name: value for name, value in self.recipe.model.items() if name not in OF_TASK}
        if not self.is_panoptic:
            options = {name: value for name, value in options.items() if name not in OF_SEMANTIC}
            options["head_options"] = {"regions": options.get("head_options") or {}}
        own, asked = options.pop("head_options", None) or {}, dict(given.get("head_options") or {})
        for branch, more in asked.items():  # what is no table is refused by create_model
            own = {**own, branch: {**own.get(branch, {}), **more} if isinstance(more, Mapping) else more}
        for name, value in given.items():
            if name in options and value != options[name]:
                self._refuse(name, value, options[name])
        return {**options, **given, "head_options": own}

    def _bands(self, names: Sequence[str] | None, count: int | None) -> tuple[str, ...]:
        """The bands of the task: the caller's names, if the file has as many.

        Raises:
            ConfigError: another number, or a band that the file has at another place.
        """
        own = self.recipe.bands
        wanted = len(names) if names is not None else count
        hint = f"the bands of {self.path.name}: {', '.join(own)}; fpn convert --bands adds bands to a checkpoint"
        if wanted not in (None, len(own)):
            raise ConfigError(f"{wanted}", field="bands", allowed=f"{len(own)}", hint=hint)
        for place, name in enumerate(names or ()):
            if name in own and own.index(name) != place:
                raise ConfigError(f"{name} at place {place + 1}", field="bands", allowed="the file's order", hint=hint)
        return own if names is None else tuple(names)

    def scaling(self) -> tuple[Scaling, str]:
        """(raw values to what the network learnt on, the pixel type of these values).

        Of a converted network that learnt on another range than files have, that of 8-bit files.
        """
        scaling, inputs = self.recipe.scaling, self.recipe.inputs
        if inputs is None or "uint8" not in inputs.divisors:
            return scaling, self.recipe.dtype
        by = inputs.divisors["uint8"]
        offset, scale = (tuple(by * number for number in numbers) for numbers in (scaling.offset, scaling.scale))
        return Scaling(offset, scale, scaling.method), "uint8"

    def fill(self, model: nn.Module, classes: Sequence[str], things: int) -> dict[str, str]:
        """Copies into a panoptic model all that has a place there.

        Args:
            model: of the architecture that the file tells.
            classes: names of the model's classes, things first.
            things: how many of them are things.

        Returns:
            What is said of it, for the source of a recipe: "started_from", "taken_over", "new".

        Raises:
            WeightsError: a tensor of another shape; the first three are named.
        """
        rows = _Rows(self.recipe, tuple(classes), things)
        filled, fresh, wrong = {}, [], []
        for name, own in model.state_dict().items():
            theirs = self.tensors.get(self._their_name(name))
            blocks = rows.of(name) if self.is_panoptic or not name.startswith(SEMANTIC) else None
            if theirs is None:
                fresh.append(name)
            elif blocks is not None and theirs.shape[1:] == own.shape[1:]:
                filled[name] = _joined(own, theirs, blocks)
            elif theirs.shape != own.shape:
                wrong.append(f"{name} is {list(theirs.shape)}, the model's {list(own.shape)}")
            else:
                filled[name] = theirs
        lost = [name for name in fresh if not name.startswith((SEMANTIC, REGIONS + "mask."))]
        wrong += [f"missing {name}" for name in lost]
        if wrong:
            found = f"{amount(len(wrong), 'tensor does', 'tensors do')} not fit: {'; '.join(wrong[:3])}"
            raise WeightsError(found, file=self.path, hint="leave out the options that change the architecture")
        model.load_state_dict(filled, strict=False)
        return {"started_from": self._words(), **_told(fresh, rows, self.is_panoptic)}

    def _their_name(self, ours: str) -> str:
        return ours if self.is_panoptic else ours.replace(REGIONS, "head.", 1)

    def _words(self) -> str:
        about = self.recipe.source.get("model")
        return f"{self.path.name}, {about or self.recipe.task}"


@dataclass(frozen=True)
class _Rows:
    """Which rows of the classifiers go where, by the names of classes."""

    recipe: Recipe
    classes: tuple[str, ...]
    things: int

    @property
    def _their_things(self) -> tuple[str, ...]:
        return self.recipe.things or self.recipe.classes

    @property
    def kept_things(self) -> list[str]:
        """Things whose rows are in the file."""
        return [name for name in self.classes[: self.things] if name in self._their_things]

    @property
    def kept_stuff(self) -> list[str]:
        """The same of stuff."""
        return [name for name in self.classes[self.things :] if name in self.recipe.classes[len(self.recipe.things) :]]

    def of(self, name: str) -> list[tuple[int, int]] | None:
        """(row of the model, row of the file) of a tensor with rows for classes; None of any other tensor."""
        layer = name.rpartition(".")[0]
        if layer.startswith(REGIONS) and layer.removeprefix(REGIONS) in BY_CLASS:
            wide, behind = BY_CLASS[layer.removeprefix(REGIONS)]
            places = [(self.classes.index(kept), self._their_things.index(kept)) for kept in self.kept_things]
            ours, theirs = self.things, len(self._their_things)
            rows = [(wide * own + i, wide * other + i) for own, other in places for i in range(wide)]
            return rows + [(wide * ours + i, wide * theirs + i) for i in range(behind)]
        if layer.startswith(SEMANTIC) and layer.removeprefix(SEMANTIC) in CLASSIFIERS:
            return self._semantic()
        return None

    def _semantic(self) -> list[tuple[int, int]]:
        """Of the semantic branch, whose first class is all things, or which has each thing."""
        whole = self.recipe.model.get("semantic_classes", "stuff") == "all"
        ours, theirs = (0, 0) if whole else (self.things - 1, len(self.recipe.things) - 1)
        kept = [*(self.kept_things if whole else []), *self.kept_stuff]
        rows = [(self.classes.index(name) - ours, self.recipe.classes.index(name) - theirs) for name in kept]
        return rows if whole else [(0, 0), *rows]


def _joined(own: Tensor, theirs: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    """The model's tensor with rows of the file's."""
    made = own.detach().clone()
    for place, other in rows:
        made[place] = theirs[other]
    return made


def _told(fresh: Sequence[str], rows: _Rows, is_panoptic: bool) -> dict[str, str]:
    """What was taken over and what is new, for people."""
    taken, new = ["backbone", "pyramid", "region head"], []
    if is_panoptic:
        taken.append("semantic branch")
    else:
        new.append("semantic branch")
    if any(name.startswith(REGIONS + "mask.") for name in fresh):
        new.append("mask head")
    kept = [*rows.kept_things, *(rows.kept_stuff if is_panoptic else [])]
    left = [name for name in rows.classes if name not in kept and (is_panoptic or name in rows.classes[: rows.things])]
    taken += [f"classes {', '.join(kept)}"] if kept else []
    new += [f"classes {', '.join(left)}"] if left else []
    return {"taken_over": "; ".join(taken), "new": "; ".join(new) or "nothing"}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
