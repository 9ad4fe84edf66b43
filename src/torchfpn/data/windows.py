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
from torchfpn.files.geo import Window, tile, tiles
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
        return tiles(header.size, (SIDE, SIDE))
    rows = max(1, _AT_ONCE // width)
    step = header.blocks[0]
    tall = max(step, rows // step * step) if step * width <= 4 * _AT_ONCE else rows
    return tiles(header.size, (tall, width))


def tile_count(size: tuple[int, int]) -> int:
    """How many windows `nth_tile` counts."""
    return -(-size[0] // SIDE) * -(-size[1] // SIDE)


def nth_tile(size: tuple[int, int], n: int) -> Window:
    """The window number `n` of a scene that is cut into squares of `SIDE` pixels, without the others."""
    return tile(size, (SIDE, SIDE), *divmod(n, -(-size[1] // SIDE)))


def with_margin(window: Window, size: tuple[int, int]) -> Window:
    """The window with `MARGIN` more pixels on every side, as far as the image goes."""
    return window.padded(MARGIN).clipped(*size)


def only_inside(target: NDArray[np.uint8], seen: Window, core: Window) -> NDArray[np.uint8]:
    """Labels [H, W] of the window `seen`, `IGNORE` outside of the window `core` within it."""
    kept = core.within(seen).slices
    result = np.full_like(target, IGNORE)
    result[kept] = target[kept]
    return result
