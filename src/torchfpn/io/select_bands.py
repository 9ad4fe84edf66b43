"""An image as its file has it -> what a model wants: its bands, its order, its range, NaN where there is no data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.errors import DataError, ShapeError, amount
from torchfpn.io.bands import is_name, match_bands, misplaced, same_band, valid_pixels
from torchfpn.io.images import Picture, read_image
from torchfpn.recipe import Recipe

EIGHT_BITS = "bring it to 8 bits as it was done for the training"


def fitted(picture: Picture, recipe: Recipe, *, file: str | Path | None, accept_dtype: bool = False) -> Tensor:
    """[C, H, W] float32, the values of the file, NaN in every band of a pixel without data.

    A grey image is one of equal bands for models that learnt so from grey ones. `in_range` brings the values to those
    that a converted model learnt on.

    Raises:
        DataError: another number of bands, or another pixel type, than the model was trained on.
    """
    if recipe.rules.get("grey_as_color") and len(picture.band_names) == 1:
        array = np.repeat(picture.array, len(recipe.bands), axis=0)
        picture = replace(picture, array=array, band_names=recipe.bands, told=())
    names, told, alpha = picture.band_names, picture.told, picture.alpha
    order = band_order(names, recipe.bands, file=file, told=told, alpha=alpha, whole=recipe.file_bands)
    divisor_of(picture.dtype, recipe, file=file, accept=accept_dtype)
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which models take for no data
        image = torch.from_numpy(np.ascontiguousarray(picture.array[order], dtype=np.float32))
    valid = picture.valid
    if recipe.nodata is not None and picture.nodata is None:  # as in training, where the files do not say
        valid = valid_pixels(picture.array, [recipe.nodata] * len(picture.array), valid)
    if valid is not None:
        image[:, torch.from_numpy(~valid)] = torch.nan
    return image


def read_input(source: str | Path | NDArray[Any], recipe: Recipe, *, accept_dtype: bool = False) -> Tensor:
    """An image file, or an array that stands for one, as `Task.predict` takes it: [C, H, W] float32, NaN without data.

    source: a path of anything that `fpn predict` reads; or [H, W, C] as Pillow gives it, [C, H, W] as rasterio does, or
    [H, W] of one band. The bands of an array are in the order of the training files; of as many as the model takes of
    files with more, in the model's order. Its type is the pixel type of the file that it stands for.

    Raises:
        DataError: damaged, too large, other bands, another pixel type or other values than the model was trained on.
        ShapeError: an array of another shape, or of a shape that can be read in two ways.
    """
    if isinstance(source, np.ndarray):
        picture, file = _as_picture(source, recipe), None
    else:
        file = Path(source)
        picture = read_image(file)
    image = fitted(picture, recipe, file=file, accept_dtype=accept_dtype)
    return in_range(image, picture.dtype, recipe, file=file, accept=accept_dtype)


def _as_picture(array: NDArray[Any], recipe: Recipe) -> Picture:
    counts = {len(recipe.bands), len(recipe.file_bands or recipe.bands)}
    counts |= {1} if recipe.rules.get("grey_as_color") else set()
    shape = array.shape
    grey = array[None] if array.ndim == 2 and 1 in counts else None
    first = array if array.ndim == 3 and shape[0] in counts else None
    last = array.transpose(2, 0, 1) if array.ndim == 3 and shape[2] in counts else None
    found = [each for each in (grey, first, last) if each is not None]
    if len(found) != 1 or array.dtype.kind not in "uif":
        wanted = f"{amount(len(recipe.bands), 'band')} ({_listed(recipe.bands)})"
        raise ShapeError(
            f"an array {array.dtype} of shape {list(shape)}",
            allowed=f"numbers [H, W, C] or [C, H, W] with C = {wanted}",
            hint="give a Tensor [C, H, W], which is read in one way" if len(found) > 1 else None,
        )
    called = (recipe.file_bands, recipe.bands, ("grey",))
    names = next(names for names in called if len(names) == len(found[0]))
    return Picture(found[0], None, tuple(names), str(array.dtype))


def band_order(
    found: Sequence[str],
    wanted: Sequence[str],
    *,
    file: str | Path | None,
    told: Sequence[bool] = (),
    alpha: int | None = None,
    cure: str = "name them, in the model's order, with --bands",
    whole: Sequence[str] = (),
) -> list[int]:
    """Which of the bands `found` are the ones `wanted`: by name where all names are there, else all in their order.

    told: which of the names the file itself tells; none: they are read in their order. alpha: the band of the file that
    was taken for a mask, from 1. cure: what helps where names do not fit. whole: all bands of the files that the model
    learnt from, in their order; a file of as many bands that tells no names has them in this order.

    Raises:
        DataError: another number of bands, or the file tells names that are not the model's.
    """
    if len(found) == len(whole) and not any(told):
        return [list(whole).index(name) for name in wanted]
    order = match_bands(found, wanted)
    if order is not None:
        return order
    model = f"{len(wanted)}, as the model has ({_listed(wanted)})"
    if len(found) != len(wanted):
        hint = cure if len(found) > len(wanted) else None
        if alpha is not None and len(found) + 1 == len(wanted):
            every = ",".join(str(i) for i in range(1, len(wanted) + 1))
            hint = f"band {alpha} is marked as alpha and taken for a mask; if it is data: --bands {every}"
        raise DataError(f"has {amount(len(found), 'band')} ({_listed(found)})", file=file, allowed=model, hint=hint)
    if told and any(is_name(name) for name in wanted):
        other = [is_name(own) and not same_band(name, own) for name, own in zip(found, wanted, strict=True)]
        if (all(told) and any(other)) or misplaced(found, told, wanted):
            raise DataError(f"names its bands {_listed(found)}", file=file, allowed=model, hint=cure)
    return list(range(len(found)))


def in_range(image: Tensor, dtype: str, recipe: Recipe, *, file: str | Path | None, accept: bool = False) -> Tensor:
    """Values of a file of pixel type `dtype` -> values the range of the training; no data stays NaN.

    accept: also pixels of another type, if their values lie in the range of those that the model takes: whole numbers
    as 8-bit files hold them, floating-point numbers the range of the training.

    Raises:
        DataError: another pixel type, or values out of the range.
    """
    divisor = divisor_of(dtype, recipe, file=file, accept=accept)
    inputs = recipe.inputs
    if inputs is not None and inputs.low is not None and inputs.high is not None and dtype not in inputs.divisors:
        known = image[image.isfinite()]
        low, high = inputs.low * divisor, inputs.high * divisor
        if known.numel() and not (low <= float(known.min()) and float(known.max()) <= high):
            found = f"{dtype} values from {float(known.min()):g} to {float(known.max()):g}"
            allowed = f"{low:g} to {high:g}, the range of the training"
            raise DataError(found, file=file, allowed=allowed, hint=EIGHT_BITS)
    return image if divisor == 1 else image / divisor


def divisor_of(dtype: str, recipe: Recipe, *, file: str | Path | None, accept: bool = False) -> float:
    """What values of files of pixel type `dtype` are divided by, to be the range of the training. accept: any type.

    Raises:
        DataError: another pixel type than the model was trained on: the same scaling would mean other values.
    """
    inputs = recipe.inputs
    if inputs is None:
        if recipe.dtype and dtype != recipe.dtype and not accept:
            allowed = f"{recipe.dtype}, as the model was trained on"
            hint = "convert it, or, if the values mean the same, --accept-dtype"
            raise DataError(f"holds {dtype}", file=file, allowed=allowed, hint=hint)
        return 1.0
    if dtype in inputs.divisors:
        return inputs.divisors[dtype]
    if accept:
        return 1.0 if dtype.startswith("float") else max(inputs.divisors.values(), default=1.0)
    if inputs.low is None:
        raise DataError(
            f"holds {dtype}",
            file=file,
            allowed="images normalised as for its training, which the converted checkpoint does not tell",
            hint="set it in fpn convert: --scaling unit | imagenet | none, or take values as they are: --accept-dtype",
        )
    allowed = f"{' | '.join(inputs.divisors)}, scaled to {inputs.low:g} to {inputs.high:g} in training"
    raise DataError(f"holds {dtype}", file=file, allowed=allowed, hint=f"{EIGHT_BITS}, or --accept-dtype")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
