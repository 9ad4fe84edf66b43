"""Reading one image and its labels, whole or a window: bands, class indices, scenes, and a cache of decoded frames."""

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

from torchfpn.classes import UNKNOWN, ClassMap, pack_color, unpack_color
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

SIDE, MARGIN = 1024, 64  # pixels of a window of a scene, and of the margin around it that is seen and not counted

AUTO_BYTES = 2**30  # a split up to this size is cached by default

_MAX_VALUES = 5  # unknown values that a message names

_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf")  # of files that may be scenes

_MAX_READ = SIDE * SIDE  # pixels that are read at a time


@dataclass(frozen=True)
class Frame:
    """An image and its labels as read, unscaled.

    Attributes:
        image: [C, H, W] in the dtype of the file.
        valid: [H, W], where there is data; None: everywhere.
        target: [H, W] uint8 class indices; `IGNORE` where nothing is labelled or the image has no data; [0, 0] in
            datasets of objects, also in panoptic ones.
        band_names: of the C bands.
    """

    image: NDArray[Any]
    valid: NDArray[np.bool_] | None
    target: NDArray[np.uint8]
    band_names: tuple[str, ...]


def read_pair(dataset: DatasetConfig, pair: Pair, window: Window | None = None) -> Frame:
    """Reads an image with its labels, or a window of both; all `IGNORE` if the pair has no labels.

    Raises:
        DataError: one of them cannot be used, or they do not fit each other.
    """
    picture = read_picture(dataset, pair.image, window)
    target = np.full(picture.size, IGNORE, np.uint8)
    if pair.label is not None:
        target = read_aligned_target(dataset, pair, picture, window)
    return Frame(picture.array, picture.valid, mask_target(target, picture.valid), picture.band_names)


def read_aligned_target(
    dataset: DatasetConfig, pair: Pair, picture: Picture, window: Window | None = None
) -> NDArray[np.uint8]:
    """Reads the class indices [H, W] on the grid of an image that has labels, or of a window of it.

    Raises:
        DataError: the labels cannot be used, or do not fit the image.
    """
    assert pair.label is not None  # checked by the caller
    size = whole_size(dataset, pair.image, picture, window)
    if is_vector(pair.label):
        drawn: NDArray[np.uint8] = polygon_labels().rasterize_labels(dataset, pair, picture.geo, size, window).target
        return drawn
    if window is None:
        target, geo = read_target(dataset, pair.label)
        check_fit(pair, size, picture.geo, target.shape, geo)
        return target
    header = read_header(dataset, pair.label)
    if header is not None:  # otherwise reading reports the error
        check_fit(pair, size, picture.geo, header.size, header.geo)
    return read_target(dataset, pair.label, window)[0]


def read_picture(dataset: DatasetConfig, path: Path, window: Window | None = None) -> Picture:
    """Reads the bands of an image that the dataset uses. window: the part to read, of a TIFF.

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
    except DataError:  # maybe because it is grey
        if not dataset.grey_as_color:
            raise
        picture = read_image(path, nodata=dataset.nodata, **limits)
        if len(picture.band_names) != 1:
            raise
    return _in_color(dataset, picture) if dataset.grey_as_color and len(picture.band_names) == 1 else picture


def _in_color(dataset: DatasetConfig, picture: Picture) -> Picture:
    """A grey image as an image of three equal bands, or of those of the three that are used."""
    names = dataset.bands if len(dataset.bands) == len(COLORS) else COLORS
    used = tuple(names[band - 1] if isinstance(band, int) else band for band in dataset.use_bands) or names
    return replace(picture, array=np.repeat(picture.array, len(used), axis=0), band_names=used)


def read_target(
    dataset: DatasetConfig, path: Path, window: Window | None = None
) -> tuple[NDArray[np.uint8], Geo | None]:
    """Reads class indices [H, W], `IGNORE` where nothing is labelled, and their georeference.

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


def class_map(dataset: DatasetConfig) -> ClassMap:
    """The classes of a dataset by their values in label files; where colors mean classes, by `pack_color`."""
    colors = tuple(c.color for c in dataset.classes)
    if dataset.labels_are == "colors":
        ignored = frozenset() if dataset.ignore_color is None else frozenset({pack_color(dataset.ignore_color)})
        return ClassMap(tuple(map(pack_color, colors)), dataset.names, colors, ignored)
    return ClassMap(tuple(c.id for c in dataset.classes), dataset.names, colors, frozenset(dataset.ignored))


