"""Raw predictions and their truth -> losses, already weighted."""

from torchfpn.criteria.losses import CrossEntropy, Dice, Focal, Lovasz
from torchfpn.criteria.semantic import SemanticCriterion, criterion

__all__ = ["CrossEntropy", "Dice", "Focal", "Lovasz", "SemanticCriterion", "criterion"]
