"""How large images of objects are shown to the network: by their shorter and their longer side."""

from dataclasses import dataclass

from torchfpn.errors import ConfigError
from torchfpn.types import Size


@dataclass(frozen=True)
class Resize:
    """Images enlarged or shrunk so that the shorter side has `shorter` pixels, or the longer one `longest` if less.

    shorter: a range (low, high), of which training draws one and everything else takes the high end; None: only
    `longest` counts, so that the image just fits into a square of that side. longest: None: no limit.
    """

    shorter: tuple[int, int] | None = None
    longest: int | None = None

    def __post_init__(self) -> None:
        low, high = self.shorter or (1, 1)
        if (self.shorter is None and self.longest is None) or not 1 <= low <= high or (self.longest or 1) < 1:
            found = f"shorter side {self.shorter}, longest {self.longest}"
            raise ConfigError(found, allowed="1 <= low <= high, or the longest side alone")

    def factor(self, size: Size, draw: float = 1.0) -> float:
        """By how much an image of (height, width) `size` is enlarged. draw: of [0, 1), evenly over the range."""
        least, most = min(size), max(size)
        fit = float("inf") if self.longest is None else self.longest / most
        if self.shorter is None:
            return fit
        low, high = self.shorter
        return min(min(low + int(draw * (high - low + 1)), high) / least, fit)


def times(size: Size, factor: float) -> Size:
    """A size enlarged, in whole pixels, 1 at least."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
