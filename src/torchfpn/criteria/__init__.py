"""Criteria: raw predictions and targets -> weighted losses."""

from torchfpn.criteria.losses import CrossEntropy, Dice, Focal, Lovasz
from torchfpn.criteria.semantic import SemanticCriterion, criterion

__all__ = ["CrossEntropy", "Dice", "Focal", "Lovasz", "SemanticCriterion", "criterion"]
