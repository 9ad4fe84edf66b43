"""Decoded frames in memory that worker processes share, so that each file is decoded once and not once an epoch."""

import contextlib
import mmap
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.reading import Frame

AUTO_BYTES = 2**30  # a split is kept by itself if it is not larger than this
_WAIT = 5.0  # seconds; a worker killed while it held the lock must not stop the others
_FIELDS = 6  # state, offset, C, H, W, parts beside the image
_MASK, _TARGET = 1, 2
_TAKEN, _STORED = 1, 2
_ALIGN = 64


class FrameCache:
    """Room for the frames of a split, filled as they are first read, in their own pixel type.

    Anonymous shared memory: forked workers fill and read the same pages, /dev/shm (64 MB in many containers) is not
    used, and what is not filled costs nothing. Pickled (spawned workers), it arrives empty and private.
    What does not fit any more is simply not kept. Frames that come out are views: copy before changing.

    Args:
        n: frames. dtype: of their images, from the first one. capacity: bytes.
    """

    def __init__(self, n: int, dtype: np.dtype[Any], band_names: tuple[str, ...], capacity: int) -> None:
        self.n, self.dtype, self.band_names, self.capacity = n, dtype, band_names, capacity
        self._lock = multiprocessing.Lock()
        size = 8 * (1 + n * _FIELDS)
        self._memory = mmap.mmap(-1, size + _ALIGN + capacity)
        table = np.frombuffer(self._memory, np.int64, 1 + n * _FIELDS)
        self._used, self._table = table[:1], table[1:].reshape(n, _FIELDS)
        self._data = np.frombuffer(self._memory, np.uint8)[-(-size // _ALIGN) * _ALIGN :][:capacity]

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameCache, (self.n, self.dtype, self.band_names, self.capacity)

    def get(self, index: int) -> Frame | None:
        """The frame, if it has been put."""
        with self._held() as held:
            if not held or self._table[index, 0] != _STORED:
                return None
        _, offset, c, h, w, parts = (int(v) for v in self._table[index])
        image, offset = self._view(offset, (c, h, w), self.dtype)
        target, offset = self._view(offset, (h, w) if parts & _TARGET else (0, 0), np.dtype(np.uint8))
        valid = self._view(offset, (h, w), np.dtype(np.bool_))[0] if parts & _MASK else None
        return Frame(image, valid, target, self.band_names)

    def put(self, index: int, frame: Frame) -> None:
        """Keeps the frame, if there is room and it is like the others."""
        if frame.image.dtype != self.dtype or frame.band_names != self.band_names:
            return
        parts = [frame.image, frame.target] + ([] if frame.valid is None else [frame.valid])
        size = sum(-(-part.nbytes // _ALIGN) * _ALIGN for part in parts)
        with self._held() as held:
            offset = int(self._used[0])
            if not held or self._table[index, 0] or offset + size > self.capacity:
                return
            self._used[0] = offset + size  # room is taken under the lock, filled without it
            self._table[index, 0] = _TAKEN
        beside = _MASK * (frame.valid is not None) + _TARGET * (frame.target.size > 0)
        self._table[index, 1:] = (offset, *frame.image.shape, beside)
        for part in parts:
            view, offset = self._view(offset, part.shape, part.dtype)
            view[...] = part
        with self._held() as held:  # the lock also orders the writes for the readers of other cores
            self._table[index, 0] = _STORED if held else _TAKEN

    @contextlib.contextmanager
    def _held(self) -> Iterator[bool]:
        held = self._lock.acquire(timeout=_WAIT)
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    def _view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
        size = int(np.prod(shape)) * dtype.itemsize
        view = self._data[offset : offset + size].view(dtype).reshape(shape)
        return view, offset + -(-size // _ALIGN) * _ALIGN


def frame_bytes(frame: Frame) -> int:
    """What the frame takes in memory."""
    return frame.image.nbytes + frame.target.nbytes + (0 if frame.valid is None else frame.valid.nbytes)


def most_memory() -> int:
    """Bytes a cache may take that was asked for outright: four fifths of the machine's memory."""
    if not hasattr(os, "sysconf"):
        return 8 * AUTO_BYTES
    return int(0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
