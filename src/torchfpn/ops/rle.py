"""Run lengths of masks in COCO's format, made directly from crops without a full image.

COCO's format: the pixels of the image column by column, as the lengths of runs of 0 and 1 in turn, first a run of 0
(which may be empty). `counts` is that list, or a string: each length, from the fourth on minus the one two before it,
in groups of 5 bits, lowest first, as characters from "0" on; bit 6 says that more groups follow, and the highest bit
of the last group is the sign. Oracle: `encode` and `decode` of pycocotools and faster-coco-eval.

Run lengths of other programs are checked here first: the C code of those libraries trusts the lengths.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import DataError
from torchfpn.types import Size

if TYPE_CHECKING:  # run lengths are read and checked without torch
    from torchfpn.ops.masks import Crops

Ints = NDArray[np.int64]
MOST = 2**32  # pixels of an image: COCO's lengths are 32 bits wide
GROUPS = 7  # of 5 bits: enough for lengths up to 2^32 and their differences


class Rle(TypedDict):
    """One mask: the (height, width) of its image, and its runs as a string."""

    size: list[int]
    counts: str


def to_rle(crops: "Crops") -> list[Rle]:
    """Crops -> one record for each, ready for COCO's result files."""
    lengths, first = _lengths(crops)
    size = [int(n) for n in crops.size]
    return [{"size": size, "counts": text} for text in _texts(lengths, first)]


def from_rle(records: Iterable[Mapping[str, Any]], size: Size | None = None) -> "Crops":
    """Records -> crops, each in the smallest window. `counts` may be a string, bytes or a list of lengths.

    Raises:
        DataError: a record that is no mask, or not of `size` (None: of the size of the first).
    """
    from torchfpn.ops.masks import Crops

    windows, pixels = [], []
    for record in records:
        lengths = run_lengths(record, size)
        size = (int(record["size"][0]), int(record["size"][1]))
        begin, end = _ones(lengths)
        window = _window(begin, end, size[0])
        windows.append(window)
        pixels.append(_painted(begin, end, window, size[0]))
    if size is None:
        raise DataError("no masks and no size", allowed="at least one record, or size=")
    flat = np.concatenate(pixels) if pixels else np.zeros(0, bool)
    return Crops.of(np.array(windows, np.int64).reshape(-1, 4), flat, size)


def area(record: Mapping[str, Any]) -> int:
    """How many pixels are on."""
    return int(run_lengths(record)[1::2].sum())


