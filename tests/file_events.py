"""Operations on files, watched by Python's audit events: to interrupt them, and to let them fail as on a full disk."""

import errno
import os
import sys
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

_watchers = []


def _audit(event, args):
    for watch in _watchers:
        watch(event, args)


@contextmanager
def before_event(act, event="os.rename", pattern="*"):
    """Calls `act(number)` before each `event` (of Python's audit table) whose last path matches `pattern`.

    Numbers count from 0. What `act` raises comes out of the operation.
    """
    if not _watchers:
        sys.addaudithook(_audit)  # cannot be removed
        _watchers.append(lambda *_: None)
    numbers = count()

    def watch(found, args):
        if found == event:
            names = args[:1] if event == "open" else args  # its mode is a word, too
            paths = [arg for arg in names if isinstance(arg, str | bytes | os.PathLike)]
            if paths and Path(os.fsdecode(paths[-1])).match(pattern):
                act(next(numbers))

    _watchers.append(watch)
    try:
        yield
    finally:
        _watchers.remove(watch)


def failing_at(number, error, event="os.rename", pattern="*"):
    """A context in which the operation `number` of a kind raises `error`."""

    def act(found):
        if found == number:
            raise error

    return before_event(act, event, pattern)


def interrupted_before(pattern, number=0):
    """A context in which Ctrl-C comes just before a file of that name stands in its place."""
    return failing_at(number, KeyboardInterrupt(), pattern=pattern)


def full_disk(pattern, number=0):
    """A context in which the disk is full when a file of that name is put in its place."""
    return failing_at(number, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), pattern=pattern)


@contextmanager
def room_for(size):
    """Inside, no file can grow beyond `size` bytes: writing fails as on a full disk, with other words."""
    resource = pytest.importorskip("resource")  # Windows has none
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    caching, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # Python would cache imported modules cut off
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = caching
