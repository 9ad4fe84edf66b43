"""Wiring without arithmetic: the words from which every architecture is written as one nn.Sequential.

Stages    x            -> (x1, x2, ...)              every intermediate output of a sequence
Parallel  (x1, .. xn)  -> (m1(x1), .. mn(xn))        one module each
Shared    (x1, .. xn)  -> (m(x1), .. m(xn))          one module for all
Fork      x            -> {name: m(x)}               all modules on one input
Pick      (x1, .. xn)  -> xi, or (xi, xj, ..)        some of them
Sum       (x1, .. xn)  -> x1 + .. + xn               on the grid of the first
Concat    (x1, .. xn)  -> [x1 .. xn] along channels  on the grid of the first
chain     named pieces -> one nn.Sequential          which knows the levels it gives
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.errors import ShapeError
from torchfpn.ops.resize import crop
from torchfpn.types import Level, Maps


class Chain(nn.Sequential):
    """An nn.Sequential of named children that gives the levels of its last piece that declares any."""

    def __getitem__(self, index: int | slice) -> Any:
        """A child, or of a slice a Chain of some, whatever the class: those that follow build their own children."""
        if isinstance(index, slice):
            return Chain(OrderedDict(list(self.named_children())[index]))
        return super().__getitem__(index)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Channels and stride of each map given, finest first."""
        for piece in reversed(list(self.children())):
            levels = getattr(piece, "levels", None)
            if levels is not None:
                return tuple(levels)
        raise AttributeError(f"no piece of {type(self).__name__} declares levels")


def chain(**pieces: nn.Module) -> Chain:
    """Named modules in a row: ``chain(conv=..., norm=...)`` prints and saves under those names."""
    return Chain(OrderedDict(pieces))


class Stages(nn.Sequential):
    """x -> (x1, x2, ...): the output of every child, each fed with the one before."""

    def forward(self, x: Tensor) -> Maps:
        """[B, C, H, W] -> maps, in the order of the children."""
        outputs = []
        for stage in self:
            x = stage(x)
            outputs.append(x)
        return tuple(outputs)


class Parallel(nn.ModuleList):
    """(x1, ..., xn) -> (m1(x1), ..., mn(xn)).

    Raises:
        ShapeError: when there are not as many maps as modules.
    """

    def __getitem__(self, index: int | slice) -> Any:
        """A module, or of a slice a Parallel of some, whatever the class."""
        return Parallel(list(self)[index]) if isinstance(index, slice) else super().__getitem__(index)

    def forward(self, xs: Maps) -> tuple[Any, ...]:
        """Maps -> what each module gives, in the same order."""
        if len(xs) != len(self):
            raise ShapeError(
                f"{len(xs)} maps for {len(self)} modules", hint="build the piece from the levels of the one before it"
            )
        return tuple(module(x) for module, x in zip(self, xs, strict=True))


class Shared(nn.Module):
    """(x1, ..., xn) -> (m(x1), ..., m(xn)): one set of weights for every level."""

    def __init__(self, each: nn.Module) -> None:
        super().__init__()
        self.each = each

    def forward(self, xs: Maps) -> tuple[Any, ...]:
        """Maps -> what the one module gives for each."""
        return tuple(self.each(x) for x in xs)


class Fork(nn.ModuleDict):
    """x -> {name: m(x)}; a hint reaches the branch of its own name."""

    def forward(self, x: Any, **hints: dict[str, Any]) -> dict[str, Any]:
        """One input -> the output of each branch by name."""
        return {name: module(x, **hints.get(name, {})) for name, module in self.items()}


class Pick(nn.Module):
    """(x1, ..., xn) -> one of them for an int, a tuple of some for a sequence of ints."""

    def __init__(self, index: int | Iterable[int]) -> None:
        super().__init__()
        self.index = index if isinstance(index, int) else tuple(index)

    def forward(self, xs: Maps) -> Tensor | Maps:
        """Maps -> the picked map, or maps."""
        return xs[self.index] if isinstance(self.index, int) else tuple(xs[i] for i in self.index)

    def extra_repr(self) -> str:
        """Which."""
        return str(self.index)


class Sum(nn.Module):
    """(x1, ..., xn) -> x1 + ... + xn, each cropped at the right and the bottom to the size of the first.

    Maps enlarged by a power of two can exceed the finest one by a few cells when sizes are odd: 75 -> 38 -> 76.
    """

    def forward(self, xs: Maps) -> Tensor:
        """Maps of one width -> their sum [B, C, H, W] on the grid of the first."""
        size = xs[0].shape[-2:]
        if len(xs) == 1:
            return xs[0]
        total = xs[0] + crop(xs[1], size)
        for x in xs[2:]:
            total += crop(x, size)
        return total


class Concat(nn.Module):
    """(x1, ..., xn) -> all channels in one map, each cropped as in `Sum`."""

    def forward(self, xs: Maps) -> Tensor:
        """Maps -> [B, C1 + ... + Cn, H, W] on the grid of the first."""
        size = xs[0].shape[-2:]
        return torch.cat([crop(x, size) for x in xs], dim=1)
