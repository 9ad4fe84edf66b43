"""Train and eval mode of modules that several threads use at the same time."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn


@dataclass
class _Held:
    """A part that blocks of `evaluating` hold in eval mode. training: its mode outside them. threads: one a block."""

    module: nn.Module
    training: bool
    threads: list[int] = field(default_factory=list)


_held: dict[int, _Held] = {}  # by id, which stays a module's own while it is kept here
_changed = threading.Condition()  # guards `_held`; notified when a block of `evaluating` ends


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, `module` and all its parts are in eval mode; afterwards each part has its former mode again.

    Threads may hold one module, or modules that share parts, at the same time: a part leaves eval mode when the last
    block that holds it ends. A part that its own thread puts into train mode meanwhile stays in it.
    """
    parts, thread = list(module.modules()), threading.get_ident()
    with _changed:
        for part in parts:
            _held.setdefault(id(part), _Held(part, part.training)).threads.append(thread)
            part.training = False
    try:
        yield
    finally:
        with _changed:
            for part in parts:
                held = _held[id(part)]
                held.threads.remove(thread)
                if not held.threads:
                    del _held[id(part)]
                    part.training |= held.training  # not train(), which would also change the parts of a part
            _changed.notify_all()


@contextmanager
def changing(module: nn.Module, training: bool) -> Iterator[None]:
    """Inside, the caller may put `module` into another mode: no other thread evaluates it, or its mode stays eval.

    To train it, waits for the blocks of `evaluating` in other threads to end. To evaluate it, waits for nobody: it is
    in eval mode already, and stays in it afterwards.
    """
    parts, thread = list(module.modules()), threading.get_ident()
    with _changed:
        if training:
            _changed.wait_for(lambda: not any(set(_threads(part)) - {thread} for part in parts))
        for part in parts:
            if (held := _held.get(id(part))) is not None and not training:
                held.training = False
        yield


def modes(module: nn.Module) -> list[bool]:
    """Whether each of `module.modules()`, in this order, is in train mode outside `evaluating`."""
    with _changed:
        return [_held[id(p)].training if id(p) in _held else p.training for p in module.modules()]


def restore(module: nn.Module, training: Sequence[bool]) -> None:
    """Sets what `modes` found. Parts that a copy shares with a module in use keep eval mode until its blocks end."""
    with _changed:
        for part, mode in zip(module.modules(), training, strict=True):
            if id(part) not in _held:
                part.training = mode


def _threads(part: nn.Module) -> list[int]:
    held = _held.get(id(part))
    return [] if held is None else held.threads
