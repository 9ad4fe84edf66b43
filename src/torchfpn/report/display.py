"""Pixels of any kind -> pixels one can look at: true colours, a stretch, hatching where there is no data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from torchfpn.data.views import sampled

Pixels = NDArray[np.uint8]  # [H, W, 3]
RGB = ("red", "green", "blue")
LOW, HIGH = 2.0, 98.0  # percentiles that become black and white
SAMPLE = 500_000  # values that the percentiles are found on, at most
HATCH = ((208, 210, 214), (176, 179, 185))


def displayed(image: ArrayLike, bands: Sequence[str] = ()) -> Pixels:
    """Raw values [C, H, W] of any type -> [H, W, 3].

    Shown are the bands called red, green and blue, else the first three, of one or two bands the first. 8-bit pictures
    are shown as they are. Others are stretched from their 2nd to their 98th percentile: together where the colours are
    true, so that grass stays green; each by itself otherwise. Pixels with NaN are hatched.
    """
    raw = np.asarray(image)
    chosen = np.asarray(raw[_three(raw.shape[0], bands)], dtype=np.float32)
    finite = np.isfinite(chosen)
    valid = np.asarray(finite.all(axis=0))
    if not _eight_bit(raw, chosen, finite):
        true_color = {name.lower() for name in bands} >= set(RGB)
        chosen = _stretched(chosen, valid, together=true_color)
    shown = np.nan_to_num(chosen, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255).round().astype(np.uint8)
    pixels = np.ascontiguousarray(np.moveaxis(shown, 0, -1))
    pixels[~valid] = hatching(valid.shape)[~valid]
    return pixels


def painted(labels: ArrayLike, colors: Sequence[Sequence[int]]) -> Pixels:
    """0-based labels [H, W] -> their colours; every other value, such as `IGNORE`, is hatched."""
    values = np.asarray(labels).astype(np.int64)
    palette = np.array([tuple(color) for color in colors], dtype=np.uint8).reshape(-1, 3)
    known = (values >= 0) & (values < len(palette))
    pixels = hatching(values.shape)
    pixels[known] = palette[values[known]]
    return pixels


def marked_errors(pixels: Pixels, truth: ArrayLike, prediction: ArrayLike, classes: int) -> Pixels:
    """The picture in pale grey, with red where the prediction is wrong, hatched where there is no truth."""
    target, answer = np.asarray(truth), np.asarray(prediction)
    grey = 150 + 0.38 * (pixels @ np.array([0.299, 0.587, 0.114]))
    marked = np.repeat(grey[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
    known = (target >= 0) & (target < classes)
    marked[known & (target != answer)] = (214, 40, 57)
    marked[~known] = hatching(target.shape)[~known]
    return marked


def hatching(shape: tuple[int, ...]) -> Pixels:
    """[H, W, 3] of diagonal stripes: nothing is known here."""
    rows, columns = np.ogrid[0 : shape[0], 0 : shape[1]]
    stripe = ((rows + columns) // 4) % 2
    return np.asarray(np.array(HATCH, dtype=np.uint8)[stripe])


def _three(count: int, bands: Sequence[str]) -> list[int]:
    """Which three bands become red, green and blue."""
    names = [name.lower() for name in bands]
    if len(names) == count and all(color in names for color in RGB):
        return [names.index(color) for color in RGB]
    return [0, 1, 2] if count >= 3 else [0, 0, 0]


def _eight_bit(raw: NDArray[Any], chosen: NDArray[np.float32], finite: NDArray[np.bool_]) -> bool:
    """Whether this is an ordinary picture: three bands (or one) of whole numbers up to 255, some of them bright."""
    if raw.shape[0] not in (1, 3):
        return False
    values = chosen[finite]
    if raw.dtype == np.uint8:
        return True
    whole = bool(values.size) and bool((values == np.floor(values)).all())
    return whole and float(values.min()) >= 0 and 96 <= float(values.max()) <= 255


def _stretched(chosen: NDArray[np.float32], valid: NDArray[np.bool_], *, together: bool) -> NDArray[np.float32]:
    sample = sampled(chosen[:, valid], SAMPLE)
    if not sample.size:
        return chosen
    limits = np.percentile(sample, (LOW, HIGH), axis=None if together else 1).reshape(2, -1, 1, 1)
    span = np.maximum(limits[1] - limits[0], 1e-12)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(255 * ((chosen - limits[0]) / span), dtype=np.float32)
