"""Finds the scaling of the bands on the training images; from then on it travels with the model."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.config import SCALINGS, DatasetConfig
from torchfpn.data.moments import Moments, drop_extreme
from torchfpn.data.parallel import Watch, map_threads, spread_evenly, unwatched
from torchfpn.data.reading import COLORS, ImagePart, check_order, grey_hint, image_parts, read_picture
from torchfpn.data.sampler import key
from torchfpn.errors import ConfigError, DataError, amount, nearest
from torchfpn.io.bands import is_name, match_bands
from torchfpn.io.images import Picture
from torchfpn.recipe import Scaling

MAX_FILES = 2000  # files or windows of scenes that are read, evenly spaced

_MAX_VALUES = 2**20  # per band, for percentiles

_COLOR_FILES = 64  # files that are checked for 8-bit colors; training checks every image it reads

T = TypeVar("T")

Ranks = NDArray[np.float64]  # random numbers of pixels


def find_scaling(
    dataset: DatasetConfig,
    split: str = "train",
    method: str = "auto",
    *,
    pretrained: bool | Scaling = False,
    watch: Watch = unwatched,
) -> tuple[Scaling, str]:
    """The scaling of the bands that the dataset uses, and the pixel type of its images.

    * auto: as dataset.yaml says; else, for 8-bit red, green, blue and `pretrained` weights, their constants; else
      mean-std.
    * mean-std: mean and standard deviation of all valid pixels, summed in float64.
    * percentile: (p2 + p98) / 2 and (p98 - p2) / 4 of a fixed uniform sample of valid pixels, so that nearly all
      scaled values lie within -2..2; for data with far outliers.
    * imagenet: ImageNet's constants for 8-bit red, green and blue, found by name, or in this order without names.

    mean-std and percentile leave out pixels with a value beyond 2^64, which models take for no data (`fpn check`
    counts them). A constant band gets the scale 1.

    Args:
        dataset: the dataset.
        split: whose images are read.
        method: one of the five.
        pretrained: constants of the pretrained weights; True: ImageNet's; False: no pretrained weights.
        watch: shows the progress.

    Returns:
        The scaling, and the dtype of the images.

    Raises:
        ConfigError: no such method, a given scaling for another number of bands, or ImageNet's constants for images
            that are not 8-bit red, green, blue.
        DataError: images of several pixel types or band orders, or without a valid pixel.
    """
    if method not in SCALINGS:
        raise ConfigError(f'no scaling "{method}"', field="scaling", hint=nearest(method, SCALINGS))
    parts = image_parts(dataset, dataset.pairs(split))
    first = _read(dataset, parts[0])
    if method == "auto" and dataset.scaling is not None:
        return _check_count(dataset, dataset.scaling, first), first.dtype
    constants = pretrained if isinstance(pretrained, Scaling) else Scaling.imagenet()
    wanted = dataset.scaling_method if method == "auto" else method
    if wanted == "auto" and pretrained and first.dtype == "uint8" and first.band_names == COLORS:
        wanted = "pretrained"
    if wanted in ("imagenet", "pretrained"):
        few = spread_evenly(parts, _COLOR_FILES)
        for piece, kind in zip(few, map_threads(lambda p: _ImageType.of(_read(dataset, p)), few), strict=True):
            _check_like_first(piece, kind, parts[0], _ImageType.of(first))
        return _color_scaling(dataset, Scaling.imagenet() if wanted == "imagenet" else constants, first), first.dtype
    method = "mean-std" if wanted == "auto" else wanted
    find = _mean_std if method == "mean-std" else _percentile
    offset, scale = find(dataset, spread_evenly(parts, MAX_FILES), watch)
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)
    return Scaling(tuple(map(float, offset)), tuple(map(float, scale)), method), first.dtype


def _color_places(first: Picture) -> list[int] | None:
    """The indices of red, green and blue among three bands with these names, else None."""
    return match_bands(first.band_names, COLORS) if len(first.band_names) == len(COLORS) else None


def _color_scaling(dataset: DatasetConfig, constants: Scaling, first: Picture) -> Scaling:
    """Constants of 8-bit red, green and blue in the order of the bands.

    Raises:
        ConfigError: other bands, or another pixel type, whose values mean something else.
    """
    _check_count(dataset, constants, first)
    places = _color_places(first)
    if places is None and not any(is_name(name) for name in first.band_names):
        places = list(range(len(COLORS)))
    if places is None or first.dtype != "uint8":
        raise ConfigError(
            f"imagenet for {first.dtype} {', '.join(first.band_names)}",
            file=dataset.file,
            field="scaling",
            allowed="uint8 red, green, blue in any order, which ImageNet's constants are of",
            hint="scaling: mean-std",
        )
    return constants.placed(places)


def _check_count(dataset: DatasetConfig, scaling: Scaling, first: Picture) -> Scaling:
    if len(scaling.offset) != len(first.band_names):
        raise ConfigError(
            f"{amount(len(scaling.offset), 'offset')} ({scaling.method}) for {amount(len(first.band_names), 'band')}"
            f" ({', '.join(first.band_names)})",
            file=dataset.file,
            field="scaling",
        )
    return scaling


class _ImageType(NamedTuple):
    """What all images of a split must have in common."""

    dtype: str
    bands: tuple[str, ...]

    @classmethod
    def of(cls, picture: Picture) -> "_ImageType":
        return cls(picture.dtype, picture.band_names)


def _check_like_first(piece: ImagePart, kind: _ImageType, example: ImagePart, first: _ImageType) -> None:
    """Refuses another pixel type, number or order of bands than the first image has."""
    if kind.dtype != first.dtype:
        raise DataError(
            f"pixels of type {kind.dtype}, others of this split are {first.dtype}",
            file=piece.pair.image,
            allowed="one pixel type",
            hint="convert the files, or give `scaling: {offset: [...], scale: [...]}` if their values mean the same",
        )
    if len(kind.bands) != len(first.bands):  # numpy would add the numbers of one band to those of three
        raise DataError(
            amount(len(kind.bands), "band"),
            file=piece.pair.image,
            allowed=f"as many as the other images of this split: {len(first.bands)}",
            hint=grey_hint(len(kind.bands), len(first.bands)),
        )
    check_order(piece.pair.image, kind.bands, first.bands, example.pair.image)


def _read(dataset: DatasetConfig, piece: ImagePart) -> Picture:
    return read_picture(dataset, piece.pair.image, piece.window)


def _each_image(
    dataset: DatasetConfig, parts: list[ImagePart], part: Callable[[int, Picture], T], watch: Watch
) -> Iterator[T]:
    """Applies `part` to the index and the pixels of each image, after a comparison with the first image."""

    def both(numbered: tuple[int, ImagePart]) -> tuple[_ImageType, T]:
        number, piece = numbered
        picture = _read(dataset, piece)
        return _ImageType.of(picture), part(number, picture)

    first = None
    for piece, (kind, result) in zip(parts, map_threads(both, list(enumerate(parts)), watch), strict=True):
        first = first or kind
        _check_like_first(piece, kind, parts[0], first)
        yield result


def _mean_std(dataset: DatasetConfig, parts: list[ImagePart], watch: Watch) -> tuple[Any, Any]:
    moments = list(_each_image(dataset, parts, lambda _, picture: Moments.of(picture.array, picture.valid), watch))
    total = sum(moments[1:], moments[0])
    if total.count == 0:
        raise DataError("no valid pixel in the images, so no scaling", file=dataset.file)
    return total.mean, total.std


def _percentile(dataset: DatasetConfig, parts: list[ImagePart], watch: Watch) -> tuple[Any, Any]:
    sample = _Sample()

    def some(number: int, picture: Picture) -> tuple[Ranks, NDArray[Any]]:
        array = picture.array
        values = array.reshape(len(array), -1) if picture.valid is None else array[:, picture.valid]
        values = drop_extreme(values)
        ranks = np.random.default_rng(key(number)).random((values.shape[1],))
        return _lowest(ranks, values, sample.limit)

    for ranks, values in _each_image(dataset, parts, some, watch):
        sample.add(ranks, values)
    if not sample.count:
        raise DataError("no valid pixel in the images, so no scaling", file=dataset.file)
    low, high = np.percentile(sample.cut().astype(np.float64), [2, 98], axis=1)
    return (low + high) / 2, (high - low) / 4


class _Sample:
    """A uniform sample of the pixels of all images: those with the lowest random numbers.

    The numbers are keyed by the image, so that the sample does not depend on the order in which threads read.

    Attributes:
        limit: pixels with a higher number are not in the sample.
    """

    def __init__(self) -> None:
        self.ranks: list[Ranks] = []
        self.values: list[NDArray[Any]] = []  # [C, N] each
        self.count, self.limit = 0, 1.0

    def add(self, ranks: Ranks, values: NDArray[Any]) -> None:
        """Adds pixels [C, N] with their numbers [N]."""
        self.ranks.append(ranks)
        self.values.append(values)
        self.count += len(ranks)
        if self.count > 2 * _MAX_VALUES:
            self.cut()

    def cut(self) -> NDArray[Any]:
        """Reduces to the sample so far and returns it, [C, N]."""
        ranks, values = _lowest(np.concatenate(self.ranks), np.concatenate(self.values, 1), self.limit)
        self.ranks, self.values, self.count = [ranks], [values], len(ranks)
        if len(ranks) == _MAX_VALUES:
            self.limit = float(ranks.max())
        return values


def _lowest(ranks: Ranks, values: NDArray[Any], limit: float) -> tuple[Ranks, NDArray[Any]]:
    """Numbers [N] and values [C, N] of the `_MAX_VALUES` pixels with the lowest numbers, none above `limit`."""
    below = ranks <= limit
    if np.count_nonzero(below) > _MAX_VALUES:
        below = ranks < np.partition(ranks, _MAX_VALUES)[_MAX_VALUES]
    if below.all():
        return ranks, values
    kept = np.flatnonzero(below)  # five times faster than a mask
    return ranks.take(kept), values.take(kept, 1)
