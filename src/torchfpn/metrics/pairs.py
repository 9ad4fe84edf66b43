"""A prediction and its truth, checked before anything is counted: a wrong number is worse than an error."""

import numpy as np
import torch
from torch import Tensor

from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.recipe import IGNORE

Pixels = Tensor | np.ndarray  # any integer type


def pair(labels: Pixels, targets: Pixels, num_classes: int) -> tuple[Tensor, Tensor]:
    """Both as uint8, 0..num_classes-1; both `IGNORE` where the target is, whatever was predicted there.

    Raises:
        ShapeError: shapes differ, or one of them does not hold integers.
        DataError: a target that is no class and not `IGNORE`, or a label that is no class at a pixel with a target.
    """
    predicted, truth = _integers(labels, "labels"), _integers(targets, "targets")
    if predicted.shape != truth.shape:
        raise ShapeError(f"labels {list(predicted.shape)} and targets {list(truth.shape)}", allowed="one shape")
    if not truth.numel():
        return predicted.to(torch.uint8), truth.to(torch.uint8)
    known = truth != IGNORE
    return (
        _classes(predicted.to(truth.device), known, num_classes, "label"),
        _classes(truth, known, num_classes, "target"),
    )


def class_count(num_classes: int) -> int:
    """`num_classes` itself, if labels of that many classes can be told from `IGNORE`.

    Raises:
        ConfigError: otherwise.
    """
    if not 1 <= num_classes <= IGNORE:
        raise ConfigError(f"{num_classes} classes", field="num_classes", allowed=f"1 to {IGNORE}")
    return num_classes


def whole_numbers(values: object, size: int) -> bool:
    """Whether it is a list of that many counts, as JSON gives them."""
    return isinstance(values, list) and len(values) == size and all(type(n) is int and 0 <= n < 2**63 for n in values)


def _integers(values: Pixels, what: str) -> Tensor:
    tensor = torch.as_tensor(values)
    if tensor.is_floating_point() or tensor.is_complex():
        raise ShapeError(f"{what} of {tensor.dtype}", allowed="integers")
    return tensor if tensor.dtype == torch.uint8 else tensor.long()  # torch can do little with the other unsigned ones


def _classes(values: Tensor, known: Tensor, num_classes: int, what: str) -> Tensor:
    """The values where known, as uint8; `IGNORE` elsewhere. Passes over bytes: no indexing by the mask."""
    low, high = (int(v) for v in values.aminmax())
    if low < 0 or high > IGNORE:
        wrong = known & ((values < 0) | (values > IGNORE))
        if wrong.any():
            raise _no_class(values, wrong, num_classes, what)
    small = values.to(torch.uint8).masked_fill(~known, IGNORE)  # wraps only where it is filled
    wrong = known & (small >= num_classes)
    if wrong.any():
        raise _no_class(values, wrong, num_classes, what)
    return small


def _no_class(values: Tensor, wrong: Tensor, num_classes: int, what: str) -> DataError:
    first = values[wrong][0]
    return DataError(
        f"{what} {int(first)} in {int((wrong & (values == first)).sum())} pixels",
        allowed=f"classes 0..{num_classes - 1}; pixels with target {IGNORE} are left out",
    )
