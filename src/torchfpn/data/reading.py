"""Reading one image and its labels as the dataset says: bands chosen, label values turned into class indices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.dataset import Dataset
from torchfpn.data.headers import read_header
from torchfpn.data.splits import Pair
from torchfpn.errors import ConfigError, DataError, RasterError, amount
from torchfpn.files.bands import match_bands
from torchfpn.files.formats import format_of
from torchfpn.files.geo import SAME_GRID, Geo, Window
from torchfpn.files.images import Picture, read_image
from torchfpn.files.labels import LabelFile, read_labels
from torchfpn.files.photographs import swaps_sides
from torchfpn.files.rasters import same_crs
from torchfpn.recipe import IGNORE
from torchfpn.vectors.formats import is_vector

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


def refuse_objects(dataset: Dataset) -> None:
    """Passes datasets whose pixels are labelled.

    Raises:
        ConfigError: it labels objects.
    """
    if dataset.has_objects:
        raise ConfigError(f"a dataset for {dataset.task}", file=dataset.file, field="task", allowed="semantic")


def read_picture(dataset: Dataset, path: Path, window: Window | None = None) -> Picture:
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


def _in_color(dataset: Dataset, picture: Picture) -> Picture:
    """A grey image as one of three equal bands, or of those of them that are used."""
    names = dataset.bands if len(dataset.bands) == len(COLORS) else COLORS
    used = tuple(names[band - 1] if isinstance(band, int) else band for band in dataset.use_bands) or names
    return replace(picture, array=np.repeat(picture.array, len(used), axis=0), band_names=used)


def read_target(dataset: Dataset, path: Path, window: Window | None = None) -> tuple[NDArray[np.uint8], Geo | None]:
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


def read_pair(dataset: Dataset, pair: Pair, window: Window | None = None) -> Frame:
    """An image with its labels, or a window of both; all `IGNORE` where the pair has none.

    Raises:
        DataError: either of them cannot be used, or they do not fit each other.
    """
    picture = read_picture(dataset, pair.image, window)
    target = np.full(picture.size, IGNORE, np.uint8)
    if pair.label is not None:
        target = fitting_target(dataset, pair, picture, window)
    return Frame(picture.array, picture.valid, hidden(target, picture.valid), picture.band_names)


def fitting_target(dataset: Dataset, pair: Pair, picture: Picture, window: Window | None = None) -> NDArray[np.uint8]:
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


def whole_size(dataset: Dataset, path: Path, picture: Picture, window: Window | None) -> tuple[int, int]:
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
        from torchfpn.data import burning
    except ImportError as error:
        raise RasterError(
            f"labels that are polygons need {error.name}", hint="install it: pip install torchfpn[raster]"
        ) from error
    return burning


def _size(dataset: Dataset, path: Path, part: tuple[int, int]) -> tuple[int, int]:
    """Of the whole image."""
    header = read_header(dataset, path)
    return part if header is None else header.size


def check_fit(
    pair: Pair, size: tuple[int, ...], place: Geo | None, label_size: tuple[int, ...], label_place: Geo | None
) -> None:
    """Passes labels of the size and, where both files say, on the grid of the image (to 0.01 pixels).

    Raises:
        DataError: with both sizes, or both grids.
    """
    (h, w), (th, tw) = size, label_size
    if (h, w) != (th, tw):
        turned = turned_hint(pair.image) if (w, h) == (th, tw) else ""
        raise DataError(f"labels of {tw} x {th} pixels for an image of {w} x {h}{turned}", file=pair.label)
    if label_place is None or place is None:
        return
    if label_place.crs and place.crs and not same_crs(label_place.crs, place.crs):
        raise DataError("labels in another coordinate system than the image", file=pair.label, hint="reproject them")
    apart = place.distance(label_place, h, w)
    if not apart <= SAME_GRID:
        raise DataError(
            f"labels on another grid than the image, {apart:.3g} pixels apart: {list(label_place.transform)} for"
            f" {list(place.transform)}",
            file=pair.label,
            allowed=f"at most {SAME_GRID} pixels",
        )


def turned_hint(image: Path) -> str:
    """Why the sides of an image and of its labels may have changed places."""
    kind = format_of(image)
    if kind in ("png", "jpeg") and swaps_sides(image, kind):
        return "; the EXIF orientation of the image has been applied"
    return "; height and width have changed places"


def class_indices(
    dataset: Dataset, labels: LabelFile, file: Path, corner: tuple[int, int] = (0, 0)
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
    dataset: Dataset, values: NDArray[Any], bad: NDArray[np.bool_], file: Path, corner: tuple[int, int]
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


def _allowed(dataset: Dataset) -> str:
    colors = dataset.labels_are == "colors"
    shown = [f"{_shown(_code(c.color), True) if colors else c.id} {c.name}" for c in dataset.classes[:20]]
    more = " ..." if len(dataset.classes) > 20 else ""
    ignored = "" if colors or not dataset.ignored else f"; {', '.join(map(str, dataset.ignored))} not labelled"
    return ", ".join(shown) + more + ignored


def _code(color: tuple[int, int, int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _shown(value: int, color: bool) -> str:
    return f"({value >> 16}, {value >> 8 & 255}, {value & 255})" if color else str(value)
