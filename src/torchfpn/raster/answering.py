"""Raw images -> what a model says of them, as arrays ready to be written."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.errors import DataError
from torchfpn.tasks.finite import Named, check_logits
from torchfpn.tasks.precision import Precision, computing
from torchfpn.tasks.task import Task


@dataclass(frozen=True)
class Answer:
    """Of one image.

    labels: [H, W] 0-based, `IGNORE` without data. scores: [H, W] uint8, the probability of the label; 255: certain.
    shares: [K, H, W], the probability of every class, where it was asked for; without data NaN in floating-point types,
    0 in uint8.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.uint8]
    shares: NDArray[Any] | None = None


@torch.inference_mode()
def answers(
    task: Task, images: Tensor, precision: Precision, *, shares: str | None = None, names: Sequence[Named] = ()
) -> list[Answer]:
    """Raw images [B, C, H, W] -> an answer each.

    shares: type of the probabilities ("uint8", "float16", "float32"). names: of the images, for messages.

    Raises:
        DataError: more memory is needed than there is. NotFiniteError: the model gives NaN or infinity.
    """
    device = next(task.model.parameters()).device
    height, width = images.shape[-2:]
    with enough_memory(images):
        with computing(device, precision):
            scaled, valid = task.normalize(images.to(device))
            raw = task.model(scaled.contiguous(memory_format=torch.channels_last))
        check_logits(raw, valid, names)
        results = task.postprocess(raw, [(height, width)] * len(images), valid)
        return [
            Answer(
                result.labels.cpu().numpy(),
                (255 * result.scores).round().to(torch.uint8).cpu().numpy(),
                as_type(logits.float().softmax(0), there, shares) if shares else None,
            )
            for result, logits, there in zip(results, raw, valid, strict=True)
        ]


@contextlib.contextmanager
def enough_memory(images: Tensor) -> Iterator[None]:
    """Inside, [B, C, H, W] images that need more memory than there is become a DataError that says so."""
    height, width = images.shape[-2:]
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            size = f"{width} x {height} pixels" + (f", {len(images)} at once," if len(images) > 1 else "")
            raise DataError(f"{size} need more memory than there is", hint="cut it into smaller windows") from error
        raise


def as_type(shares: Tensor, valid: Tensor, dtype: str) -> NDArray[Any]:
    """Probabilities [K, H, W] as they are written. valid: [H, W]."""
    if dtype == "uint8":
        return (255 * shares * valid).round().to(torch.uint8).cpu().numpy()
    shares = shares.to(getattr(torch, dtype))
    return shares.masked_fill(~valid, torch.nan).cpu().numpy()
