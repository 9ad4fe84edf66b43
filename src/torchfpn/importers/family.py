"""What a family of foreign checkpoints has to tell: how to know it, what model it is, and where each tensor goes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from torchfpn.errors import WeightsError
from torchfpn.recipe import Inputs, Scaling

Tensors = Mapping[str, Tensor]


class Asked(NamedTuple):
    """What the caller says beside the file, for what keys and shapes leave open."""

    file: str  # for messages
    backbone: str | None = None
    align_corners: bool = False
    variant: str | None = None


@dataclass(frozen=True)
class Found:
    """A checkpoint understood.

    model: the recipe's model, as `tasks.storage` builds it. tensors: the file's, under their own names, rearranged
    where the order of channels differs. name_of: the name of one of our tensors -> its name in the file.
    first_convs: our names of the convolutions that take the bands; the last of them takes bands that are added.
    num_classes: None where there is no head. unread: names (a pattern) that the original never computes with. task,
    rules: of the recipe. classes, label_ids: their names and numbers, where the number of classes tells what they are.
    inputs: of the recipe: the values that the network learnt on.
    """

    model: dict[str, Any]
    tensors: Tensors
    name_of: Callable[[str], str]
    first_convs: tuple[str, ...]
    in_channels: int
    num_classes: int | None
    scaling: Scaling
    about: str  # for people: "panoptic on resnet18"
    unread: str = r"(?!)"
    notes: tuple[str, ...] = field(default_factory=tuple)
    task: str = "semantic"
    rules: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    label_ids: tuple[int, ...] = ()
    inputs: Inputs | None = None

    def is_unread(self, name: str) -> bool:
        """Whether the original has this tensor without ever using it."""
        return re.fullmatch(self.unread, name) is not None


class Family(NamedTuple):
    """One row of the table of families.

    signs: a pattern that names of this family match and no other's. read: understands the state_dict. variants: what
    the caller may have to say where the file leaves it open. asks: which of "backbone" and "align_corners" it reads.
    """

    name: str
    signs: str
    read: Callable[[Tensors, Asked], Found]
    variants: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()

    def score(self, tensors: Tensors) -> int:
        """How many names carry this family's signs."""
        return sum(re.match(self.signs, name) is not None for name in tensors)


def shape(tensors: Tensors, name: str, asked: Asked, ndim: int = 4) -> tuple[int, ...]:
    """The shape of a tensor that must be there.

    Raises:
        WeightsError: it is not, or has another number of dimensions.
    """
    if name not in tensors:
        raise WeightsError("the tensor is missing", file=asked.file, field=name, hint="the file is incomplete")
    found = tuple(tensors[name].shape)
    if len(found) != ndim:
        raise WeightsError(f"shape {list(found)}", file=asked.file, field=name, allowed=f"{ndim} dimensions")
    return found


def numbers(tensors: Tensors, pattern: str) -> list[int]:
    """The numbers that group 1 of `pattern` takes in the names, sorted, each once."""
    return sorted({int(match[1]) for name in tensors if (match := re.match(pattern, name))})


def renamed(name: str, *table: tuple[str, str]) -> str:
    """`name` after the first row (pattern, replacement) of the table that matches its beginning."""
    for pattern, replacement in table:
        if re.match(pattern, name):
            return re.sub("^" + pattern, replacement, name, count=1)
    return name
