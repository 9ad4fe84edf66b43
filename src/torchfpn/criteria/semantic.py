"""The criterion of a semantic model: named, weighted losses over the labelled pixels."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from torchfpn.criteria.cross_entropy import CrossEntropy
from torchfpn.criteria.dice import Dice
from torchfpn.criteria.focal import Focal
from torchfpn.criteria.lovasz import Lovasz
from torchfpn.criteria.pixels import class_pixels
from torchfpn.errors import ConfigError, nearest
from torchfpn.recipe import IGNORE

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


def parse(spec: str) -> dict[str, float]:
    """{"ce": 1.0, "lovasz": 0.5} of "ce + 0.5*lovasz".

    Raises:
        ConfigError: as `criterion`.
    """
    factors: dict[str, float] = {}
    for term in spec.split("+"):
        number, star, name = (part.strip() for part in term.rpartition("*"))
        if name not in NAMES:
            found = f'term "{term.strip()}" in "{spec}"'
            raise ConfigError(found, field="loss", allowed=ALLOWED, hint=nearest(name, NAMES) if name else None)
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
