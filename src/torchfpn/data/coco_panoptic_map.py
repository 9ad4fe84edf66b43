"""The PNG of a panoptic annotation: which pixel belongs to which segment, checked against what the annotation says.

It is read with its image and held no longer. Pixels of no segment are void, as in panopticapi's evaluation: id 0 is so
by definition; another id that no segment has is an error, or void where the dataset says `fix`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.annotations import Annotations
from torchfpn.data.coco_panoptic_segments import Segments
from torchfpn.data.coco_shapes import BEYOND
from torchfpn.data.extents import Extents, crops_of, extents
from torchfpn.data.splits import SHOWN, Problem
from torchfpn.data.strict_json import Flaw
from torchfpn.data.truth import Truth
from torchfpn.errors import DataError, amount
from torchfpn.files.formats import format_of
from torchfpn.files.photographs import deep_png, read_indices

if TYPE_CHECKING:  # torch is loaded where masks are made
    from torchfpn.ops.masks import Crops

_ALLOWED = "a PNG of 8-bit red, green and blue, which together are the id of a segment"


@dataclass(frozen=True)
class PanopticMap:
    """The segments of one image, stuff and crowds as well, and their pixels.

    ids: int32 [H, W]. rows: int64 [S] the good segments, places in `Segments`. windows: int64 [S, 4] (x1, y1, x2, y2),
    the smallest around the pixels of each. problems: what is wrong with others, and with ids that no segment has.
    bad: how many of both there are.
    """

    ids: NDArray[np.int32]
    rows: NDArray[np.int64]
    windows: NDArray[np.int64]
    problems: tuple[Problem, ...]
    bad: int


def read_map(annotations: Annotations, number: int, max_pixels: int) -> PanopticMap:
    """The map of the image number `number` of panoptic annotations.

    Raises:
        DataError: the PNG cannot be read, has no 8-bit red, green and blue, or another size than the image.
    """
    segments = annotations.segments
    assert segments is not None  # who asks has panoptic annotations
    file, rows = segments.folder / segments.maps[number], segments.rows(number)
    values = _read(file, max_pixels)
    height, width = annotations.size(number)
    if values.shape != (height, width):
        found = f"{values.shape[1]} x {values.shape[0]} pixels, {width} x {height} in {annotations.file.name}"
        raise DataError(found, file=file)
    there = extents(values)
    at = _places(there.ids, segments.ids[rows])
    lines = _misfits(segments, rows, there, at, file.name)
    record = int(segments.records[number])
    problems = [
        Problem(
            annotations.file,
            str(Flaw(("annotations", record, "segments_info", int(segments.places[rows[i]]), key), line)),
            fixable=True,
        )
        for i, (key, line) in sorted(lines.items())
    ]
    unknown = np.setdiff1d(np.arange(len(there.ids)), at).tolist()
    of = f"annotations[{record}] of {annotations.file.name}"
    problems += [Problem(file, _riddle(there, k, width, of), fixable=True) for k in unknown[:SHOWN]]
    if len(unknown) > SHOWN:  # of a photograph there would be as many as pixels
        problems.append(Problem(file, f"and {len(unknown) - SHOWN:,} more ids that are not in {of}"))
    good = (at >= 0) & (segments.category[rows] >= 0)
    good[list(lines)] = False
    return PanopticMap(values, rows[good], there.windows[at[good]], tuple(problems), len(lines) + len(unknown))


def truth_of_map(found: PanopticMap, annotations: Annotations, number: int, *, masks: bool) -> Truth:
    """The things of an image, in the order of `annotations`; boxes are the smallest around their pixels."""
    segments = annotations.segments
    assert segments is not None  # who asks has panoptic annotations
    own = np.arange(annotations.first[number], annotations.first[number + 1])
    places = {identity: k for k, identity in enumerate(segments.ids[found.rows].tolist())}
    at = np.array([places.get(identity, -1) for identity in annotations.numbers[own].tolist()], np.int64)
    own, at = own[at >= 0], at[at >= 0]
    crowd = annotations.crowd[own]
    windows, numbers = found.windows[at[~crowd]], annotations.numbers[own[~crowd]]

    def crops(keep: NDArray[np.int64]) -> "Crops":
        return crops_of(found.ids, numbers[keep], windows[keep])

    return Truth(
        windows.astype(np.float32),
        annotations.labels[own[~crowd]].astype(np.int64),
        found.windows[at[crowd]].astype(np.float32),
        annotations.size(number),
        crops if masks else None,
        dropped=found.bad,
    )


def _read(file: Path, max_pixels: int) -> NDArray[np.int32]:
    """The ids [H, W]."""
    kind = format_of(file)
    if kind != "png":
        raise DataError(f"a {kind.upper()}", file=file, allowed=_ALLOWED)
    if deep_png(file):
        raise DataError("a PNG of 16 bits", file=file, allowed=_ALLOWED)
    pixels, _ = read_indices(file, max_pixels)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        count = 1 if pixels.ndim == 2 else pixels.shape[2]
        raise DataError(f"a PNG of {amount(count, 'band')}", file=file, allowed=_ALLOWED)
    ids = pixels[..., 2].astype(np.int32)
    for band in (1, 0):
        ids <<= 8
        ids |= pixels[..., band]
    return ids


def _places(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of `wanted` is among `known`, which rises; -1 where it is not."""
    at = np.searchsorted(known, wanted)
    found = at < len(known)
    found[found] = known[at[found]] == wanted[found]
    return np.where(found, at, -1).astype(np.int64)


def _misfits(
    segments: Segments, rows: NDArray[np.int64], there: Extents, at: NDArray[np.int64], name: str
) -> dict[int, tuple[str, str]]:
    """What of a segment does not fit the map: the key and the line, by the segment's place in `rows`.

    at: of each segment, its place in the map. Of segments that are bad already nothing more is said.
    """
    good = segments.category[rows] >= 0
    lines = {
        int(i): ("id", f"{segments.ids[rows[i]]}, which has no pixel in {name}")
        for i in np.flatnonzero(good & (at < 0))
    }
    seen = np.flatnonzero(good & (at >= 0))
    pixels, windows = there.pixels[at[seen]], there.windows[at[seen]]
    areas, boxes = segments.areas[rows[seen]], segments.boxes[rows[seen]]
    for k in np.flatnonzero(np.abs(boxes - windows).max(1, initial=0) > BEYOND):
        x, y, x2, y2 = boxes[k].tolist()
        box, real = [x, y, x2 - x, y2 - y], [*windows[k, :2].tolist(), *(windows[k, 2:] - windows[k, :2]).tolist()]
        lines[int(seen[k])] = "bbox", f"[{', '.join(f'{value:.6g}' for value in box)}]; its pixels in {name}: {real}"
    for k in np.flatnonzero(areas != pixels):
        lines[int(seen[k])] = "area", f"{areas[k]:.10g}; {pixels[k]} pixels in {name}"
    return lines


def _riddle(there: Extents, k: int, width: int, of: str) -> str:
    """An id in the map that is no segment's."""
    row, column = divmod(int(there.first[k]), width)
    count = int(there.pixels[k])
    pixels = f"{amount(count, 'pixel')}, the first at row {row}, column {column}"
    return f"the id {there.ids[k]} ({pixels}); an id in {of}, or 0 where nothing is labelled"
