"""What became of the features of each file of polygons, over all images of the dataset."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchfpn.data.dataset import Dataset
from torchfpn.data.facts import Facts
from torchfpn.data.reading import burning
from torchfpn.data.splits import Pair, Problem
from torchfpn.errors import DataError
from torchfpn.vectors.formats import is_vector


@dataclass(frozen=True)
class PolygonReport:
    """One file, its features counted. mended: with invalid rings. widened: lines and points. empty: without an area.

    outside: on no image. unclassed: without a class, ignored or skipped as the dataset says. One of a class that is not
    known is a problem, not a number.
    """

    file: Path
    features: int
    mended: int
    widened: int
    empty: int
    outside: int
    unclassed: int = 0


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
        skipped = features.unclassed if dataset.polygons.without_class == "skip" else 0
        outside = features.count - features.lost - skipped - touched
        numbers = (features.mended, features.widened, features.lost, outside, features.unclassed)
        found.append(PolygonReport(file, features.count, *numbers))
    return tuple(found)


def unmet_polygons(dataset: Dataset, split: str, facts: Sequence[Facts]) -> list[Problem]:
    """The files of polygons of a split, if no polygon of any of them meets an image: one problem each.

    Some images without a polygon are a usual thing; a split of such images alone has nothing to teach, and mostly the
    polygons lie elsewhere: their axes are swapped, or their coordinate system is not the one that the file names.
    facts: of the images of the split.
    """
    used = [f for f in facts if f.met is not None and f.pair.label is not None]
    if not used or any(len(f.met) for f in used if f.met is not None):
        return []
    files: dict[Path, list[Pair]] = defaultdict(list)
    for f in used:
        assert f.pair.label is not None  # filtered above
        files[f.pair.label].append(f.pair)
    return [Problem(file, _why_unmet(dataset, split, file, pairs)) for file, pairs in files.items()]


def _why_unmet(dataset: Dataset, split: str, file: Path, pairs: Sequence[Pair]) -> str:
    if burning().read_features(dataset, file).count == 0:
        return f'no polygon for the images of the split "{split}"'
    return f'no polygon meets an image of the split "{split}"; {burning().why_unmet(dataset, file, pairs)}'
