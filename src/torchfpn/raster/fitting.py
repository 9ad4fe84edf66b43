"""An image as its file has it -> what a model wants: its bands, in its order, NaN where there is no data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchfpn.errors import DataError, amount
from torchfpn.files.bands import is_name, match_bands, misplaced, same_band
from torchfpn.files.images import Picture
from torchfpn.files.validity import valid_pixels
from torchfpn.recipe import Recipe


def fitted(picture: Picture, recipe: Recipe, *, file: str | Path, accept_dtype: bool = False) -> Tensor:
    """[C, H, W] float32, raw values, NaN in every band of a pixel without data.

    Raises:
        DataError: another number of bands, or another pixel type, than the model was trained on.
    """
    order = band_order(picture.band_names, recipe.bands, file=file, told=picture.told, alpha=picture.alpha)
    check_dtype(picture.dtype, recipe, file=file, accept=accept_dtype)
    image = torch.from_numpy(np.ascontiguousarray(picture.array[order], dtype=np.float32))
    valid = picture.valid
    if recipe.nodata is not None and picture.nodata is None:  # as in training, where the files do not say
        valid = valid_pixels(picture.array, [recipe.nodata] * len(picture.array), valid)
    if valid is not None:
        image[:, torch.from_numpy(~valid)] = torch.nan
    return image


def band_order(
    found: Sequence[str],
    wanted: Sequence[str],
    *,
    file: str | Path,
    told: Sequence[bool] = (),
    alpha: int | None = None,
    cure: str = "say which they are, in the model's order, with --bands",
) -> list[int]:
    """Which of the bands `found` are the ones `wanted`: by name where all names are there, else all in their order.

    told: which of the names the file itself tells; none: they are read in their order. alpha: the band of the file that
    was taken for a mask, from 1. cure: what helps where names do not fit.

    Raises:
        DataError: another number of bands, or the file tells names that are not the model's.
    """
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
