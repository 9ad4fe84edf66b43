"""Truth and prediction of an image, looked at and counted in one pass: every pixel counts, every n-th is shown."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchfpn.files.geo import tiles
from torchfpn.metrics.pixel_counts import PixelCounts
from torchfpn.raster.label_classes import LabelClasses
from torchfpn.raster.label_maps import SIDE
from torchfpn.raster.label_pairs import pair_counts
from torchfpn.raster.label_sides import Side
from torchfpn.raster.overview import Grid, Sampling
from torchfpn.recipe import IGNORE


@dataclass(frozen=True)
class Compared:
    """maps: the labels [h, w] of each side, `IGNORE` where nothing is labelled. confusion: None for one side alone."""

    maps: list[NDArray[np.uint8]]
    confusion: PixelCounts | None


def compared(image: Grid, look: Sampling, sides: Sequence[Side], classes: LabelClasses) -> Compared:
    """sides: the truth and the prediction, or one of them. Only the part of the image that is looked at counts.

    Raises:
        DataError: labels that are missing, damaged, or do not fit the image.
    """
    maps = [np.full(look.size, IGNORE, np.uint8) for _ in sides]
    confusion = PixelCounts(len(classes.values)) if len(sides) == 2 else None
    row, column, height, width = look.part
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(side.open(image, classes)) for side in sides]
        for block in tiles((height, width), (SIDE, SIDE)):
            window = block._replace(row=block.row + row, column=block.column + column)
            found = [read(window) for read in readers]
            if confusion is not None:
                _count(confusion, found[1], found[0])
            rows, columns, top, left = look.inside(window)
            for shown, labels in zip(maps, found, strict=True):
                shown[top : top + len(rows), left : left + len(columns)] = labels[np.ix_(rows, columns)]
    return Compared(maps, confusion)


def _count(confusion: PixelCounts, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
    """Adds the pixels that have a truth and a prediction."""
    for (t, p), count in pair_counts(prediction, truth).items():
        if t != IGNORE and p != IGNORE:
            confusion.matrix[t, p] += count
