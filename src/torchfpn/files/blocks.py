"""The blocks that a raster is stored in: each is decoded whole, however small the window that is read."""

from pathlib import Path
from typing import Any

from torchfpn.errors import RasterError
from torchfpn.files.rasters import pixel_types

BLOCK_BYTES = 2**30  # that may be needed to decode one block


def block_bytes(source: Any) -> int:
    """Of an open raster: how much one block needs when it is decoded."""
    height, width = source.block_shapes[0]
    together = source.count if source.interleaving and source.interleaving.name == "pixel" else 1
    return int(height * width * together * pixel_types(source)[0].itemsize)


def check_blocks(shape: tuple[int, int], size: int, path: Path) -> None:
    """Passes files that can be read by windows in bounded memory. shape: height and width of a block; size: its bytes.

    Raises:
        RasterError: one block is too large, as in a TIFF of a single tile.
    """
    if size > BLOCK_BYTES:
        raise RasterError(
            f"stored in blocks of {shape[1]} x {shape[0]} pixels, {size / 2**30:.1f} GiB each",
            file=path,
            allowed=f"at most {BLOCK_BYTES / 2**30:.0f} GiB, to be read by windows",
            hint="store it in tiles: gdal_translate -of COG",
        )
