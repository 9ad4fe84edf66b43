"""Forward passes of models, watched by torch's own hooks: to count, to record, and to interrupt.

A test that stops a prediction or a training at a pass needs no name inside torchfpn for that.
"""

from contextlib import contextmanager
from itertools import count

from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import torchfpn


@contextmanager
def before_pass(act, kind=torchfpn.AnySize):
    """Calls `act(number, module, inputs)` before each forward pass of a module of `kind`; numbers count from 0."""
    numbers = count()
    handle = register_module_forward_pre_hook(lambda m, x: act(next(numbers), m, x) if isinstance(m, kind) else None)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def after_pass(act, kind=torchfpn.AnySize):
    """Calls `act(number, inputs, output)` after each forward pass of a module of `kind`."""
    numbers = count()
    handle = register_module_forward_hook(lambda m, x, y: act(next(numbers), x, y) if isinstance(m, kind) else None)
    try:
        yield
    finally:
        handle.remove()


def interrupted_at(number, error=KeyboardInterrupt):
    """A context in which the forward pass `number` of a model raises `error`, as Ctrl-C does."""

    def stop(found, module, inputs):
        if found == number:
            raise error

    return before_pass(stop)
