"""Train and eval mode, which every module has for itself."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn


@dataclass
class _Held:
    """A module that blocks of `evaluating` hold in eval mode. blocks: how many. training: its mode before the first."""

    module: nn.Module
    training: bool
    blocks: int = 0


_held: dict[int, _Held] = {}  # by id, which stays a module's own while it is kept here
_lock = threading.Lock()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, `module` and all its parts are in eval mode; afterwards each part has its former mode again.

    Threads may hold one module, or modules that share parts, at the same time: a part leaves eval mode when the last
    block that holds it ends. A part that somebody puts into train mode meanwhile stays in it.
    """
    parts = list(module.modules())
    with _lock:
        for part in parts:
            _held.setdefault(id(part), _Held(part, part.training)).blocks += 1
        module.eval()
    try:
        yield
    finally:
        with _lock:
            for part in parts:
                held = _held[id(part)]
                held.blocks -= 1
                if not held.blocks:
                    del _held[id(part)]
                    part.training |= held.training  # not train(), which would also change the parts of a part
