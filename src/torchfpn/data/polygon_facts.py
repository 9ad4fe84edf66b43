"""What became of the features of each file of polygons, over all images of the dataset."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchfpn.data.dataset import Dataset
from torchfpn.data.facts import Facts
from torchfpn.data.reading import burning
from torchfpn.errors import DataError
from torchfpn.vectors.formats import is_vector


@dataclass(frozen=True)
class PolygonReport:
    """One file, its features counted. mended: with invalid rings. widened: lines and points. empty: without an area.

    outside: on no image. One of a class that is not known is a problem, not a number.
    """

    file: Path
    features: int
    mended: int
    widened: int
    empty: int
    outside: int


def polygon_reports(dataset: Dataset, facts: Sequence[Facts]) -> tuple[PolygonReport, ...]:
    """Of each file that can be read, in the order they are met."""
    met: dict[Path, list[Facts]] = defaultdict(list)
    for f in facts:
        if f.pair.label is not None and is_vector(f.pair.label):
            met[f.pair.label].append(f)
    found = []
    for file, users in met.items():
        try:
            features = burning().read_features(dataset, file)
        except DataError:  # a problem, which is told
            continue
        on = [f.met for f in users if f.met is not None]
        touched = len(np.unique(np.concatenate(on))) if on else 0
        outside = features.count - features.lost - touched
        found.append(PolygonReport(file, features.count, features.mended, features.widened, features.lost, outside))
    return tuple(found)
