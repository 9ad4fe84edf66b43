"""Work on many files in threads, results in order, with progress."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

R = TypeVar("R")

_MAX_THREADS = 4  # decoders release the interpreter lock, and every thread holds an image


class Watch(Protocol):
    """Shows the progress of an iteration over `total` items, which it passes on."""

    def __call__(self, items: Iterable[Any], total: int) -> Iterable[Any]:
        """The same items."""
        ...


def unwatched(items: Iterable[Any], total: int) -> Iterable[Any]:
    """Passes the items on without showing progress."""
    return items


def map_threads(function: Callable[[T], R], items: Sequence[T], watch: Watch = unwatched) -> Iterator[R]:
    """Applies `function` to every item in threads and yields the results in order.

    The first error is raised in its turn and cancels the items that have not started. Results should be small, since
    they may wait for their turn.
    """
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    try:
        yield from watch(pool.map(function, items), len(items))
    finally:
        pool.shutdown(cancel_futures=True)


def spread_evenly(items: Sequence[T], max_items: int) -> list[T]:
    """At most `max_items` of the items, evenly spaced, starting with the first."""
    if len(items) <= max_items:
        return list(items)
    return [items[i * len(items) // max_items] for i in range(max_items)]
