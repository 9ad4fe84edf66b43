"""Pictures for people: any bands as red, green, blue, and class indices as colours. Arrays in, arrays out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.colors import Color
from torchfpn.recipe import IGNORE

Rgb = NDArray[np.uint8]  # [H, W, 3]
NOTHING = (236, 236, 240)  # paper, where there is no data
UNLABELLED = (214, 214, 220)
_WORDS = {
    "red": ("red", "r", "b4", "b04", "vv"),
    "green": ("green", "g", "b3", "b03"),
    "blue": ("blue", "b", "b2", "b02"),
}
_SAMPLED = 2**18  # values per band that percentiles are taken of


def sampled(values: NDArray[Any], most: int) -> NDArray[Any]:
    """At most `most` of the values [..., N] along the last axis, the same ones each time; all where there are fewer.

    One at a random place of each of `most` equal stretches: evenly spaced ones would all be of the same few columns of
    an image whose width they divide.
    """
    count = values.shape[-1]
    if count <= most:
        return values
    places = (np.arange(most) + np.random.default_rng(count).random(most)) * (count / most)
    return values[..., places.astype(np.int64).clip(max=count - 1)]


def display_bands(names: Sequence[str]) -> list[int]:
    """The places of the bands to show as red, green and blue: by their names, else the first three, else one thrice."""
    words = [name.lower().replace("-", "_").split("_")[-1] for name in names]
    found = [next((i for i, word in enumerate(words) if word in _WORDS[color]), None) for color in _WORDS]
    if None not in found:
        return [i for i in found if i is not None]
    return [0, 1, 2] if len(names) >= 3 else [0, 0, 0]


def image_view(image: NDArray[Any], valid: NDArray[np.bool_] | None, names: Sequence[str]) -> Rgb:
    """An image [C, H, W] as a picture: each band stretched from its 2nd to its 98th percentile of valid pixels."""
    bands = display_bands(names)
    seen = {band: _stretched(image[band], valid) for band in set(bands)}
    picture: Rgb = np.stack([seen[band] for band in bands], -1)
    if valid is not None:
        picture[~valid] = NOTHING
    return picture


def label_view(target: NDArray[Any], colors: Sequence[Color]) -> Rgb:
    """Class indices [H, W] as colours; pixels without label hatched grey."""
    table = np.zeros((IGNORE + 1, 3), np.uint8)
    table[: len(colors)] = colors
    picture: Rgb = table[target]
    rows, columns = np.nonzero(target == IGNORE)
    picture[rows, columns] = np.where(((rows + columns) // 4 % 2 == 0)[:, None], UNLABELLED, NOTHING)
    return picture


def _stretched(band: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    values = band.reshape(-1) if valid is None else band[valid]
    if values.size == 0:
        return np.zeros(band.shape, np.uint8)
    low, high = np.percentile(sampled(values, _SAMPLED).astype(np.float64), [2, 98])
    scaled = (band.astype(np.float64) - low) * (255 / (high - low if high > low else 1.0))
    return np.asarray(np.clip(np.nan_to_num(scaled), 0, 255), np.uint8)
