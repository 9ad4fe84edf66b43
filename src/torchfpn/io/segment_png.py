"""Segment ids of COCO panoptic annotations as PNG files: an id is R + 256 G + 65536 B, 0 is void."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import DataError, amount
from torchfpn.io.atomic import atomic_path
from torchfpn.io.formats import MAX_PIXELS, format_of
from torchfpn.io.images import deep_png, read_indices

MAX_SEGMENT_ID = 2**24 - 1  # of three bytes

_ALLOWED = "a PNG of 8-bit red, green and blue, which together are the id of a segment"


def read_segment_png(file: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.int32]:
    """The segment ids of a PNG, [H, W].

    Raises:
        DataError: no PNG of 8-bit red, green and blue, damaged, or of more than `max_pixels`.
    """
    kind = format_of(file)
    if kind != "png":
        raise DataError(f"a {kind.upper()}", file=file, allowed=_ALLOWED)
    if deep_png(file):
        raise DataError("a PNG of 16 bits", file=file, allowed=_ALLOWED)
    pixels, _ = read_indices(file, max_pixels)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        count = 1 if pixels.ndim == 2 else pixels.shape[2]
        raise DataError(f"a PNG of {amount(count, 'band')}", file=file, allowed=_ALLOWED)
    ids = pixels[..., 2].astype(np.int32)
    for band in (1, 0):
        ids <<= 8
        ids |= pixels[..., band]
    return ids


def write_segment_png(file: str | Path, ids: NDArray[Any]) -> None:
    """Writes segment ids [H, W]; whole or not at all.

    Raises:
        DataError: an id below 0 or above `MAX_SEGMENT_ID`, or no pixels.
        WriteError: the file cannot be written.
    """
    with atomic_path(file) as part:
        save_segment_png(part, ids, Path(file))


def save_segment_png(part: Path, ids: NDArray[Any], file: Path) -> None:
    """The same to a path of `atomic_path`. file: what it becomes, for messages.

    Raises:
        DataError: as `write_segment_png`.
    """
    from PIL import Image

    if ids.ndim != 2 or not ids.size:
        raise DataError(f"segment ids {list(ids.shape)}", file=file, allowed="[H, W] with at least one pixel")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high > MAX_SEGMENT_ID:
        raise DataError(f"the segment id {low if low < 0 else high}", file=file, allowed=f"0..{MAX_SEGMENT_ID}")
    packed = np.ascontiguousarray(ids, "<u4").view(np.uint8).reshape(*ids.shape, 4)
    Image.fromarray(np.ascontiguousarray(packed[..., :3])).save(part, "PNG")
