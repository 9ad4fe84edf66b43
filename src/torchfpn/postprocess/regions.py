"""What a two-stage model says -> the objects of each image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchfpn.ops.instances import Instances
from torchfpn.ops.masks import Crops, Rule, crop_masks
from torchfpn.types import Regions, Size


class RegionPostprocess(nn.Module):
    """Regions, sizes -> one `Instances` per image, best first.

    rule: how the small masks are laid into the image, see `torchfpn.ops.masks`; threshold: from which on a pixel is the
    object's. sizes: of the images that the model saw; originals: of those that were asked about, where they were
    resized: boxes and masks are given in their pixels.
    """

    def __init__(self, *, rule: Rule = "torchvision", threshold: float = 0.5) -> None:
        super().__init__()
        self.rule, self.threshold = rule, threshold

    def forward(
        self, regions: Regions, sizes: Sequence[Size], originals: Sequence[Size] | None = None
    ) -> list[Instances]:
        """Regions of a batch -> results in the order of the batch."""
        results = []
        found = regions.detections
        for image, (seen, size) in enumerate(zip(sizes, originals or sizes, strict=True)):
            count = int(found.counts[image])
            scale = [size[1] / seen[1], size[0] / seen[0]] * 2
            boxes = found.boxes[image, :count] * found.boxes.new_tensor(scale)
            labels = found.labels[image, :count]
            crops = None if regions.masks is None else self._crops(regions.masks[image, :count], boxes, labels, size)
            results.append(Instances(boxes, found.scores[image, :count], labels, size, crops))
        return results

    def _crops(self, masks: Tensor, boxes: Tensor, labels: Tensor, size: Size) -> Crops:
        rows = torch.arange(len(labels), device=labels.device)
        chances = masks[rows, labels].float().sigmoid()
        return crop_masks(chances.cpu(), boxes.float().cpu(), size, self.threshold, self.rule)

    def extra_repr(self) -> str:
        """The rule."""
        return f"masks as {self.rule}, threshold {self.threshold}"
