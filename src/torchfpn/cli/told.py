"""What verbs say of their sources: one line for each, and warnings: no data at all, files that are no images."""

import sys
from collections.abc import Sequence
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
        print(f"fpn: {printable(source)}: contains no valid pixel", file=sys.stderr)


SHOWN = 3  # names in a line


def tell_passed_over(sources: Sequence[str]) -> None:
    """One line about the files in folders of images that are no images."""
    from torchfpn.raster.sources import passed_over

    files = passed_over(sources)
    if files:
        names = ", ".join(printable(file) for file in files[:SHOWN]) + (" ..." if len(files) > SHOWN else "")
        what = amount(len(files), "file that is not an image", "files that are not images")
        print(f"fpn: skipped {what}: {names}", file=sys.stderr)
