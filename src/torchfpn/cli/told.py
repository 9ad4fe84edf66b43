"""What fpn predict says of each source: one line, and a warning where the source holds nothing at all."""

import sys
from pathlib import Path
from typing import Protocol

from torchfpn.errors import amount
from torchfpn.files.formats import printable


class Predicted(Protocol):
    """What came of one source, of pixels or of objects."""

    @property
    def pixels(self) -> int:
        """Of the image."""

    @property
    def empty(self) -> int:
        """Of them, those without data."""

    @property
    def polygons(self) -> int:
        """How many were written."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What else is to be said of the source."""


def tell(words: list[str], outcome: Predicted, source: Path, *, polygons: bool) -> None:
    """The line that begins with `words`. polygons: whether they were asked for."""
    if polygons:
        words.append(amount(outcome.polygons, "polygon"))
    if outcome.empty:
        words.append(f"{amount(outcome.empty, 'pixel')} without data")
    print(", ".join(words))
    for line in outcome.remarks:
        print(f"fpn: {printable(source)}: {line}", file=sys.stderr)
    if outcome.empty == outcome.pixels:
        print(f"fpn: {printable(source)}: holds no data at all", file=sys.stderr)
