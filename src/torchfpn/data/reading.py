"""One image and its labels, whole or a window, with a shared cache of decoded frames.

Reading one image and its labels as the dataset says: bands chosen, label values turned into class indices.

Decoded frames in memory that worker processes share, so that each file is decoded once and not once an epoch.

Scenes: images too large to be held, which are read by windows. Which images are, and the windows that cover them.
"""

import contextlib
import mmap
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.config import DatasetConfig
from torchfpn.data.headers import Header, quick_size, read_header
from torchfpn.data.splits import Pair
from torchfpn.errors import ConfigError, DataError, RasterError, amount
from torchfpn.geo.georef import Geo, check_same_grid
from torchfpn.geo.window import Window, tile, tiles
from torchfpn.io.bands import match_bands
from torchfpn.io.formats import format_of, is_vector
from torchfpn.io.images import Picture, read_image, swaps_sides
from torchfpn.io.labels import LabelFile, read_labels
from torchfpn.io.rasters import BLOCK_BYTES, check_blocks
from torchfpn.recipe import IGNORE

COLORS = ("red", "green", "blue")

_MANY = 5  # unknown values that a message names


@dataclass(frozen=True)
class Frame:
    """An image and its labels, nothing scaled.

    image: [C, H, W] in the type of the file. valid: [H, W], None: everywhere. band_names: of the C bands.
    target: [H, W] uint8, 0-based class indices; `IGNORE` where nothing is labelled or the image holds no data; [0, 0]
    where objects are labelled, not pixels.
    """

    image: NDArray[Any]
    valid: NDArray[np.bool_] | None
    target: NDArray[np.uint8]
    band_names: tuple[str, ...]


def refuse_objects(dataset: DatasetConfig) -> None:
    """Passes datasets whose pixels are labelled.

    Raises:
        ConfigError: it labels objects.
    """
    if dataset.has_objects:
        raise ConfigError(f"a dataset for {dataset.task}", file=dataset.file, field="task", allowed="semantic")


def read_picture(dataset: DatasetConfig, path: Path, window: Window | None = None) -> Picture:
    """The bands of an image that the dataset uses. window: the part to read, of a TIFF.

    Raises:
        DataError: damaged, too large, or without these bands.
    """
    limits: dict[str, Any] = {
        "max_pixels": dataset.max_pixels,
        "allow_vrt": dataset.allow_vrt,
        "root": dataset.root,
        "window": window,
    }
    try:
        picture = read_image(
            path, bands=dataset.use_bands or None, names=dataset.bands, nodata=dataset.nodata, **limits
        )
    except DataError:  # maybe since it is grey
        if not dataset.grey_as_color:
            raise
        picture = read_image(path, nodata=dataset.nodata, **limits)
        if len(picture.band_names) != 1:
            raise
    return _in_color(dataset, picture) if dataset.grey_as_color and len(picture.band_names) == 1 else picture


def grey_cure(one: int, other: int) -> str | None:
    """What helps where images have these numbers of bands: maybe some are grey, and others in colours."""
    return "show grey images in colours with `grey_as_color: true`" if {one, other} == {1, 3} else None


def swapped(found: Sequence[str], first: Sequence[str]) -> bool:
    """Whether these are the names of the same bands in another order."""
    return match_bands(found, first) not in (None, list(range(len(first))))


def check_order(file: Path, found: Sequence[str], first: Sequence[str], example: Path) -> None:
    """Passes an image whose bands are not named as those of the image `example` (called `first`) in another order.

    Raises:
        DataError: they are.
    """
    if swapped(found, first):
        raise DataError(
            f"names its bands {', '.join(found)}",
            file=file,
            allowed=f"the order of {example.name}: {', '.join(first)}",
            hint="read them by name: list them in `use_bands`",
        )


def _in_color(dataset: DatasetConfig, picture: Picture) -> Picture:
    """A grey image as one of three equal bands, or of those of them that are used."""
    names = dataset.bands if len(dataset.bands) == len(COLORS) else COLORS
    used = tuple(names[band - 1] if isinstance(band, int) else band for band in dataset.use_bands) or names
    return replace(picture, array=np.repeat(picture.array, len(used), axis=0), band_names=used)


def read_target(
    dataset: DatasetConfig, path: Path, window: Window | None = None
) -> tuple[NDArray[np.uint8], Geo | None]:
    """Class indices [H, W], `IGNORE` where nothing is labelled, and where they lie.

    Raises:
        DataError: damaged, several bands, or values that are neither class nor ignored.
    """
    labels = read_labels(
        path,
        colors=dataset.labels_are == "colors",
        max_pixels=dataset.max_pixels,
        allow_vrt=dataset.allow_vrt,
        root=dataset.root,
        window=window,
    )
    return class_indices(dataset, labels, path, (0, 0) if window is None else window[:2]), labels.geo


