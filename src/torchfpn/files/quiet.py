"""Silencing a warning around one call, also where several threads do so at once."""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator

_filters = threading.Lock()  # warnings.catch_warnings changes a global list


def _renew() -> None:
    """A child must not inherit the lock held."""
    global _filters
    _filters = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextlib.contextmanager
def quiet(category: type[Warning]) -> Iterator[None]:
    """Nothing is said about `category` inside. One thread at a time: keep it to short calls."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield
