"""Deep supervision: every level of the pyramid must tell the classes by itself, while training."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfpn.errors import ConfigError
from torchfpn.nn.containers import Parallel
from torchfpn.ops.padding import crop
from torchfpn.types import Level, Maps


class DeepSupervision(nn.Module):
    """Logits, targets, maps -> the losses of `criterion`, and "deep": factor * their sum on the levels, on average.

    Each map gets a 1x1 classifier of its own, whose logits are enlarged to the pixels. The classifiers are learnt with
    the model but belong to the criterion: a saved model has none of them and predicts at the same cost as without.
    """

    def __init__(self, criterion: nn.Module, levels: Sequence[Level], num_classes: int, *, factor: float = 0.4) -> None:
        super().__init__()
        if not 0 < factor < float("inf"):
            raise ConfigError(f"{factor}", field="deep_supervision", allowed="a number above 0; 0: none")
        self.criterion, self.factor = criterion, factor
        self.strides = tuple(level.stride for level in levels)
        self.classify = Parallel(nn.Conv2d(level.channels, num_classes, 1) for level in levels)
        for conv in self.classify:
            nn.init.normal_(conv.weight, std=0.01)  # type: ignore[arg-type]

    def forward(self, logits: Tensor, targets: Tensor, maps: Maps = ()) -> dict[str, Tensor]:
        """Logits [B, K, H, W], targets [B, H, W], maps of the images padded at the right and the bottom.

        Without maps only the losses of the answer itself, as a validation wants them.
        """
        losses: dict[str, Tensor] = self.criterion(logits, targets)
        if not maps:
            return losses
        levels: list[Tensor] = []
        for coarse, stride in zip(self.classify(maps), self.strides, strict=True):
            fine = F.interpolate(coarse, scale_factor=stride, mode="bilinear", align_corners=False)
            levels += self.criterion(crop(fine, targets.shape[-2:]), targets).values()
        return {**losses, "deep": self.factor / len(maps) * torch.stack(levels).sum()}

    def masses(self, targets: Tensor) -> dict[str, float]:
        """See `SemanticCriterion`; those of the levels are as those of its first term."""
        own: dict[str, float] = self.criterion.masses(targets)  # type: ignore[operator]
        return {**own, "deep": next(iter(own.values()))}

    def extra_repr(self) -> str:
        """The factor."""
        return f"factor={self.factor}"
