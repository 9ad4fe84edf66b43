"""How good predictions are: exact counts, and the scores that follow from them."""

from torchfpn.metrics.boundary import BoundaryIoU
from torchfpn.metrics.confusion import ConfusionMatrix

__all__ = ["BoundaryIoU", "ConfusionMatrix"]
