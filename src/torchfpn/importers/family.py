"""What an importer declares of a family of checkpoints, and ResNets and EfficientNets recognized by their tensors."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from torchfpn.backbones.lukemelas import SCALES, blocks_and_width
from torchfpn.errors import ConfigError, WeightsError
from torchfpn.recipe import Inputs, Scaling

Tensors = Mapping[str, Tensor]
RATIOS = (0.5, 1.0, 2.0)

# (blocks of each stage, 3 for bottlenecks or 2, width of the first 3x3, its inputs in one group) -> name
RESNETS: dict[tuple[tuple[int, ...], int, int, int], str] = {
    ((2, 2, 2, 2), 2, 64, 64): "resnet18",
    ((3, 4, 6, 3), 2, 64, 64): "resnet34",
    ((2, 2, 2, 2), 3, 64, 64): "resnet26",
    ((3, 4, 6, 3), 3, 64, 64): "resnet50",
    ((3, 4, 23, 3), 3, 64, 64): "resnet101",
    ((3, 8, 36, 3), 3, 64, 64): "resnet152",
    ((3, 4, 6, 3), 3, 128, 4): "resnext50_32x4d",
    ((3, 4, 23, 3), 3, 128, 4): "resnext101_32x4d",
    ((3, 4, 23, 3), 3, 256, 8): "resnext101_32x8d",
    ((3, 4, 23, 3), 3, 512, 16): "resnext101_32x16d",
    ((3, 4, 23, 3), 3, 1024, 32): "resnext101_32x32d",
    ((3, 4, 23, 3), 3, 256, 4): "resnext101_64x4d",
    ((3, 4, 6, 3), 3, 128, 128): "wide_resnet50_2",
    ((3, 4, 23, 3), 3, 128, 128): "wide_resnet101_2",
}


class Anchors(NamedTuple):
    """The anchors of a detector, which its checkpoint does not hold.

    sizes: of each level, finest first, the square roots of areas in pixels. ratios: height over width, on every level.
    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]

    @classmethod
    def given(cls, value: Any) -> "Anchors":
        """(sizes,) or (sizes, ratios) as a caller says them; a size stands for a level that has one.

        Raises:
            ConfigError: anything else.
        """
        try:
            sizes, ratios = (*value, RATIOS)[:2]
            levels = [each if isinstance(each, Sequence) else (each,) for each in sizes]
            made = cls(tuple(tuple(map(float, level)) for level in levels), tuple(map(float, ratios)))
        except (TypeError, ValueError):
            made = cls((), ())
        numbers = [*made.ratios, *(size for level in made.sizes for size in level)]
        if not made.sizes or not all(made.sizes) or not made.ratios or not all(0 < n < 1e6 for n in numbers):
            allowed = "(sizes, ratios): numbers above 0, such as ([32, 64, 128, 256, 512], [0.5, 1, 2])"
            raise ConfigError(f"{value!r}", field="anchors", allowed=allowed)
        return made

    def options(self, per_place: int, levels: int, *, file: str, most_sizes: int | None = None) -> dict[str, Any]:
        """The arguments of `heads.two_stage`. per_place: anchors at each place of a map, as the checkpoint has them.

        most_sizes: of a level, where the order of several differs from ours.

        Raises:
            ConfigError: another number of levels, of anchors at a place, or several sizes.
        """
        counts = {len(own) * len(self.ratios) for own in self.sizes}
        if counts != {per_place} or len(self.sizes) != levels:
            many = " or ".join(map(str, sorted(counts)))
            found = f"{self.words()}: {many} at each place of {len(self.sizes)} levels"
            allowed = f"{per_place} at each place of {levels} levels, as the checkpoint has them"
            hint = "give the sizes and ratios of its training: anchors=(sizes, ratios), --anchors SIZES:RATIOS"
            raise ConfigError(found, file=file, field="anchors", allowed=allowed, hint=hint)
        if most_sizes is not None and max(map(len, self.sizes)) > most_sizes:
            raise ConfigError(self.words(), file=file, field="anchors", allowed="one size on every level")
        return {"anchor_sizes": [list(own) for own in self.sizes], "anchor_ratios": list(self.ratios)}

    def words(self) -> str:
        """For people: "sizes 32, 64, 128, 256, 512, ratios 0.5, 1, 2"."""
        sizes = ", ".join("+".join(f"{size:g}" for size in own) for own in self.sizes)
        return f"sizes {sizes}, ratios {', '.join(f'{ratio:g}' for ratio in self.ratios)}"

    def told(self) -> str:
        """What is said where they were assumed."""
        return f"anchors are not in the checkpoint; assumed: {self.words()}; set others with anchors, --anchors"


