"""Forward passes of models, watched by torch's own hooks: to count, to record, and to interrupt.

A test that stops a prediction or a training at a pass needs no name inside torchfpn for that.
"""

import os
import signal
from contextlib import contextmanager
from itertools import count

from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import torchfpn


@contextmanager
def before_pass(act, kind=torchfpn.AnySize, training=None):
    """Calls `act(number, module, inputs)` before each forward pass of a module of `kind`; numbers count from 0.

    training: only passes of modules in (True) or out of (False) training mode count; None: all.
    """
    numbers = count()

    def hook(module, inputs):
        if isinstance(module, kind) and training in (None, module.training):
            act(next(numbers), module, inputs)

    handle = register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def after_pass(act, kind=torchfpn.AnySize):
    """Calls `act(number, inputs, output)` after each forward pass of a module of `kind`; what it returns is the output.

    None leaves the output as it is.
    """
    numbers = count()
    handle = register_module_forward_hook(lambda m, x, y: act(next(numbers), x, y) if isinstance(m, kind) else None)
    try:
        yield
    finally:
        handle.remove()


def at_pass(number, do, kind=torchfpn.AnySize, training=None):
    """A context in which `do()` is called before the forward pass `number`."""
    return before_pass(lambda found, *_: do() if found == number else None, kind, training)


def at_step(number, do):
    """A context in which `do()` is called in the step `number` of a training that makes one pass a step."""
    return at_pass(number, do, torchfpn.Task, training=True)


def at_validation(number, do):
    """A context in which `do()` is called before the image `number` that a training validates."""
    return at_pass(number, do, torchfpn.FPN, training=False)


def own_signal(signum=signal.SIGTERM):
    """What sends a signal to this process."""
    return lambda: os.kill(os.getpid(), signum)


def interrupted_at(number, error=KeyboardInterrupt):
    """A context in which the forward pass `number` of a model raises `error`, as Ctrl-C does."""

    def stop():
        raise error

    return at_pass(number, stop)
