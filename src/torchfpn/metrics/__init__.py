"""Scores of pixels, boundaries, objects, detections and panoptic segments.

Names are imported on first use: scores of label files need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchfpn.metrics.boundary import BoundaryIoU
    from torchfpn.metrics.confusion import ConfusionMatrix
    from torchfpn.metrics.detection import AveragePrecision
    from torchfpn.metrics.panoptic import PanopticQuality, PanopticScores, SegmentIds
    from torchfpn.metrics.precisions import Precisions, PrecisionScores


_HOMES = {
    "AveragePrecision": "torchfpn.metrics.detection",
    "BoundaryIoU": "torchfpn.metrics.boundary",
    "ConfusionMatrix": "torchfpn.metrics.confusion",
    "PanopticQuality": "torchfpn.metrics.panoptic",
    "PanopticScores": "torchfpn.metrics.panoptic",
    "PrecisionScores": "torchfpn.metrics.precisions",
    "Precisions": "torchfpn.metrics.precisions",
    "SegmentIds": "torchfpn.metrics.panoptic",
    "panoptic_quality": "torchfpn.evaluation.panoptic",  # of files, which are read some floors above
}

__all__ = [
    "AveragePrecision",
    "BoundaryIoU",
    "ConfusionMatrix",
    "PanopticQuality",
    "PanopticScores",
    "PrecisionScores",
    "Precisions",
    "SegmentIds",
    "panoptic_quality",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