class Asked(NamedTuple):
    """What the caller says beside the file, for what keys and shapes leave open."""

    file: str  # for messages
    backbone: str | None = None
    align_corners: bool = False
    variant: str | None = None
    anchors: Anchors | None = None


@dataclass(frozen=True)
class Found:
    """A checkpoint understood.

    model: the recipe's model, as `tasks.storage` builds it. tensors: the file's, under their own names, rearranged
    where the order of channels differs. name_of: the name of one of our tensors -> its name in the file.
    first_convs: our names of the convolutions that take the bands; the last of them takes bands that are added.
    num_classes: None where there is no head. things: of panoptic models, how many of them are things. unread: names (a
    pattern) that the original never computes with. task, rules: of the recipe. classes, label_ids: their names and
    numbers, where the number of classes tells what they are.
    inputs: of the recipe: the values that the network learnt on. folds: channels of the first convolution for each
    band, of networks that take blocks of pixels for channels.
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
    folds: int = 1
    things: int = 0

    def is_unread(self, name: str) -> bool:
        """Whether the original has this tensor without ever using it."""
        return re.fullmatch(self.unread, name) is not None


class Family(NamedTuple):
    """One row of the table of families.

    signs: a pattern that names of this family match and no other's. read: understands the state_dict. variants: what
    the caller may have to say where the file leaves it open. asks: which of "backbone",
    "align_corners" and "anchors" it reads.
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


def resnet_name(tensors: Tensors, stage: str, asked: Asked, *, first: int = 1) -> str:
    """The name, common to timm and torchvision. stage: the names of the four stages, as a format of k = 1..4.

    first: k of the first stage, where it is another.

    Raises:
        WeightsError: blocks that no known ResNet has; they are told.
    """
    blocks, convs, width, inputs = resnet_shape(tensors, stage, asked, first=first)
    name = RESNETS.get((blocks, convs, width, inputs))
    if name is None:
        kind = "bottlenecks" if convs == 3 else "basic blocks"
        raise WeightsError(
            f"{list(blocks)} {kind} of width {width}, {inputs} inputs a group",
            file=asked.file,
            field=stage.format(first),
            allowed=" | ".join(RESNETS.values()),
        )
    return name


def resnet_shape(
    tensors: Tensors, stage: str, asked: Asked, *, first: int = 1
) -> tuple[tuple[int, ...], int, int, int]:
    """(blocks of each stage, convolutions of a block, width of its 3x3, its inputs in one group)."""
    escaped = [stage.format(k).replace(".", r"\.") for k in range(first, first + 4)]
    blocks = tuple(len(numbers(tensors, rf"{name}\.(\d+)\.")) for name in escaped)
    block = stage.format(first) + ".0."
    convs = 3 if f"{block}conv3.weight" in tensors else 2
    width, inputs, *_ = shape(tensors, f"{block}{'conv2' if convs == 3 else 'conv1'}.weight", asked)
    return blocks, convs, width, inputs


def efficientnet_name(tensors: Tensors, prefix: str, asked: Asked) -> str:
    """efficientnet_b0 to b8; prefix: what stands before `_blocks` in the names.

    Raises:
        WeightsError: depth and width of none of them.
    """
    depth = len(numbers(tensors, re.escape(prefix) + r"_blocks\.(\d+)\."))
    head = f"{prefix}_conv_head.weight"
    width = shape(tensors, head, asked)[0]
    for name in SCALES:
        if blocks_and_width(name) == (depth, width):
            return name
    raise WeightsError(
        f"{depth} blocks, {width} channels at the end", file=asked.file, field=head, allowed=" | ".join(SCALES)
    )
