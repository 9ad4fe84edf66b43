"""Windows: rectangles of pixels, tilings of an image, and the blocks that a large raster is predicted in."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torchfpn.errors import ConfigError

SIDE = 1024  # pixels, of the blocks that a large raster is predicted in


class Window(NamedTuple):
    """A rectangle of pixels, which may reach beyond the image. row, column: its upper left pixel; sizes in pixels."""

    row: int
    column: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns, from and to, as rasterio takes a window."""
        return (self.row, self.row + self.height), (self.column, self.column + self.width)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of an array of the whole image; the window must not begin above it or left of it."""
        (top, bottom), (left, right) = self.ranges
        return slice(top, bottom), slice(left, right)

    def fits(self, height: int, width: int) -> bool:
        """Whether it lies within an image of this size."""
        (top, bottom), (left, right) = self.ranges
        return min(top, left) >= 0 and bottom <= height and right <= width

    def padded(self, pixels: int) -> "Window":
        """With so many more pixels on every side."""
        return Window(self.row - pixels, self.column - pixels, self.height + 2 * pixels, self.width + 2 * pixels)

    def clipped(self, height: int, width: int) -> "Window":
        """The part of it within an image of this size."""
        (top, bottom), (left, right) = self.ranges
        top, left = max(0, top), max(0, left)
        return Window(top, left, min(height, bottom) - top, min(width, right) - left)

    def within(self, other: "Window") -> "Window":
        """The same pixels, counted from the upper left pixel of another window."""
        return self._replace(row=self.row - other.row, column=self.column - other.column)


def tile(size: tuple[int, int], side: tuple[int, int], row: int, column: int) -> Window:
    """The tile in that row and column of a tiling.

    Args:
        size: height and width of the image in pixels.
        side: height and width of a tile; those at the right and at the bottom are smaller.
        row: number of the row of tiles, from 0 at the top.
        column: number of the column of tiles, from 0 at the left.
    """
    return Window(row * side[0], column * side[1], *side).clipped(*size)


def tiles(size: tuple[int, int], side: tuple[int, int]) -> list[Window]:
    """All tiles of an image, row by row: see `tile`."""
    rows, columns = (-(-whole // part) for whole, part in zip(size, side, strict=True))
    return [tile(size, side, row, column) for row in range(rows) for column in range(columns)]


@dataclass(frozen=True)
class Block:
    """One step of a prediction by windows, as plain values that another engine can execute.

    Attributes:
        index: its number, row by row.
        block: the pixels that are written; the blocks tile the raster without overlap.
        window: the pixels that are read: the block and a margin on every side, clipped at the border of the raster.
    """

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
    """Blocks of a raster and the windows around them, row by row.

    Blocks and windows begin at multiples of the model's coarsest stride, so that every cell of every feature map lies
    where it lies in the whole image: with a margin of the model's receptive field the prediction is that of the whole
    image.

    Args:
        height: of the raster, in pixels.
        width: of the raster, in pixels.
        side: of a block, in pixels.
        margin: pixels around a block, rounded up to a multiple of `multiple`.
        multiple: the coarsest stride of the model, in pixels.
        grounds: (row, column) of the blocks that are wanted; None: all of them.

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
    return max(block.window.height for block in blocks), max(block.window.width for block in blocks)
