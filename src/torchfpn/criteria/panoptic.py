"""The joint loss of Panoptic FPN: the region losses of things, and cross-entropy of every labelled pixel."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchfpn.criteria.region import Chosen, RegionCriterion
from torchfpn.criteria.semantic import SemanticCriterion, criterion, parse
from torchfpn.errors import ConfigError
from torchfpn.recipe import IGNORE
from torchfpn.types import Objects, PanopticOutput, PanopticTargets

TERMS = INSTANCE, SEMANTIC = "instance", "semantic"
INSTANCE_WEIGHT, SEMANTIC_WEIGHT = 1.0, 0.5  # the paper's choice on COCO


def loss_words(instance_weight: float, semantic_weight: float) -> str:
    """Both weights as a recipe keeps them: "1.0*instance + 0.5*semantic"."""
    return f"{instance_weight}*{INSTANCE} + {semantic_weight}*{SEMANTIC}"


def loss_weights(words: str) -> dict[str, float]:
    """The weight of each of the two terms that `loss_words` wrote.

    Raises:
        ConfigError: other terms, or a weight that is not above 0.
    """
    weights = parse(words, TERMS, " + ".join(TERMS))
    if missing := next((name for name in TERMS if name not in weights), None):
        raise ConfigError(f'"{words}" without {missing}', field="loss", allowed=loss_words(1.0, 0.5))
    return weights


class PanopticCriterion(nn.Module):
    """Output, the joints' choice, class indices [B, H, W] -> the losses of `RegionCriterion`, and "semantic".

        L = instance_weight (L_objectness + L_anchors + L_classes + L_boxes + L_masks) + semantic_weight L_semantic

    Each region loss is divided by the number of its sampled boxes, L_semantic is the mean over the labelled pixels; a
    batch without any gives 0. Every loss is returned already weighted.

    Args:
        things: number of classes that are things.
        semantic_classes: "stuff": the semantic branch has one class for all things (index 0), then stuff; "all": every
            class, things first.
        instance_weight: factor of every region loss, above 0.
        semantic_weight: factor of the semantic loss, above 0.
        regions: the losses of the region branch.

    Raises:
        ConfigError: a weight that is not finite or not above 0.

    Source: Kirillov et al. 2019, section 3.2.
    """

    def __init__(
        self,
        *,
        things: int,
        semantic_classes: str = "stuff",
        instance_weight: float = INSTANCE_WEIGHT,
        semantic_weight: float = SEMANTIC_WEIGHT,
        regions: RegionCriterion | None = None,
    ) -> None:
        super().__init__()
        for field, weight in (("instance_weight", instance_weight), ("semantic_weight", semantic_weight)):
            if not 0 < weight < math.inf:
                raise ConfigError(f"{weight}", field=field, allowed="a finite number above 0")
        self.things, self.semantic_classes = things, semantic_classes
        self.instance_weight, self.semantic_weight = instance_weight, semantic_weight
        self.regions = RegionCriterion() if regions is None else regions
        self.pixels: SemanticCriterion = criterion("ce")

    def joints(self, objects: Sequence[Objects], generator: torch.Generator | None = None) -> Chosen:
        """Those of a step on the things of each image, see `RegionCriterion.joints`."""
        return self.regions.joints(objects, generator)

    def forward(
        self, output: PanopticOutput, chosen: Chosen, semantic: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """What the model said with the joints `chosen`, indices into all classes [B, H, W] -> the losses."""
        losses = {
            name: self.instance_weight * loss for name, loss in self.regions(output.regions, chosen, generator).items()
        }
        (loss,) = self.pixels(output.semantic, self.semantic_targets(semantic)).values()
        return losses | {SEMANTIC: self.semantic_weight * loss}

    def semantic_targets(self, labels: Tensor) -> Tensor:
        """Indices into all classes [...] -> indices into the classes of the semantic branch; IGNORE stays."""
        if self.semantic_classes == "all":
            return labels
        own = torch.where((labels >= 0) & (labels < self.things), 0, labels - (self.things - 1))
        return torch.where(labels == IGNORE, IGNORE, own)

    def masses(self, targets: PanopticTargets) -> dict[str, float]:
        """What each loss is a mean over: see `SemanticCriterion.masses` and `RegionCriterion.masses`."""
        (pixels,) = self.pixels.masses(self.semantic_targets(targets.semantic)).values()
        return self.regions.masses(targets.objects) | {SEMANTIC: pixels}
