"""The same work on many files, a few at a time, the results in the order of the files."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

R = TypeVar("R")

_MOST = 4  # threads: decoders release the interpreter, and every thread holds an image


class Watch(Protocol):
    """Shows how far an iteration is; given the items to pass on and how many there will be."""

    def __call__(self, items: Iterable[Any], total: int) -> Iterable[Any]:
        """The same items."""
        ...


def unwatched(items: Iterable[Any], total: int) -> Iterable[Any]:
    """The same items, nothing shown."""
    return items


def each(function: Callable[[T], R], items: Sequence[T], watch: Watch = unwatched) -> Iterator[R]:
    """`function` of every item, in threads. Results should be small: they may wait for their turn.

    The first error is raised in its turn; what has not begun by then is left undone.
    """
    pool = ThreadPoolExecutor(min(_MOST, os.cpu_count() or 1))
    try:
        yield from watch(pool.map(function, items), len(items))
    finally:
        pool.shutdown(cancel_futures=True)


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced, the first among them."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]