def bbox(record: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """The smallest window with all pixels: x1, y1, x2, y2 (excluded) in pixels; zeros where none is on."""
    return _window(*_ones(run_lengths(record)), int(record["size"][0]))


def spelled(record: Mapping[str, Any]) -> str:
    """The run lengths of a record as COCO's string, whichever way its `counts` say them.

    Raises:
        DataError: a record that is no mask.
    """
    height, width = _size(record["size"])
    begin, end = _ones(run_lengths(record))
    apart = begin[1:] != end[:-1]  # runs with nothing between them are one
    begin, end = begin[np.append(True, apart)[: len(begin)]], end[np.append(apart, True)[: len(end)]]
    lengths, first = _alternating(begin, end, np.zeros(len(begin), np.int64), 1, height * width)
    return _texts(lengths, first)[0]


def run_lengths(record: Mapping[str, Any], size: Size | None = None) -> Ints:
    """The lengths of the runs [K] int64 of a record that others wrote, 0 first.

    Raises:
        DataError: a size or counts of another type, lengths that are negative or do not fill the image, a string that
            ends in the middle of a number or has other characters, another size than `size`.
    """
    if not isinstance(record, Mapping) or not {"size", "counts"} <= record.keys():
        raise DataError("no run lengths", allowed='{"size": [height, width], "counts": ...}')
    height, width = _size(record["size"])
    if size is not None and (height, width) != tuple(size):
        raise DataError(f"size {[height, width]}", field="size", allowed=f"{list(size)}, as of the image")
    counts = record["counts"]
    lengths = _numbers(counts) if isinstance(counts, str | bytes) else _listed(counts)
    if len(lengths) and lengths.min() < 0:
        raise DataError(f"a run of {lengths.min()} pixels", field="counts", allowed="0 and more")
    if (len(lengths) and lengths.max() > MOST) or lengths.sum() != height * width:
        found = f"runs of {lengths.astype(float).sum():.10g} pixels together"
        raise DataError(found, field="counts", allowed=f"{height} x {width} = {height * width}")
    return lengths


def _size(size: Any) -> Size:
    fine = isinstance(size, Sequence) and len(size) == 2 and all(type(n) is int and n >= 0 for n in size)
    if not fine:
        raise DataError(f"{size!r:.60}", field="size", allowed="[height, width] in whole pixels")
    if size[0] * size[1] >= MOST:
        raise DataError(f"{size[0]} x {size[1]} pixels", field="size", allowed="fewer than 2^32 pixels")
    return size[0], size[1]


def _listed(counts: Any) -> Ints:
    if not isinstance(counts, Sequence) or any(type(n) is not int or abs(n) > MOST for n in counts):
        raise DataError(f"{counts!r:.60}", field="counts", allowed="a string, or a list of whole numbers")
    return np.array(counts, np.int64)


# -- the string --------------------------------------------------------------------------------------------------------
def _texts(lengths: Ints, first: Ints) -> list[str]:
    """Lengths of all masks in a row, those of mask i from first[i] to first[i + 1] -> their strings."""
    place = np.arange(len(lengths)) - np.repeat(first[:-1], np.diff(first))
    rest = lengths.copy()
    late = np.flatnonzero(place > 2)
    rest[late] -= lengths[late - 2]
    used = np.ones(len(rest), np.int64)  # groups of each; mostly one or two
    for i in range(1, GROUPS):
        left = rest >> (5 * i - 1)
        longer = (left != 0) & (left != -1)  # more than a sign
        if not longer.any():
            break
        used += longer
    ends = used.cumsum()
    groups = np.zeros(used.sum(), np.uint8)
    for i in range(used.max(initial=0)):
        own = np.flatnonzero(used > i) if i else slice(None)
        groups[ends[own] - used[own] + i] = ((rest[own] >> 5 * i) & 31) + 32 * (used[own] > i + 1) + 48
    text = groups.tobytes().decode("ascii")
    ends = np.concatenate([[0], ends])[first].tolist()
    return [text[a:b] for a, b in pairwise(ends)]


def _numbers(text: str | bytes) -> Ints:
    """A string -> the lengths it spells."""
    try:
        groups = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise DataError("letters that are not ASCII", field="counts", allowed='"0" to "o"') from None
    if not len(groups):
        return groups
    if groups.min() < 0 or groups.max() > 63:
        odd = groups[(groups < 0) | (groups > 63)][0] + 48
        raise DataError(f"character {chr(odd)!r}", field="counts", allowed='"0" to "o"')
    if groups[-1] & 32:
        raise DataError("it ends in the middle of a number", field="counts", hint="the file is cut off")
    last = np.flatnonzero(groups < 32)
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() >= GROUPS:
        raise DataError("a number of more than 35 bits", field="counts", allowed="lengths below 2^32")
    shift = 5 * (np.arange(len(groups)) - np.repeat(first, last - first + 1))
    values = np.add.reduceat((groups & 31) << shift, first)
    values -= np.where(groups[last] & 16, np.left_shift(32, shift[last]), 0)  # the highest bit of the last is the sign
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


# -- between pixels and runs -------------------------------------------------------------------------------------------
def _lengths(crops: "Crops") -> tuple[Ints, Ints]:
    """-> the lengths of the runs of all masks in a row, and where each begins [N + 1]."""
    height, width = crops.size
    windows, starts = crops.windows.numpy(), crops.starts().numpy()
    on = crops.pixels.numpy()
    sides = windows[:, 3] - windows[:, 1]
    # Where the columns of the windows begin: a run ends there, for in the image other pixels come between.
    columns = windows[:, 2] - windows[:, 0]
    mask = np.repeat(np.arange(len(crops)), columns)
    edges = starts[mask] + (np.arange(len(mask)) - np.repeat(columns.cumsum() - columns, columns)) * sides[mask]
    turns = np.zeros(len(on) + 1, bool)
    np.not_equal(on[1:], on[:-1], out=turns[1:-1])
    if len(on):
        turns[[0, -1]] = on[[0, -1]]
    split = edges[(edges > 0) & on[edges - 1] & on[edges]] if len(on) else edges
    turns[split] = False
    # A cut between two columns that are both on is an end and a beginning.
    at = np.sort(np.concatenate([np.flatnonzero(turns), split, split]), kind="stable")
    begin, last = at[::2], at[1::2] - 1
    owner = np.searchsorted(starts, begin, side="right") - 1
    begin, end = (_in_image(k, owner, windows, starts, sides, height) for k in (begin, last))
    end += 1
    # Runs that touch in the image (windows as high as it) are one run.
    joined = np.flatnonzero((begin[1:] == end[:-1]) & (owner[1:] == owner[:-1]))
    begin, owner, end = np.delete(begin, joined + 1), np.delete(owner, joined + 1), np.delete(end, joined)
    return _alternating(begin, end, owner, len(crops), height * width)


def _in_image(k: Ints, owner: Ints, windows: Ints, starts: Ints, sides: Ints, height: int) -> Ints:
    """Places in the flat pixels -> places in the image, column by column."""
    column, row = np.divmod(k - starts[owner], sides[owner])
    return np.asarray((windows[owner, 0] + column) * height + windows[owner, 1] + row, np.int64)


def _alternating(begin: Ints, end: Ints, owner: Ints, number: int, total: int) -> tuple[Ints, Ints]:
    """Runs of 1 of each mask -> lengths of 0 and 1 in turn, up to the last pixel of the image."""
    runs = np.bincount(owner, minlength=number)
    first = np.concatenate([[0], (2 * runs + 2).cumsum()])  # each mask: 0, begin, end, begin, end, ..., total
    place = first[owner] + 1 + 2 * (np.arange(len(begin)) - (runs.cumsum() - runs)[owner])
    bounds = np.zeros(first[-1], np.int64)
    bounds[place], bounds[place + 1], bounds[first[1:] - 1] = begin, end, total
    lengths = np.diff(bounds, append=0)
    keep = np.ones(len(lengths), bool)
    keep[first[1:] - 1] = False  # from one mask to the next
    ended = first[1:] - 2
    keep[ended[(lengths[ended] == 0) & (runs > 0)]] = False  # nothing is left after the last run
    return lengths[keep], np.concatenate([[0], keep.cumsum()])[first]


def _ones(lengths: Ints) -> tuple[Ints, Ints]:
    """Where the runs of 1 begin and end, without the empty ones."""
    ends = lengths.cumsum()
    end, length = ends[1::2], lengths[1::2]
    return (end - length)[length > 0], end[length > 0]


def _window(begin: Ints, end: Ints, height: int) -> tuple[int, int, int, int]:
    if not len(begin):
        return 0, 0, 0, 0
    (x1, top), (x2, bottom) = np.divmod(begin, height), np.divmod(end - 1, height)
    if (x1 != x2).any():  # a run over the end of a column
        return int(x1[0]), 0, int(x2[-1]) + 1, height
    return int(x1[0]), int(top.min()), int(x2[-1]) + 1, int(bottom.max()) + 1


def _painted(begin: Ints, end: Ints, window: tuple[int, int, int, int], height: int) -> NDArray[np.bool_]:
    """The pixels of the window, column by column."""
    x1, y1, x2, y2 = window
    bounds = np.stack([begin, end - 1], 1).reshape(-1)
    column, row = np.divmod(bounds, max(height, 1))
    flat = (column - x1) * (y2 - y1) + row - y1
    flat[1::2] += 1
    lengths = np.diff(flat, prepend=0, append=(x2 - x1) * (y2 - y1))
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
