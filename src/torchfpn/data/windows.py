"""Scenes: images too large to be held, which are read by windows. Which images are, and the windows that cover them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.dataset import Dataset
from torchfpn.data.headers import Header, quick_size, read_header
from torchfpn.data.splits import Pair
from torchfpn.errors import DataError
from torchfpn.files.blocks import BLOCK_BYTES, check_blocks
from torchfpn.files.images import Window
from torchfpn.recipe import IGNORE
from torchfpn.vectors.formats import is_vector

SIDE, MARGIN = 1024, 64  # pixels of a window, and of what is seen around it without being counted
_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf")
_AT_ONCE = SIDE * SIDE  # pixels that are read at a time


class Piece(NamedTuple):
    """An image to be read: whole, or a window of a scene."""

    pair: Pair
    window: Window | None = None


def scene_of(dataset: Dataset, pair: Pair) -> Header | None:
    """The header of an image that is a scene: a TIFF or JPEG 2000 of more than `scene_pixels`, labels that allow it.

    A mask that is no TIFF can only be read whole, and so is its image then. Files that are damaged are no scenes: who
    reads them says so.

    Raises:
        RasterError: too large to be read whole, and stored so that it cannot be read by windows.
    """
    try:
        if pair.image.suffix.lower() not in _SUFFIXES:  # folders may hold 10^5 photographs: none is opened for this
            return None
        size = quick_size(pair.image)
        if size is not None and size[0] * size[1] <= dataset.scene_pixels:
            return None
        header = read_header(dataset, pair.image)
        if header is None or header.pixels <= dataset.scene_pixels:
            return None
        if not _by_windows(dataset, pair):
            return None
    except DataError:
        return None
    if header.block_bytes > BLOCK_BYTES:
        if header.pixels > dataset.max_pixels:
            check_blocks(header.blocks, header.block_bytes, pair.image)
        return None
    return header


def _by_windows(dataset: Dataset, pair: Pair) -> bool:
    """Whether the labels of an image can be read by windows; numbered objects are found in whole images."""
    if pair.label is None or is_vector(pair.label):
        return True
    return not dataset.has_objects and read_header(dataset, pair.label) is not None


def pieces(dataset: Dataset, pairs: Sequence[Pair]) -> list[Piece]:
    """All pixels of all pairs, once each: images whole, scenes by windows that suit the way they are stored.

    Raises:
        RasterError: see `scene_of`.
    """
    found: list[Piece] = []
    for pair in pairs:
        header = scene_of(dataset, pair)
        if header is None:
            found.append(Piece(pair))
        else:
            found += [Piece(pair, window) for window in reading_windows(header)]
    return found


def reading_windows(header: Header) -> list[Window]:
    """Windows of about a million pixels that cover a scene once: squares, or whole rows where it is stored by rows."""
    width = header.size[1]
    if not header.striped or width > _AT_ONCE:
        return tiling(header.size)
    rows = max(1, _AT_ONCE // width)
    step = header.blocks[0]
    return tiling(header.size, (max(step, rows // step * step) if step * width <= 4 * _AT_ONCE else rows, width))


def tiling(size: tuple[int, int], tile: tuple[int, int] = (SIDE, SIDE)) -> list[Window]:
    """Windows that cover every pixel once, row by row; those at the right and the bottom are smaller."""
    (height, width), (tall, wide) = size, tile
    return [
        (row, column, min(tall, height - row), min(wide, width - column))
        for row in range(0, height, tall)
        for column in range(0, width, wide)
    ]


def tile_count(size: tuple[int, int]) -> int:
    """How many windows `tiling` gives."""
    return -(-size[0] // SIDE) * -(-size[1] // SIDE)


def nth_tile(size: tuple[int, int], n: int) -> Window:
    """The window number `n` of `tiling`, without the others."""
    row, column = divmod(n, -(-size[1] // SIDE))
    row, column = row * SIDE, column * SIDE
    return row, column, min(SIDE, size[0] - row), min(SIDE, size[1] - column)


def with_margin(window: Window, size: tuple[int, int]) -> Window:
    """The window with `MARGIN` more pixels on every side, as far as the image goes."""
    row, column, height, width = window
    top, left = max(0, row - MARGIN), max(0, column - MARGIN)
    bottom, right = min(size[0], row + height + MARGIN), min(size[1], column + width + MARGIN)
    return top, left, bottom - top, right - left


def only_inside(target: NDArray[np.uint8], seen: Window, core: Window) -> NDArray[np.uint8]:
    """Labels [H, W] of the window `seen`, `IGNORE` outside of the window `core` within it."""
    top, left = core[0] - seen[0], core[1] - seen[1]
    kept = (slice(top, top + core[2]), slice(left, left + core[3]))
    result = np.full_like(target, IGNORE)
    result[kept] = target[kept]
    return result
