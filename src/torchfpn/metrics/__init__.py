"""How good predictions are: exact counts, and the scores that follow from them."""

from torchfpn.metrics.average_precision import AveragePrecision
from torchfpn.metrics.boundary import BoundaryIoU
from torchfpn.metrics.confusion import ConfusionMatrix
from torchfpn.metrics.precisions import Precisions, PrecisionScores

__all__ = ["AveragePrecision", "BoundaryIoU", "ConfusionMatrix", "PrecisionScores", "Precisions"]
