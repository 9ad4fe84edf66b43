"""Raw predictions and their truth -> losses, already weighted."""

from torchfpn.criteria.semantic import CrossEntropy, Dice, Focal, Lovasz, SemanticCriterion, criterion

__all__ = ["CrossEntropy", "Dice", "Focal", "Lovasz", "SemanticCriterion", "criterion"]
