"""Sums over many drawn label maps: features and pixels of each class."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchfpn.raster.legend import Legend
from torchfpn.raster.rasterize import Outcome
from torchfpn.vectors.drawing import Labels

NOT_LABELLED = "not labelled"


class Tally:
    """Counts over all images; a feature on several images counts once. labels: label file by stem."""

    def __init__(self, legend: Legend, labels: dict[str, Labels]) -> None:
        self.legend, self.labels = legend, labels
        self.pixels: dict[int, int] = {}
        self.doubled = 0
        self.met: dict[str, NDArray[np.bool_]] = {stem: np.zeros(len(f.labels), bool) for stem, f in labels.items()}

    def add(self, stem: str, outcome: Outcome) -> None:
        """Counts an image drawn from the label file of that stem."""
        self.met[stem] |= outcome.features
        self.doubled += outcome.doubled
        for value, count in outcome.pixels.items():
            self.pixels[value] = self.pixels.get(value, 0) + count

    def unmet(self) -> list[Path]:
        """Label files that hold features, none of which meets an image."""
        return [self.labels[stem].file for stem, met in self.met.items() if len(met) and not met.any()]

    def rows(self) -> list[tuple[str, str, int, int, int]]:
        """(value of the attribute, class, label value, features that meet an image, pixels) of each class."""
        drawn = np.concatenate([np.zeros(0, np.int64), *(f.labels[self.met[stem]] for stem, f in self.labels.items())])
        spelt: dict[int, str] = {label: str(value) for value, label in self.legend.values.items()}
        names = dict(self.legend.names)
        if self.legend.ignored in self.pixels:
            names[self.legend.ignored] = NOT_LABELLED
        return [
            (spelt.get(label, ""), name, label, int((drawn == label).sum()), self.pixels.get(label, 0))
            for label, name in names.items()
        ]
