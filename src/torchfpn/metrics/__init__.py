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
    "AveragePrecision": "detection",
    "BoundaryIoU": "boundary",
    "ConfusionMatrix": "confusion",
    "PanopticQuality": "panoptic",
    "PanopticScores": "panoptic",
    "PrecisionScores": "precisions",
    "Precisions": "precisions",
    "SegmentIds": "panoptic",
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
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
