"""Cross-entropy over the labelled pixels: the loss a semantic model is trained with unless told otherwise."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from torchfpn.criteria.pixels import class_weights, mass, pixels
from torchfpn.errors import ConfigError
from torchfpn.recipe import IGNORE


class CrossEntropy(nn.Module):
    """Logits [B, K, H, W], targets [B, H, W] -> weighted mean of -log p(truth) over the labelled pixels.

    weight: one for each class. label_smoothing: share of the truth given to all classes alike, 0 <= share < 1.
    A batch without a labelled pixel gives 0 and zero gradients, where torch's own gives NaN.
    Oracle: `F.cross_entropy(weight=, ignore_index=255, label_smoothing=)` wherever that is finite.
    """

    weight: Tensor | None

    def __init__(self, weight: Sequence[float] | Tensor | None = None, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label smoothing {label_smoothing}", field="label_smoothing", allowed="0 <= share < 1")
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", class_weights(weight), persistent=False)  # a setting, not something learnt

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar."""
        logits, targets, counts = pixels(logits, targets, self.weight)
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        total = F.cross_entropy(
            logits, targets, weight, ignore_index=IGNORE, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total / mass(counts, weight, total.dtype)