def class_indices(
    dataset: DatasetConfig, labels: LabelFile, file: Path, corner: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """Class indices [H, W] of the values of a label file; `IGNORE` where its mask says that there is no data.

    The nodata value that a file declares is ignored unless it is a class: GIS programs often declare 0. Transparent
    colors are treated alike.

    Args:
        dataset: with the classes.
        labels: the values.
        file: named in errors.
        corner: (row, column) of the first pixel of a window, for errors.

    Raises:
        DataError: values that are neither class nor ignored, with their pixel counts and the first place.
    """
    colors = dataset.labels_are == "colors"
    indices = class_map(dataset).indices(labels.values, None if colors else labels.nodata)
    if labels.valid is not None:
        indices[~labels.valid & ((indices == UNKNOWN) | (not colors))] = IGNORE
    if (bad := indices == UNKNOWN).any():
        raise _unknown(dataset, labels.values, bad, file, corner)
    return indices.astype(np.uint8)


def _unknown(
    dataset: DatasetConfig, values: NDArray[Any], bad: NDArray[np.bool_], file: Path, corner: tuple[int, int]
) -> DataError:
    row, column = (int(v) + start for v, start in zip(np.argwhere(bad)[0], corner, strict=True))
    found, counts = np.unique(values[bad], return_counts=True)
    colors = dataset.labels_are == "colors"
    shown = [
        f"{_shown(int(v), colors)} in {amount(n, 'pixel')}"
        for v, n in list(zip(found, counts, strict=True))[:_MAX_VALUES]
    ]
    more = f" and {len(found) - _MAX_VALUES} more" if len(found) > _MAX_VALUES else ""
    return DataError(
        f"the {'color' if colors else 'value'} {', '.join(shown)}{more}, first at (row, column) ({row}, {column})",
        file=file,
        allowed=_allowed(dataset),
        hint="add a class, or ignore it with " + ("ignore_color" if colors else "ignore_index"),
    )


def _allowed(dataset: DatasetConfig) -> str:
    colors = dataset.labels_are == "colors"
    ignored = "" if colors or not dataset.ignored else f"; {', '.join(map(str, dataset.ignored))} not labelled"
    return class_map(dataset).listed(lambda value: _shown(value, colors)) + ignored


def _shown(value: int, color: bool) -> str:
    return str(unpack_color(value) if color else value)


def check_fit(
    pair: Pair, size: tuple[int, ...], place: Geo | None, label_size: tuple[int, ...], label_place: Geo | None
) -> None:
    """Refuses labels of another size than the image, or on another grid where both files have a georeference.

    Args:
        pair: the files.
        size: (height, width) of the image.
        place: georeference of the image.
        label_size: (height, width) of the labels.
        label_place: georeference of the labels.

    Raises:
        DataError: sizes or grids differ.
    """
    (h, w), (th, tw) = size, label_size
    if (h, w) != (th, tw):
        turned = turned_hint(pair.image) if (w, h) == (th, tw) else ""
        raise DataError(f"labels of {tw} x {th} pixels for an image of {w} x {h}{turned}", file=pair.label)
    check_same_grid(label_place, place, (h, w), file=pair.label, name="the image", subject="labels")


def turned_hint(image: Path) -> str:
    """The likely reason why height and width of an image and of its labels are exchanged."""
    kind = format_of(image)
    if kind in ("png", "jpeg") and swaps_sides(image, kind):
        return "; the EXIF orientation of the image has been applied"
    return "; height and width have changed places"


def mask_target(target: NDArray[np.uint8], valid: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """The labels, `IGNORE` where the image has no data."""
    return target if valid is None else np.where(valid, target, np.uint8(IGNORE))


def whole_size(dataset: DatasetConfig, path: Path, picture: Picture, window: Window | None) -> tuple[int, int]:
    """(height, width) of the image of which `picture` is the whole, or a window."""
    header = None if window is None else read_header(dataset, path)
    return picture.size if header is None else header.size


def polygon_labels() -> Any:
    """The module that rasterizes polygons, which needs optional packages.

    Raises:
        RasterError: they are not installed.
    """
    try:
        from torchfpn.data.labels import polygons
    except ImportError as error:
        raise RasterError(
            f"labels that are polygons need {error.name}", hint="install it: pip install torchfpn[raster]"
        ) from error
    return polygons


def grey_hint(one: int, other: int) -> str | None:
    """The hint for images of these numbers of bands, if some may be grey and others in colour."""
    return "show grey images in colours with `grey_as_color: true`" if {one, other} == {1, 3} else None


def is_reordered(found: Sequence[str], first: Sequence[str]) -> bool:
    """Whether `found` are the names of the same bands as `first` in another order."""
    return match_bands(found, first) not in (None, list(range(len(first))))


def check_order(file: Path, found: Sequence[str], first: Sequence[str], example: Path) -> None:
    """Refuses an image with the bands of another image, `example`, in another order.

    Args:
        file: the image.
        found: names of its bands.
        first: names of the bands of `example`.
        example: an image of the dataset.

    Raises:
        DataError: the order differs.
    """
    if is_reordered(found, first):
        raise DataError(
            f"names its bands {', '.join(found)}",
            file=file,
            allowed=f"the order of {example.name}: {', '.join(first)}",
            hint="read them by name: list them in `use_bands`",
        )


def require_semantic(dataset: DatasetConfig) -> None:
    """Refuses datasets of objects.

    Raises:
        ConfigError: the dataset is one.
    """
    if dataset.has_objects:
        raise ConfigError(f"a dataset for {dataset.task}", file=dataset.file, field="task", allowed="semantic")


class ImagePart(NamedTuple):
    """What is read at a time: an image, or a window of a scene."""

    pair: Pair
    window: Window | None = None


def scene_of(dataset: DatasetConfig, pair: Pair) -> Header | None:
    """The header of a scene: a TIFF or JPEG 2000 of more than `scene_pixels` that is read by windows; None for others.

    An image whose labels can only be read whole is no scene; nor is a damaged file, whose error appears on reading.

    Raises:
        RasterError: too large to be read whole, and stored in blocks too large to be read by windows.
    """
    try:
        if pair.image.suffix.lower() not in _SUFFIXES:  # folders may hold 10^5 photographs: none is opened here
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
    """Whether the labels of an image can be read by windows; instance maps are read whole."""
    if pair.objects is not None and not is_vector(pair.objects):
        return False
    if pair.label is None or is_vector(pair.label):
        return True
    masks = not dataset.has_objects or pair.objects is not None
    return masks and read_header(dataset, pair.label) is not None


def image_parts(dataset: DatasetConfig, pairs: Sequence[Pair]) -> list[ImagePart]:
    """Images and windows that cover all pixels of all pairs once; windows fit the blocks of the file.

    Raises:
        RasterError: see `scene_of`.
    """
    found: list[ImagePart] = []
    for pair in pairs:
        header = scene_of(dataset, pair)
        if header is None:
            found.append(ImagePart(pair))
        else:
            found += [ImagePart(pair, window) for window in reading_windows(header)]
    return found


def reading_windows(header: Header) -> list[Window]:
    """Windows of about a million pixels that cover a scene once: squares, or whole rows of a striped file."""
    width = header.size[1]
    if not header.striped or width > _MAX_READ:
        return tiles(header.size, (SIDE, SIDE))
    rows = max(1, _MAX_READ // width)
    step = header.blocks[0]
    tall = max(step, rows // step * step) if step * width <= 4 * _MAX_READ else rows
    return tiles(header.size, (tall, width))


def window_count(size: tuple[int, int]) -> int:
    """The number of windows of `nth_window`."""
    return -(-size[0] // SIDE) * -(-size[1] // SIDE)


def nth_window(size: tuple[int, int], n: int) -> Window:
    """The window number `n` of a scene that is divided into squares of `SIDE` pixels."""
    return tile(size, (SIDE, SIDE), *divmod(n, -(-size[1] // SIDE)))


def pad_window(window: Window, size: tuple[int, int]) -> Window:
    """The window with `MARGIN` more pixels on every side, clipped to the image."""
    return window.padded(MARGIN).clipped(*size)


def ignore_outside(target: NDArray[np.uint8], padded: Window, core: Window) -> NDArray[np.uint8]:
    """Labels [H, W] of the window `padded`, `IGNORE` outside of the window `core` within it."""
    kept = core.within(padded).slices
    result = np.full_like(target, IGNORE)
    result[kept] = target[kept]
    return result


class FrameCache:
    """Decoded frames of a split in memory that worker processes share, filled as they are first read.

    The memory is anonymous and shared: forked workers fill and read the same pages, /dev/shm (64 MB in many
    containers) is not used, and unused capacity costs nothing. A pickled copy (spawned workers) is empty and private.
    Frames beyond the capacity are not kept. `get` returns views: copy them before changing.

    Args:
        n: number of frames.
        dtype: of their images.
        band_names: of their images.
        capacity: in bytes.
    """

    WAIT = 5.0  # seconds; a worker killed while it held the lock must not stop the others

    FIELDS = 6  # of a frame in the table: state, offset, C, H, W, arrays beside the image

    MASK, TARGET = 1, 2  # bits of the arrays beside the image

    TAKEN, STORED = 1, 2  # states

    ALIGN = 64  # bytes

    def __init__(self, n: int, dtype: np.dtype[Any], band_names: tuple[str, ...], capacity: int) -> None:
        self.n, self.dtype, self.band_names, self.capacity = n, dtype, band_names, capacity
        self._lock = multiprocessing.Lock()
        size = 8 * (1 + n * self.FIELDS)
        self._memory = mmap.mmap(-1, size + self.ALIGN + capacity)
        table = np.frombuffer(self._memory, np.int64, 1 + n * self.FIELDS)
        self._used, self._table = table[:1], table[1:].reshape(n, self.FIELDS)
        self._data = np.frombuffer(self._memory, np.uint8)[-(-size // self.ALIGN) * self.ALIGN :][:capacity]

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameCache, (self.n, self.dtype, self.band_names, self.capacity)

    def get(self, index: int) -> Frame | None:
        """The frame, if it has been stored."""
        with self._held() as held:
            if not held or self._table[index, 0] != self.STORED:
                return None
        _, offset, c, h, w, parts = (int(v) for v in self._table[index])
        image, offset = self._view(offset, (c, h, w), self.dtype)
        target, offset = self._view(offset, (h, w) if parts & self.TARGET else (0, 0), np.dtype(np.uint8))
        valid = self._view(offset, (h, w), np.dtype(np.bool_))[0] if parts & self.MASK else None
        return Frame(image, valid, target, self.band_names)

    def put(self, index: int, frame: Frame) -> None:
        """Stores the frame, if there is room and it has the dtype and bands of the others."""
        if frame.image.dtype != self.dtype or frame.band_names != self.band_names:
            return
        parts = [frame.image, frame.target] + ([] if frame.valid is None else [frame.valid])
        size = sum(-(-part.nbytes // self.ALIGN) * self.ALIGN for part in parts)
        with self._held() as held:
            offset = int(self._used[0])
            if not held or self._table[index, 0] or offset + size > self.capacity:
                return
            self._used[0] = offset + size  # room is reserved under the lock, filled without it
            self._table[index, 0] = self.TAKEN
        beside = self.MASK * (frame.valid is not None) + self.TARGET * (frame.target.size > 0)
        self._table[index, 1:] = (offset, *frame.image.shape, beside)
        for part in parts:
            view, offset = self._view(offset, part.shape, part.dtype)
            view[...] = part
        with self._held() as held:  # the lock also orders the writes for the readers of other cores
            self._table[index, 0] = self.STORED if held else self.TAKEN

    @contextlib.contextmanager
    def _held(self) -> Iterator[bool]:
        held = self._lock.acquire(timeout=self.WAIT)
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    def _view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
        size = int(np.prod(shape)) * dtype.itemsize
        view = self._data[offset : offset + size].view(dtype).reshape(shape)
        return view, offset + -(-size // self.ALIGN) * self.ALIGN


def frame_bytes(frame: Frame) -> int:
    """Memory of a frame in bytes."""
    return frame.image.nbytes + frame.target.nbytes + (0 if frame.valid is None else frame.valid.nbytes)


def max_cache_bytes() -> int:
    """Limit of an explicitly requested cache: four fifths of the memory of the machine."""
    if not hasattr(os, "sysconf"):
        return 8 * AUTO_BYTES
    return int(0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