def read_pair(dataset: DatasetConfig, pair: Pair, window: Window | None = None) -> Frame:
    """An image with its labels, or a window of both; all `IGNORE` where the pair has none.

    Raises:
        DataError: either of them cannot be used, or they do not fit each other.
    """
    picture = read_picture(dataset, pair.image, window)
    target = np.full(picture.size, IGNORE, np.uint8)
    if pair.label is not None:
        target = fitting_target(dataset, pair, picture, window)
    return Frame(picture.array, picture.valid, hidden(target, picture.valid), picture.band_names)


def fitting_target(
    dataset: DatasetConfig, pair: Pair, picture: Picture, window: Window | None = None
) -> NDArray[np.uint8]:
    """Class indices [H, W] of the pixels of an image that has labels, or of a window of it.

    Raises:
        DataError: the labels cannot be used, or do not fit the image.
    """
    assert pair.label is not None  # the caller has seen to it
    size = whole_size(dataset, pair.image, picture, window)
    if is_vector(pair.label):
        drawn: NDArray[np.uint8] = burning().burn(dataset, pair, picture.geo, size, window).target
        return drawn
    if window is None:
        target, geo = read_target(dataset, pair.label)
        check_fit(pair, size, picture.geo, target.shape, geo)
        return target
    header = read_header(dataset, pair.label)
    if header is not None:  # else the reading says what is wrong
        check_fit(pair, size, picture.geo, header.size, header.geo)
    return read_target(dataset, pair.label, window)[0]


def whole_size(dataset: DatasetConfig, path: Path, picture: Picture, window: Window | None) -> tuple[int, int]:
    """(height, width) of the image of which `picture` is all, or a window."""
    return picture.size if window is None else _size(dataset, path, picture.size)


