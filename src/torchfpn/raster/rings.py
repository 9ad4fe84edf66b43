"""Closed outlines along the edges of pixels -> polygons with holes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from torchfpn.raster.corners import Ints


def polygons_of(areas: Sequence[Sequence[Ints]], width: int, least: float = 0.0) -> tuple[NDArray[Any], Ints, Ints]:
    """A valid polygon in (column, row) for every area, given as its rings; the number of each one's area, its pixels.

    Rings are vertices as `pieces.place_of` numbers them on a map of `width` pixels, with the area on the right hand.
    Holes of fewer than `least` pixels are filled, then areas of fewer are left out. The pixels are those of the area
    itself, without the holes that were filled.
    """
    owners = np.repeat(np.arange(len(areas)), [len(area) for area in areas])
    rings, owners = _without_crossings([ring for area in areas for ring in area], owners)
    if not rings:
        return np.empty(0, dtype=object), np.zeros(0, np.int64), np.zeros(0, np.int64)
    lengths = np.array([len(ring) for ring in rings])
    rows, columns = np.divmod(np.concatenate(rings) // 2, width + 1)
    sizes = _signed_areas(rows, columns, lengths)
    pixels = np.bincount(owners, sizes, minlength=len(areas)).astype(np.int64)
    kept = (sizes > 0) | (-sizes >= least)
    totals = np.bincount(owners[kept], sizes[kept], minlength=len(areas))
    kept &= (totals >= least)[owners]
    chosen = np.lexsort((-sizes, owners))  # the outer ring before the holes
    chosen = chosen[kept[chosen]]
    index, which = _members(lengths, chosen)
    points = np.stack([columns[index], rows[index]], axis=1).astype(np.float64)
    numbers, polygon = np.unique(owners[chosen], return_inverse=True)
    polygons = np.asarray(shapely.polygons(shapely.linearrings(points, indices=which), indices=polygon))
    return polygons, numbers, pixels[numbers]


def _without_crossings(rings: list[Ints], owners: Ints) -> tuple[list[Ints], Ints]:
    """Rings that pass no vertex twice, and whose they are."""
    if not rings:
        return rings, owners
    starts = np.cumsum([0, *map(len, rings[:-1])])
    crossings = np.add.reduceat(np.concatenate(rings) & 1, starts)  # where four cracks meet
    parts = {i: _simple(rings[i]) for i in np.flatnonzero(crossings > 1).tolist()}
    counts = [len(parts.get(i, "1")) for i in range(len(rings))]
    return [part for i, ring in enumerate(rings) for part in parts.get(i, [ring])], np.repeat(owners, counts)


def _simple(ring: Ints) -> list[Ints]:
    """A ring that meets itself at corners, cut there: a bay that closes becomes a hole, holes that touch become two."""
    cuts = np.flatnonzero(ring & 1)  # where four cracks meet
    if len(np.unique(ring[cuts])) == len(cuts):
        return [ring]
    done: list[Ints] = []
    way: list[Ints] = []  # stretches that each begin at such a corner
    since: dict[int, int] = {}  # corner -> its place in `way`
    for stretch in np.split(np.roll(ring, -cuts[0]), cuts[1:] - cuts[0]):
        corner = int(stretch[0])
        if corner in since:
            loop = way[since[corner] :]
            del way[since[corner] :]
            for part in loop:
                del since[int(part[0])]
            done.append(np.concatenate(loop))
        since[corner] = len(way)
        way.append(stretch)
    return [*done, np.concatenate(way)]


def _signed_areas(rows: Ints, columns: Ints, lengths: Ints) -> Ints:
    """Pixels inside each ring, below zero for holes. rows, columns: of all vertices, ring after ring."""
    stops = np.cumsum(lengths)
    after = np.arange(1, len(rows) + 1)
    after[stops - 1] = stops - lengths
    doubled = columns * rows[after] - columns[after] * rows
    return np.asarray(np.add.reduceat(doubled, stops - lengths) // 2)


def _members(lengths: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """Indices of the vertices of the chosen rings one after another, and the ring (0, 1, ...) of each."""
    starts, counts = np.cumsum(lengths)[chosen] - lengths[chosen], lengths[chosen]
    which = np.repeat(np.arange(len(chosen)), counts)
    return np.arange(len(which)) + (starts - np.cumsum(counts) + counts)[which], which
