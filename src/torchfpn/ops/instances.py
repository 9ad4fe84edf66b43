"""The objects found in one image, as values. Masks stay crops within their boxes until somebody asks for whole ones."""

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchfpn.errors import amount
from torchfpn.ops.masks import Crops, paste, select
from torchfpn.types import Size

SHOWN = 10  # classes that are named when the objects are printed


@dataclass(frozen=True)
class Instances:
    """Objects of one image, best first.

    boxes: [N, 4] (x1, y1, x2, y2) in pixels of the image. scores: [N], 0..1. labels: [N] 0-based classes. size: of the
    image, (height, width). crops: the masks, None of models that give boxes alone; always on the CPU.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    size: Size
    crops: Crops | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        """Number, classes and scores: "Instances(3 objects: class 0 x 2, class 4 x 1; scores 0.31 to 0.98; ...)"."""
        words = [amount(len(self), "object")]
        if len(self):
            each = [f"class {label} x {count}" for label, count in sorted(Counter(self.labels.tolist()).items())]
            words[0] += ": " + ", ".join(each[:SHOWN]) + (", ..." if len(each) > SHOWN else "")
            words.append(f"scores {float(self.scores.min()):.2f} to {float(self.scores.max()):.2f}")
        words += ["boxes" if self.crops is None else "boxes and masks", f"image {self.size[0]} x {self.size[1]}"]
        return f"Instances({'; '.join(words)})"

    @property
    def masks(self) -> Tensor | None:
        """[N, H, W] bool, made anew each time: N whole images. None of models without masks."""
        return None if self.crops is None else paste(self.crops)

    def above(self, threshold: float) -> "Instances":
        """Those with a score of at least `threshold`."""
        keep = self.scores >= threshold
        crops = None if self.crops is None else select(self.crops, keep)
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep], crops=crops)

    def to(self, device: torch.device | str) -> "Instances":
        """The same objects on `device`; the masks stay where they are."""
        return replace(self, boxes=self.boxes.to(device), scores=self.scores.to(device), labels=self.labels.to(device))


def no_instances(size: Size, *, masks: bool) -> Instances:
    """Nothing in an image of `size`. masks: of a model that gives masks."""
    none = torch.zeros(0, dtype=torch.int64)
    crops = Crops(none.reshape(0, 4), none.bool(), size) if masks else None
    return Instances(torch.zeros(0, 4), torch.zeros(0), none, size, crops)
