"""Dice loss: overlap of predicted and true area, every class the same whatever its size."""

import torch
from torch import Tensor, nn

from torchfpn.criteria.pixels import pixels
from torchfpn.errors import ConfigError
from torchfpn.recipe import IGNORE


class Dice(nn.Module):
    """Logits [B, K, H, W], targets [B, H, W] -> mean over classes of 1 - 2 |P and T| / (|P| + |T|), 0..1.

    P: softmax probability, T: truth, both summed over the labelled pixels of the whole batch. Only classes that occur
    in the batch's truth are in the mean. smooth: added to both sides of the fraction.
    Source: Milletari et al. 2016 (V-Net), without the squares, for K classes.
    Oracle: `smp.losses.DiceLoss("multiclass")` where all K classes occur (it divides by K even where some do not).
    """

    def __init__(self, *, smooth: float = 0.0) -> None:
        super().__init__()
        if not 0 <= smooth < float("inf"):
            raise ConfigError(f"smooth {smooth}", field="smooth", allowed="a finite number >= 0")
        self.smooth = smooth

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar."""
        logits, targets, counts = pixels(logits, targets)
        p = logits.softmax(dim=1).flatten(2)  # [B, K, N]
        t = targets.flatten(1).unsqueeze(1)  # [B, 1, N]
        truth = t == torch.arange(p.shape[1], device=t.device).unsqueeze(1)  # [B, K, N]
        overlap = (p * truth).sum((0, 2))
        area = (p * (t != IGNORE)).sum((0, 2)) + counts
        present = counts > 0
        safe = torch.where(present, area, 1)  # an absent class nobody predicts would be 0 / 0
        loss = 1 - (2 * overlap + self.smooth) / (safe + self.smooth)
        return (loss * present).sum() / present.sum().clamp_min(1)
