"""The criterion of semantic segmentation: named, weighted losses, and deep supervision of the pyramid's levels."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfpn.criteria.losses import CrossEntropy, Dice, Focal, Lovasz, class_pixels
from torchfpn.errors import ConfigError, nearest
from torchfpn.nn.containers import Parallel
from torchfpn.ops.resize import crop
from torchfpn.recipe import IGNORE
from torchfpn.types import Level, Maps

__all__ = ["CrossEntropy", "Dice", "Focal", "Lovasz", "SemanticCriterion", "criterion"]
NAMES = ("ce", "focal", "dice", "lovasz")
ALLOWED = 'ce, focal, dice, lovasz, joined by "+", each with a factor if wanted: "ce + 0.5*lovasz"'


class SemanticCriterion(nn.Module):
    """Logits [B, K, H, W], targets [B, H, W] -> {name: factor * loss}; what is minimised is their sum.

    terms: {name: (factor, loss)}.
    """

    def __init__(self, terms: Mapping[str, tuple[float, nn.Module]]) -> None:
        super().__init__()
        self.factors = {name: factor for name, (factor, _) in terms.items()}
        self.terms = nn.ModuleDict({name: loss for name, (_, loss) in terms.items()})

    def forward(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Every term, weighted, by name."""
        return {name: self.factors[name] * loss(logits, targets) for name, loss in self.terms.items()}

    def masses(self, targets: Tensor) -> dict[str, float]:
        """What each term is a mean over: labelled pixels of targets [B, H, W], weighted as the term weighs them.

        Losses of parts of a batch, weighted by these, make the loss of the batch; of Dice and Lovasz, which are no
        means over pixels, nearly.
        """
        counts = class_pixels(targets, IGNORE)
        return {name: float(_mass(counts, getattr(loss, "weight", None))) for name, loss in self.terms.items()}


def _mass(counts: Tensor, weight: Tensor | None) -> Tensor:
    return counts.sum() if weight is None else (counts[: len(weight)] * weight.to(counts.device)).sum()


def criterion(
    spec: str = "ce", class_weights: Sequence[float] | Tensor | None = None, *, label_smoothing: float = 0.0
) -> SemanticCriterion:
    """The criterion that a line like "ce", "ce+dice" or "ce + 0.5*lovasz" describes.

    class_weights and label_smoothing reach the terms that know them: cross-entropy both, focal the weights.
    Dice and Lovasz weigh all classes alike by what they are.

    Raises:
        ConfigError: an unknown or repeated term, a factor that is not above 0, or an option that no term knows.
    """
    factors = parse(spec)
    for field, given, users in (
        ("class_weights", class_weights is not None, {"ce", "focal"}),
        ("label_smoothing", label_smoothing != 0, {"ce"}),
    ):
        if given and users.isdisjoint(factors):
            raise ConfigError(
                f'the loss "{spec}" has no use for it',
                field=field,
                allowed=" or ".join(sorted(users)) + " among its terms",
            )
    return SemanticCriterion(
        {name: (factor, _loss(name, class_weights, label_smoothing)) for name, factor in factors.items()}
    )


def parse(spec: str, names: Sequence[str] = NAMES, allowed: str = ALLOWED) -> dict[str, float]:
    """{"ce": 1.0, "lovasz": 0.5} of "ce + 0.5*lovasz".

    names: of the terms that there are; allowed: what an error says of them.

    Raises:
        ConfigError: as `criterion`.
    """
    factors: dict[str, float] = {}
    for term in spec.split("+"):
        number, star, name = (part.strip() for part in term.rpartition("*"))
        if name not in names:
            found = f'term "{term.strip()}" in "{spec}"'
            raise ConfigError(found, field="loss", allowed=allowed, hint=nearest(name, names) if name else None)
        if name in factors:
            raise ConfigError(f'"{name}" twice in "{spec}"', field="loss", allowed="each term once")
        factors[name] = _factor(number, spec) if star else 1.0
    return factors


def _factor(text: str, spec: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f'factor "{text}" in "{spec}"', field="loss", allowed="a number above 0")
    return value


def _loss(name: str, weight: Sequence[float] | Tensor | None, label_smoothing: float) -> nn.Module:
    if name == "ce":
        return CrossEntropy(weight, label_smoothing=label_smoothing)
    if name == "focal":
        return Focal(weight=weight)
    return Dice() if name == "dice" else Lovasz()


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