def hidden(target: NDArray[np.uint8], valid: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """The labels, `IGNORE` where the image holds no data."""
    return target if valid is None else np.where(valid, target, np.uint8(IGNORE))


def burning() -> Any:
    """The module that draws polygons, which needs more packages than the rest.

    Raises:
        RasterError: they are not installed, with the command that installs them.
    """
    try:
        from torchfpn.data.labels import polygons as burning
    except ImportError as error:
        raise RasterError(
            f"labels that are polygons need {error.name}", hint="install it: pip install torchfpn[raster]"
        ) from error
    return burning


def _size(dataset: DatasetConfig, path: Path, part: tuple[int, int]) -> tuple[int, int]:
    """Of the whole image."""
    header = read_header(dataset, path)
    return part if header is None else header.size


def check_fit(
    pair: Pair, size: tuple[int, ...], place: Geo | None, label_size: tuple[int, ...], label_place: Geo | None
) -> None:
    """Passes labels of the size and, where both files say, on the grid of the image.

    Raises:
        DataError: with both sizes, or both grids.
    """
    (h, w), (th, tw) = size, label_size
    if (h, w) != (th, tw):
        turned = turned_hint(pair.image) if (w, h) == (th, tw) else ""
        raise DataError(f"labels of {tw} x {th} pixels for an image of {w} x {h}{turned}", file=pair.label)
    check_same_grid(label_place, place, (h, w), file=pair.label, name="the image", subject="labels")


def turned_hint(image: Path) -> str:
    """Why the sides of an image and of its labels may have changed places."""
    kind = format_of(image)
    if kind in ("png", "jpeg") and swaps_sides(image, kind):
        return "; the EXIF orientation of the image has been applied"
    return "; height and width have changed places"


def class_indices(
    dataset: DatasetConfig, labels: LabelFile, file: Path, corner: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """[H, W] class indices of the values of a label file. corner: (row, column) of a window's first pixel.

    Where the mask of the file says that nothing is labelled, nothing is. A nodata value the file declares counts as
    ignored, unless a class has it: GIS programs like to declare 0. So does what is transparent in labels by colours.

    Raises:
        DataError: values that are neither, with the number of pixels and the first place.
    """
    if dataset.labels_are == "colors":
        known = {_code(c.color): i for i, c in enumerate(dataset.classes)}
        ignored = [] if dataset.ignore_color is None else [_code(dataset.ignore_color)]
    else:
        known = {c.id: i for i, c in enumerate(dataset.classes)}
        ignored = [*dataset.ignored, *([] if labels.nodata is None else [labels.nodata])]
    indices = _looked_up(labels.values, {**dict.fromkeys(ignored, IGNORE), **known})
    if labels.valid is not None:
        indices[~labels.valid & ((indices < 0) | (dataset.labels_are == "values"))] = IGNORE
    if (indices < 0).any():
        raise _unknown(dataset, labels.values, indices < 0, file, corner)
    return indices.astype(np.uint8)


def _looked_up(values: NDArray[Any], table: dict[int, int]) -> NDArray[np.int16]:
    """-1 where the table has nothing."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        lookup = np.full(np.iinfo(values.dtype).max + 1, -1, np.int16)
        for value, index in table.items():
            if 0 <= value < len(lookup):
                lookup[value] = index
        return np.asarray(lookup[values])
    found, places = np.unique(values, return_inverse=True)
    lookup = np.array([table.get(int(value), -1) for value in found], np.int16)
    return np.asarray(lookup[places].reshape(values.shape))


def _unknown(
    dataset: DatasetConfig, values: NDArray[Any], bad: NDArray[np.bool_], file: Path, corner: tuple[int, int]
) -> DataError:
    row, column = (int(v) + start for v, start in zip(np.argwhere(bad)[0], corner, strict=True))
    found, counts = np.unique(values[bad], return_counts=True)
    colors = dataset.labels_are == "colors"
    shown = [
        f"{_shown(int(v), colors)} in {amount(n, 'pixel')}" for v, n in list(zip(found, counts, strict=True))[:_MANY]
    ]
    more = f" and {len(found) - _MANY} more" if len(found) > _MANY else ""
    return DataError(
        f"the {'color' if colors else 'value'} {', '.join(shown)}{more}, first at (row, column) ({row}, {column})",
        file=file,
        allowed=_allowed(dataset),
        hint="add a class, or ignore it with " + ("ignore_color" if colors else "ignore_index"),
    )


def _allowed(dataset: DatasetConfig) -> str:
    colors = dataset.labels_are == "colors"
    shown = [f"{_shown(_code(c.color), True) if colors else c.id} {c.name}" for c in dataset.classes[:20]]
    more = " ..." if len(dataset.classes) > 20 else ""
    ignored = "" if colors or not dataset.ignored else f"; {', '.join(map(str, dataset.ignored))} not labelled"
    return ", ".join(shown) + more + ignored


def _code(color: tuple[int, int, int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _shown(value: int, color: bool) -> str:
    return f"({value >> 16}, {value >> 8 & 255}, {value & 255})" if color else str(value)


AUTO_BYTES = 2**30  # a split is kept by itself if it is not larger than this

_WAIT = 5.0  # seconds; a worker killed while it held the lock must not stop the others

_FIELDS = 6  # state, offset, C, H, W, parts beside the image

_MASK, _TARGET = 1, 2

_TAKEN, _STORED = 1, 2

_ALIGN = 64


class FrameCache:
    """Room for the frames of a split, filled as they are first read, in their own pixel type.

    Anonymous shared memory: forked workers fill and read the same pages, /dev/shm (64 MB in many containers) is not
    used, and what is not filled costs nothing. Pickled (spawned workers), it arrives empty and private.
    What does not fit any more is simply not kept. Frames that come out are views: copy before changing.

    Args:
        n: frames. dtype: of their images, from the first one. capacity: bytes.
    """

    def __init__(self, n: int, dtype: np.dtype[Any], band_names: tuple[str, ...], capacity: int) -> None:
        self.n, self.dtype, self.band_names, self.capacity = n, dtype, band_names, capacity
        self._lock = multiprocessing.Lock()
        size = 8 * (1 + n * _FIELDS)
        self._memory = mmap.mmap(-1, size + _ALIGN + capacity)
        table = np.frombuffer(self._memory, np.int64, 1 + n * _FIELDS)
        self._used, self._table = table[:1], table[1:].reshape(n, _FIELDS)
        self._data = np.frombuffer(self._memory, np.uint8)[-(-size // _ALIGN) * _ALIGN :][:capacity]

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameCache, (self.n, self.dtype, self.band_names, self.capacity)

    def get(self, index: int) -> Frame | None:
        """The frame, if it has been put."""
        with self._held() as held:
            if not held or self._table[index, 0] != _STORED:
                return None
        _, offset, c, h, w, parts = (int(v) for v in self._table[index])
        image, offset = self._view(offset, (c, h, w), self.dtype)
        target, offset = self._view(offset, (h, w) if parts & _TARGET else (0, 0), np.dtype(np.uint8))
        valid = self._view(offset, (h, w), np.dtype(np.bool_))[0] if parts & _MASK else None
        return Frame(image, valid, target, self.band_names)

    def put(self, index: int, frame: Frame) -> None:
        """Keeps the frame, if there is room and it is like the others."""
        if frame.image.dtype != self.dtype or frame.band_names != self.band_names:
            return
        parts = [frame.image, frame.target] + ([] if frame.valid is None else [frame.valid])
        size = sum(-(-part.nbytes // _ALIGN) * _ALIGN for part in parts)
        with self._held() as held:
            offset = int(self._used[0])
            if not held or self._table[index, 0] or offset + size > self.capacity:
                return
            self._used[0] = offset + size  # room is taken under the lock, filled without it
            self._table[index, 0] = _TAKEN
        beside = _MASK * (frame.valid is not None) + _TARGET * (frame.target.size > 0)
        self._table[index, 1:] = (offset, *frame.image.shape, beside)
        for part in parts:
            view, offset = self._view(offset, part.shape, part.dtype)
            view[...] = part
        with self._held() as held:  # the lock also orders the writes for the readers of other cores
            self._table[index, 0] = _STORED if held else _TAKEN

    @contextlib.contextmanager
    def _held(self) -> Iterator[bool]:
        held = self._lock.acquire(timeout=_WAIT)
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    def _view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
        size = int(np.prod(shape)) * dtype.itemsize
        view = self._data[offset : offset + size].view(dtype).reshape(shape)
        return view, offset + -(-size // _ALIGN) * _ALIGN


def frame_bytes(frame: Frame) -> int:
    """What the frame takes in memory."""
    return frame.image.nbytes + frame.target.nbytes + (0 if frame.valid is None else frame.valid.nbytes)


def most_memory() -> int:
    """Bytes a cache may take that was asked for outright: four fifths of the machine's memory."""
    if not hasattr(os, "sysconf"):
        return 8 * AUTO_BYTES
    return int(0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


SIDE, MARGIN = 1024, 64  # pixels of a window, and of what is seen around it without being counted

_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf")

_AT_ONCE = SIDE * SIDE  # pixels that are read at a time


class Piece(NamedTuple):
    """An image to be read: whole, or a window of a scene."""

    pair: Pair
    window: Window | None = None


def scene_of(dataset: DatasetConfig, pair: Pair) -> Header | None:
    """The header of an image that is a scene: a TIFF or JPEG 2000 of more than `scene_pixels`, labels that allow it.

    A mask that is no TIFF can only be read whole, and so is its image then. Files that are damaged are no scenes: who
    reads them says so.

    Raises:
        RasterError: too large to be read whole, and stored so that it cannot be read by windows.
    """
    try:
        if pair.image.suffix.lower() not in _SUFFIXES:  # folders may hold 10^5 photographs: none is opened for this
            return None
        size = quick_size(pair.image)
        if size is not None and size[0] * size[1] <= dataset.scene_pixels:
            return None
        header = read_header(dataset, pair.image)
        if header is None or header.pixels <= dataset.scene_pixels:
            return None
        if not _by_windows(dataset, pair):
            return None
    except DataError:
        return None
    if header.block_bytes > BLOCK_BYTES:
        if header.pixels > dataset.max_pixels:
            check_blocks(header.blocks, header.block_bytes, pair.image)
        return None
    return header


def _by_windows(dataset: DatasetConfig, pair: Pair) -> bool:
    """Whether the labels of an image can be read by windows; numbered objects are found in whole images."""
    if pair.label is None or is_vector(pair.label):
        return True
    return not dataset.has_objects and read_header(dataset, pair.label) is not None


def pieces(dataset: DatasetConfig, pairs: Sequence[Pair]) -> list[Piece]:
    """All pixels of all pairs, once each: images whole, scenes by windows that suit the way they are stored.

    Raises:
        RasterError: see `scene_of`.
    """
    found: list[Piece] = []
    for pair in pairs:
        header = scene_of(dataset, pair)
        if header is None:
            found.append(Piece(pair))
        else:
            found += [Piece(pair, window) for window in reading_windows(header)]
    return found


def reading_windows(header: Header) -> list[Window]:
    """Windows of about a million pixels that cover a scene once: squares, or whole rows where it is stored by rows."""
    width = header.size[1]
    if not header.striped or width > _AT_ONCE:
        return tiles(header.size, (SIDE, SIDE))
    rows = max(1, _AT_ONCE // width)
    step = header.blocks[0]
    tall = max(step, rows // step * step) if step * width <= 4 * _AT_ONCE else rows
    return tiles(header.size, (tall, width))


def tile_count(size: tuple[int, int]) -> int:
    """How many windows `nth_tile` counts."""
    return -(-size[0] // SIDE) * -(-size[1] // SIDE)


def nth_tile(size: tuple[int, int], n: int) -> Window:
    """The window number `n` of a scene that is cut into squares of `SIDE` pixels, without the others."""
    return tile(size, (SIDE, SIDE), *divmod(n, -(-size[1] // SIDE)))


def with_margin(window: Window, size: tuple[int, int]) -> Window:
    """The window with `MARGIN` more pixels on every side, as far as the image goes."""
    return window.padded(MARGIN).clipped(*size)


def only_inside(target: NDArray[np.uint8], seen: Window, core: Window) -> NDArray[np.uint8]:
    """Labels [H, W] of the window `seen`, `IGNORE` outside of the window `core` within it."""
    kept = core.within(seen).slices
    result = np.full_like(target, IGNORE)
    result[kept] = target[kept]
    return result
