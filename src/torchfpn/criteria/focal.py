"""Focal loss: cross-entropy that looks away from the pixels the model already knows."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfpn.criteria.pixels import class_weights, mass, pixels
from torchfpn.errors import ConfigError
from torchfpn.recipe import IGNORE

SURE = 1e-12  # 1 - p below this counts as this: x ** gamma has no slope at 0 when gamma < 1


class Focal(nn.Module):
    """Logits [B, K, H, W], targets [B, H, W] -> weighted mean of -(1 - p)^gamma log p over the labelled pixels.

    p: softmax probability of the truth. gamma: how fast known pixels fade; 0 is cross-entropy.
    weight: one for each class (alpha of the paper); the mean is over weights, as in cross-entropy.
    Source: Lin et al. 2017, equation 5, with softmax over K classes in place of K sigmoids.
    """

    weight: Tensor | None

    def __init__(self, gamma: float = 2.0, weight: Sequence[float] | Tensor | None = None) -> None:
        super().__init__()
        if not 0 <= gamma < float("inf"):
            raise ConfigError(f"gamma {gamma}", field="gamma", allowed="a finite number >= 0")
        self.gamma = gamma
        self.register_buffer("weight", class_weights(weight), persistent=False)  # a setting, not something learnt

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar."""
        logits, targets, counts = pixels(logits, targets, self.weight)
        entropy = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")  # [B, H, W], 0 at IGNORE
        unsure = -torch.expm1(-entropy)  # 1 - p
        loss = unsure.clamp_min(SURE) ** self.gamma * entropy
        if self.weight is not None:
            table = F.pad(self.weight.to(loss.dtype), (0, IGNORE + 1 - len(self.weight)))  # IGNORE weighs nothing
            loss = loss * table[targets]
        return loss.sum() / mass(counts, self.weight, loss.dtype)
