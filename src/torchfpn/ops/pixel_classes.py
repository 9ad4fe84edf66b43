"""The class of every pixel and its probability from logits, some rows at a time, also at another size than theirs."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfpn.types import Size

AT_ONCE = 2**21  # logits that are looked at together: 8 MiB, which stay in the caches


def best_classes(logits: Tensor, size: Size | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Logits -> (labels, scores, logits of these labels) of every pixel; never more than some rows are enlarged.

    Args:
        logits: [B, K, h, w] of any float type; computed in float32.
        size: (H, W) to which the logits are resized before, bilinear with pixel centres at halves
            (align_corners=False) and without antialiasing; None: h, w.

    Returns:
        labels: [B, H, W] int64, the first class of the largest logit. scores: [B, H, W] float32, its softmax
        probability. best: [B, H, W] float32, its logit; NaN where any of the logits is.
    """
    height, width = size or (logits.shape[-2], logits.shape[-1])
    shape = (len(logits), height, width)
    labels = torch.empty(shape, dtype=torch.int64, device=logits.device)
    scores, best = (torch.empty(shape, dtype=torch.float32, device=logits.device) for _ in range(2))
    step = max(1, AT_ONCE // max(1, logits.shape[0] * logits.shape[1] * width))
    for rows in _spans(height, step):
        some = _resized_rows(logits, rows, (height, width))
        best[:, rows], labels[:, rows] = some.max(1)
        scores[:, rows] = torch.exp(best[:, rows] - some.logsumexp(1))
    return labels, scores, best


def _spans(length: int, step: int) -> Iterator[slice]:
    for first in range(0, length, step):
        yield slice(first, min(first + step, length))


def _resized_rows(logits: Tensor, rows: slice, size: Size) -> Tensor:
    """The rows of logits [B, K, h, w] resized to `size` -> [B, K, rows, W] float32. Oracle: `F.interpolate`."""
    height, width = logits.shape[-2:]
    if size == (height, width):
        return logits[:, :, rows].float()
    at = (torch.arange(rows.start, rows.stop, device=logits.device) + 0.5) * (height / size[0]) - 0.5
    at = at.clamp(0, height - 1)
    upper = at.long()
    share = (at - upper)[:, None]
    lower = (upper + 1).clamp(max=height - 1)
    mixed = torch.lerp(logits[:, :, upper].float(), logits[:, :, lower].float(), share)
    return F.interpolate(mixed, (len(upper), size[1]), mode="bilinear", align_corners=False)
