"""Numbers that are not finite: in a model's answer they are an error, in an image they are pixels without data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from torchfpn.errors import NotFiniteError, amount
from torchfpn.types import Regions

Named = tuple[str | Path | None, str | None]  # an image's file, and which part of it was computed, for messages


def check_logits(logits: Tensor, valid: Tensor, names: Sequence[Named] = ()) -> None:
    """Passes logits that are finite where there is data: the largest of numbers with NaN among them means nothing.

    Args:
        logits: [B, K, H, W] of a semantic model.
        valid: [B, H, W] bool, where the images hold data.
        names: of the B images; none: "image 2 of 4".

    Raises:
        NotFiniteError: NaN or infinity, with the first image that has any.
    """
    _refuse((~logits.isfinite().all(1) & valid).flatten(1).sum(1), "pixel", names)


def check_regions(regions: Regions, names: Sequence[Named] = ()) -> None:
    """Passes what both stages of a detector say if all of it is finite: it drops boxes that are not, without a word.

    Args:
        regions: of B images.
        names: of the B images; none: "image 2 of 4".

    Raises:
        NotFiniteError: NaN or infinity in scores, codes of boxes, or masks, with the first image that has any.
    """
    tables = [table for level in regions.dense for table in level.values()] + list(regions.rois.values())
    tables += [] if regions.masks is None else [regions.masks]
    bad = torch.stack([(~table.isfinite()).flatten(1).sum(1) for table in tables]).sum(0)
    _refuse(bad, "score or coordinate", names, "scores and coordinates")


@contextmanager
def naming(file: str | Path | None) -> Iterator[None]:
    """Inside, a NotFiniteError names `file`, if there is one."""
    try:
        yield
    except NotFiniteError as error:
        if file is None:
            raise
        raise NotFiniteError(
            error.found, file=file, field=error.field, allowed=error.allowed, hint=error.hint
        ) from error


def overflow_words(count: int) -> str:
    """What is said of `count` pixels that `Normalize.overflowing` found."""
    verb = "counts" if count == 1 else "count"
    return f"{amount(count, 'pixel')} with values too large for float32 when scaled {verb} as no data"


def _refuse(bad: Tensor, noun: str, names: Sequence[Named], plural: str = "") -> None:
    counts = bad.tolist()
    first = next((number for number, count in enumerate(counts) if count), None)
    if first is None:
        return
    one_of_many = f"image {first + 1} of {len(counts)}" if len(counts) > 1 else None
    file, part = names[first] if names else (one_of_many, None)
    raise NotFiniteError(
        f"the model gives NaN or infinity for {amount(counts[first], noun, plural)}",
        file=file,
        field=part,
        allowed="finite numbers",
        hint="look for extreme pixel values and for NaN in the weights; with bf16, try --precision fp32",
    )
