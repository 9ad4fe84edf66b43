"""Finding the scaling of the bands once, on the training images; from then on it travels with the model."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.config import SCALINGS, DatasetConfig
from torchfpn.data.moments import Moments, within
from torchfpn.data.parallel import Watch, each, spread, unwatched
from torchfpn.data.reading import Piece, check_order, grey_cure, pieces, read_picture
from torchfpn.data.sampler import key
from torchfpn.errors import ConfigError, DataError, amount, nearest
from torchfpn.io.bands import is_name, match_bands
from torchfpn.io.images import Picture
from torchfpn.recipe import Scaling

MOST_FILES = 2000  # of larger splits, as many files (or windows of scenes) evenly spaced

_MOST_VALUES = 2**20  # per band, for percentiles

_FEW_FILES = 64  # enough to tell 8-bit colours; SemanticDataset looks at every image it reads

T = TypeVar("T")

_RGB = ("red", "green", "blue")


Ranks = NDArray[np.float64]


def find_scaling(
    dataset: DatasetConfig,
    split: str = "train",
    method: str = "auto",
    *,
    pretrained: bool | Scaling = False,
    watch: Watch = unwatched,
) -> tuple[Scaling, str]:
    """The scaling of the bands the dataset uses, and the pixel type of its images.

    * auto: what dataset.yaml says. If it says nothing: the constants of a backbone with `pretrained` weights for 8-bit
      red, green, blue, which saw such images; else mean-std. pretrained: these constants; True: ImageNet's.
    * mean-std: mean and standard deviation of all valid pixels, summed in float64.
    * percentile: (p2 + p98) / 2 and (p98 - p2) / 4 of valid pixels drawn at random, every pixel of the split as likely
      and the same ones each time, so that nearly all lie within -2..2; for data with far outliers.
    * imagenet: ImageNet's constants, of 8-bit red, green and blue, found by name; of three bands without names in this
      order.
    * mean-std and percentile leave out pixels with a value beyond 2^64, which models take for no data; `fpn check`
      counts them.

    A band that is constant gets the scale 1.

    Raises:
        ConfigError: no such method, a given scaling that does not fit the bands, or constants of ImageNet for other
            bands or pixels than 8-bit red, green, blue.
        DataError: images of several pixel types, that name their bands in another order than the first does, or without
            any valid pixel.
    """
    if method not in SCALINGS:
        raise ConfigError(f'no scaling "{method}"', field="scaling", hint=nearest(method, SCALINGS))
    parts = pieces(dataset, dataset.pairs(split))
    first = _read(dataset, parts[0])
    if method == "auto" and dataset.scaling is not None:
        return _fitting(dataset, dataset.scaling, first), first.dtype
    constants = pretrained if isinstance(pretrained, Scaling) else Scaling.imagenet()
    wanted = dataset.scaling_method if method == "auto" else method
    if wanted == "auto" and pretrained and first.dtype == "uint8" and first.band_names == _RGB:
        wanted = "pretrained"
    if wanted in ("imagenet", "pretrained"):
        few = spread(parts, _FEW_FILES)
        for piece, seen in zip(few, each(lambda p: _Seen.of(_read(dataset, p)), few), strict=True):
            _check_like_first(piece, seen, parts[0], _Seen.of(first))
        return _of_colors(dataset, Scaling.imagenet() if wanted == "imagenet" else constants, first), first.dtype
    method = "mean-std" if wanted == "auto" else wanted
    find = _mean_std if method == "mean-std" else _percentile
    offset, scale = find(dataset, spread(parts, MOST_FILES), watch)
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)
    return Scaling(tuple(map(float, offset)), tuple(map(float, scale)), method), first.dtype


def _color_places(first: Picture) -> list[int] | None:
    """The places of red, green and blue among three bands that are called so; None: they are not."""
    return match_bands(first.band_names, _RGB) if len(first.band_names) == len(_RGB) else None


def _of_colors(dataset: DatasetConfig, constants: Scaling, first: Picture) -> Scaling:
    """Constants of 8-bit red, green and blue in the order of the bands.

    Raises:
        ConfigError: other bands, or pixels of another type: their values mean something else.
    """
    _fitting(dataset, constants, first)
    places = _color_places(first)
    if places is None and not any(is_name(name) for name in first.band_names):
        places = list(range(len(_RGB)))
    if places is None or first.dtype != "uint8":
        raise ConfigError(
            f"imagenet for {first.dtype} {', '.join(first.band_names)}",
            file=dataset.file,
            field="scaling",
            allowed="uint8 red, green, blue in any order, which ImageNet's constants are of",
            hint="scaling: mean-std",
        )
    return constants.placed(places)


def _fitting(dataset: DatasetConfig, scaling: Scaling, first: Picture) -> Scaling:
    if len(scaling.offset) != len(first.band_names):
        raise ConfigError(
            f"{amount(len(scaling.offset), 'offset')} ({scaling.method}) for {amount(len(first.band_names), 'band')}"
            f" ({', '.join(first.band_names)})",
            file=dataset.file,
            field="scaling",
        )
    return scaling


class _Seen(NamedTuple):
    """What must be the same in all images of a split."""

    dtype: str
    bands: tuple[str, ...]

    @classmethod
    def of(cls, picture: Picture) -> "_Seen":
        return cls(picture.dtype, picture.band_names)


def _check_like_first(piece: Piece, seen: _Seen, example: Piece, first: _Seen) -> None:
    """One scaling cannot fit bytes and 16-bit numbers of the same scene, nor bands in two orders."""
    if seen.dtype != first.dtype:
        raise DataError(
            f"pixels of type {seen.dtype}, others of this split are {first.dtype}",
            file=piece.pair.image,
            allowed="one pixel type",
            hint="convert the files, or give `scaling: {offset: [...], scale: [...]}` if their values mean the same",
        )
    if len(seen.bands) != len(first.bands):  # numbers of one band could be added to those of three
        raise DataError(
            amount(len(seen.bands), "band"),
            file=piece.pair.image,
            allowed=f"as many as the other images of this split: {len(first.bands)}",
            hint=grey_cure(len(seen.bands), len(first.bands)),
        )
    check_order(piece.pair.image, seen.bands, first.bands, example.pair.image)


def _read(dataset: DatasetConfig, piece: Piece) -> Picture:
    return read_picture(dataset, piece.pair.image, piece.window)


def _of_all(
    dataset: DatasetConfig, pieces: list[Piece], part: Callable[[int, Picture], T], watch: Watch
) -> Iterator[T]:
    """Of each image, by its number, what `part` takes from it, all of them like the first."""

    def both(numbered: tuple[int, Piece]) -> tuple[_Seen, T]:
        number, piece = numbered
        picture = _read(dataset, piece)
        return _Seen.of(picture), part(number, picture)

    first = None
    for piece, (seen, taken) in zip(pieces, each(both, list(enumerate(pieces)), watch), strict=True):
        first = first or seen
        _check_like_first(piece, seen, pieces[0], first)
        yield taken


def _mean_std(dataset: DatasetConfig, pieces: list[Piece], watch: Watch) -> tuple[Any, Any]:
    parts = list(_of_all(dataset, pieces, lambda _, picture: Moments.of(picture.array, picture.valid), watch))
    total = sum(parts[1:], parts[0])
    if total.count == 0:
        raise DataError("no valid pixel in the images, so no scaling", file=dataset.file)
    return total.mean, total.std


def _percentile(dataset: DatasetConfig, pieces: list[Piece], watch: Watch) -> tuple[Any, Any]:
    sample = _Sample()

    def some(number: int, picture: Picture) -> tuple[Ranks, NDArray[Any]]:
        array = picture.array
        values = array.reshape(len(array), -1) if picture.valid is None else array[:, picture.valid]
        values = within(values)
        ranks = np.random.default_rng(key(number)).random((values.shape[1],))
        return _lowest(ranks, values, sample.limit)

    for ranks, values in _of_all(dataset, pieces, some, watch):
        sample.add(ranks, values)
    if not sample.count:
        raise DataError("no valid pixel in the images, so no scaling", file=dataset.file)
    low, high = np.percentile(sample.cut().astype(np.float64), [2, 98], axis=1)
    return (low + high) / 2, (high - low) / 4


class _Sample:
    """Pixels of all images, each as likely: those with the lowest of random numbers that every pixel gets.

    The numbers are keyed by the image, so that the sample is the same each time, and in whichever order threads read.

    Attributes:
        limit: a pixel with a higher number is not among them.
    """

    def __init__(self) -> None:
        self.ranks: list[Ranks] = []
        self.values: list[NDArray[Any]] = []  # [C, N] each
        self.count, self.limit = 0, 1.0

    def add(self, ranks: Ranks, values: NDArray[Any]) -> None:
        """Pixels [C, N] with their numbers [N]."""
        self.ranks.append(ranks)
        self.values.append(values)
        self.count += len(ranks)
        if self.count > 2 * _MOST_VALUES:
            self.cut()

    def cut(self) -> NDArray[Any]:
        """The sample [C, N] so far; the rest is forgotten."""
        ranks, values = _lowest(np.concatenate(self.ranks), np.concatenate(self.values, 1), self.limit)
        self.ranks, self.values, self.count = [ranks], [values], len(ranks)
        if len(ranks) == _MOST_VALUES:
            self.limit = float(ranks.max())
        return values


def _lowest(ranks: Ranks, values: NDArray[Any], limit: float) -> tuple[Ranks, NDArray[Any]]:
    """The numbers [N] and values [C, N] of the pixels with the lowest numbers: `_MOST_VALUES`, none above `limit`."""
    below = ranks <= limit
    if np.count_nonzero(below) > _MOST_VALUES:
        below = ranks < np.partition(ranks, _MOST_VALUES)[_MOST_VALUES]
    if below.all():
        return ranks, values
    kept = np.flatnonzero(below)  # a mask is five times slower
    return ranks.take(kept), values.take(kept, 1)
