"""How a raster is cut for prediction: blocks that are written, each inside the window that is read for it.

Blocks tile the raster without overlap; a window is its block and a margin on every side, clipped at the border of the
raster. Both begin at multiples of the model's coarsest stride, so that every cell of every map lies where it lies in
the whole image: with a margin of the model's reach the answer is the whole image's. Plain values: another engine can
execute them.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torchfpn.errors import ConfigError
from torchfpn.geo.georef import Window, tile

SIDE = 1024  # pixels, of the blocks that a large raster is predicted in


@dataclass(frozen=True)
class Block:
    """One step. index: in row-major order. block: what is written. window: what is read."""

    index: int
    block: Window
    window: Window

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the block within its window."""
        return self.block.within(self.window).slices

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def plan_blocks(
    height: int,
    width: int,
    *,
    side: int,
    margin: int,
    multiple: int = 1,
    grounds: Collection[tuple[int, int]] | None = None,
) -> list[Block]:
    """Blocks of `side` pixels and the windows around them, row by row.

    margin is rounded up to a multiple of `multiple`. grounds: which squares are wanted, as (row, column) of squares;
    None: all of them.

    Raises:
        ConfigError: a side that is no multiple of `multiple`, a negative margin, an empty raster.
    """
    if side < 1 or side % multiple:
        raise ConfigError(f"{side}", field="tile size", allowed=f"a multiple of {multiple} pixels, the coarsest stride")
    if margin < 0 or height < 1 or width < 1:
        raise ConfigError(f"{margin} around {height} x {width}", field="margin", allowed="pixels from 0")
    if grounds is None:
        grounds = [(i, j) for i in range(-(-height // side)) for j in range(-(-width // side))]
    around = rounded_up(margin, multiple)
    blocks: list[Block] = []
    for i, j in sorted(grounds):
        block = tile((height, width), (side, side), i, j)
        blocks.append(Block(len(blocks), block, block.padded(around).clipped(height, width)))
    return blocks


def rounded_up(pixels: int, multiple: int) -> int:
    """The next multiple."""
    return -(-pixels // multiple) * multiple


def largest_window(blocks: Sequence[Block]) -> tuple[int, int]:
    """(height, width) that every window fits into."""
    return max(block.window[2] for block in blocks), max(block.window[3] for block in blocks)
