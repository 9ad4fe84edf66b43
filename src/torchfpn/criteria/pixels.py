"""What every pixel loss asks first: do logits and targets fit together, and how many pixels has each class?"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.recipe import IGNORE


class Pixels(NamedTuple):
    """One batch, checked. B images, K classes, H x W pixels."""

    logits: Tensor  # [B, K, H, W] float32 (float64 stays float64), whatever autocast made of them
    targets: Tensor  # [B, H, W] int64, 0..K-1 or IGNORE
    counts: Tensor  # [K] int64, labelled pixels of each class


def pixels(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Pixels:
    """The batch in the precision losses need, with the number of pixels of each class.

    Raises:
        ShapeError: the shapes or types do not fit, or there is not one weight for each class.
        DataError: a target that is no class (on the CPU; on a GPU looking would mean waiting for it, see `fpn check`).
    """
    if logits.dim() < 3 or not logits.is_floating_point() or logits.shape[:1] + logits.shape[2:] != targets.shape:
        raise ShapeError(
            f"{_seen(logits)} logits and {_seen(targets)} targets",
            allowed="logits [B, K, H, W] of floats and targets [B, H, W] of integers",
        )
    if targets.is_floating_point() or not 1 <= logits.shape[1] <= IGNORE:
        raise ShapeError(
            f"{logits.shape[1]} classes and targets of {targets.dtype}",
            allowed=f"1 to {IGNORE} classes and targets of integers ({IGNORE} means not labelled)",
        )
    if weight is not None and len(weight) != logits.shape[1]:
        raise ShapeError(
            f"{len(weight)} class weights for {logits.shape[1]} classes",
            field="class_weights",
            allowed="one weight for each class",
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    targets = targets.long()
    # log_softmax over the second of four dimensions is fastest on plain NCHW; the copy is free where dtype changes
    logits = logits.to(dtype, memory_format=torch.contiguous_format)
    return Pixels(logits, targets, class_pixels(targets, logits.shape[1]))


def mass(counts: Tensor, weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What a sum over labelled pixels is divided by to be their weighted mean; 1 where that would be 0."""
    total = (counts.to(dtype) if weight is None else counts * weight.to(dtype)).sum()
    return torch.where(total > 0, total, 1)


def class_weights(values: Sequence[float] | Tensor | None) -> Tensor | None:
    """One finite weight >= 0 for each class as float32, or None where no class is to weigh more than another.

    Raises:
        ConfigError: a weight is negative or not finite, or all are 0.
    """
    if values is None:
        return None
    numbers = [float(v) for v in values]
    if not numbers or not all(math.isfinite(n) and n >= 0 for n in numbers) or not any(numbers):
        raise ConfigError(
            f"class weights {numbers}", field="class_weights", allowed="finite, not negative, one above 0"
        )
    return torch.tensor(numbers, dtype=torch.float32)


def class_pixels(targets: Tensor, classes: int) -> Tensor:
    """How often each class occurs, [K]."""
    flat = targets.flatten()
    if flat.device.type != "cpu":  # bincount would make the CPU wait for the device
        return flat.new_zeros(IGNORE + 1).scatter_add_(0, flat, torch.ones_like(flat))[:classes]
    low, high = (int(v) for v in flat.aminmax()) if flat.numel() else (0, 0)
    if low < 0 or high > IGNORE:
        raise _no_class(low if low < 0 else high, classes)
    counts = flat.bincount(minlength=IGNORE + 1)
    if counts[classes:IGNORE].any():
        raise _no_class(classes + int(counts[classes:IGNORE].nonzero()[0]), classes)
    return counts[:classes]


def _no_class(value: int, classes: int) -> DataError:
    return DataError(
        f"target {value}", allowed=f"classes 0..{classes - 1}, not labelled is {IGNORE}", hint="run: fpn check"
    )


def _seen(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
