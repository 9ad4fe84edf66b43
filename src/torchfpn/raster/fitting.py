"""An image as its file has it -> what a model wants: its bands, in its order, NaN where there is no data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchfpn.errors import DataError, amount
from torchfpn.files.images import Picture
from torchfpn.files.validity import valid_pixels
from torchfpn.recipe import Recipe


def fitted(picture: Picture, recipe: Recipe, *, file: str | Path, accept_dtype: bool = False) -> Tensor:
    """[C, H, W] float32, raw values, NaN in every band of a pixel without data.

    Raises:
        DataError: another number of bands, or another pixel type, than the model was trained on.
    """
    order = band_order(picture.band_names, recipe.bands, file=file)
    check_dtype(picture.dtype, recipe, file=file, accept=accept_dtype)
    image = torch.from_numpy(np.ascontiguousarray(picture.array[order], dtype=np.float32))
    valid = picture.valid
    if recipe.nodata is not None and picture.nodata is None:  # as in training, where the files do not say
        valid = valid_pixels(picture.array, [recipe.nodata] * len(picture.array), valid)
    if valid is not None:
        image[:, torch.from_numpy(~valid)] = torch.nan
    return image


def band_order(found: Sequence[str], wanted: Sequence[str], *, file: str | Path) -> list[int]:
    """Which of the bands `found` are the ones `wanted`: by name where all names are there, else all in their order.

    Raises:
        DataError: neither; both lists are named.
    """
    names = [name.lower() for name in found]
    if all(names.count(name.lower()) == 1 for name in wanted):
        return [names.index(name.lower()) for name in wanted]
    if len(found) == len(wanted):
        return list(range(len(found)))
    raise DataError(
        f"has {amount(len(found), 'band')} ({_listed(found)})",
        file=file,
        allowed=f"{len(wanted)}, as the model has ({_listed(wanted)})",
        hint="choose them with --bands" if len(found) > len(wanted) else None,
    )


def check_dtype(found: str, recipe: Recipe, *, file: str | Path, accept: bool = False) -> None:
    """Passes the pixel type that the model's scaling was found on; any, where the recipe does not say or `accept`.

    Raises:
        DataError: another one: the same scaling would mean other values.
    """
    if recipe.dtype and found != recipe.dtype and not accept:
        raise DataError(
            f"holds {found}",
            file=file,
            allowed=f"{recipe.dtype}, as the model was trained on",
            hint="convert it, or, if the values mean the same, --accept-dtype",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
