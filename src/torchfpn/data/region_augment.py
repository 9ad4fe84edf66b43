"""Random changes of an image and its objects: a pure function of both and a generator, for any number of bands."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchfpn.data.geometry import Geometry, lay
from torchfpn.data.jitter import Jitter
from torchfpn.data.moving import COVERING, VISIBLE, moved
from torchfpn.data.region_sample import RegionSample, without_gaps
from torchfpn.data.resize import Resize, times
from torchfpn.data.truth import Truth
from torchfpn.errors import ConfigError
from torchfpn.files.geo import Window
from torchfpn.types import Size

Read = Callable[[Window], tuple[Tensor, Tensor | None, Truth]]  # of a window: image, where it is valid, objects
Floats = NDArray[np.float32]
_DRAWS = 16  # uniform numbers drawn at once; every use has its own place, so switching one off moves no other


@dataclass(frozen=True)
class RegionAugment(Jitter):
    """Resizing, scale jitter, crop, mirror, flip, quarter turns; then brightness, contrast and noise (`Jitter`).

    resize: the size of images before the rest; None: as they are. scale: more enlargement, drawn from this range evenly
    on a logarithmic scale. crop: (height, width) of the largest part that comes out; None: all of the image. What is
    smaller stays so, and is padded when a batch is made. mirror, flip: probability of left-right and of upside-down.
    turns: also quarter turns, for views from above. around: probability that a crop is put around one of the objects,
    for images with few of them. visible, covering, smallest: what must be left of an object that is cut: share of its
    box, or else of the view that it covers, and the pixels of each side (see `moved`).
    """

    resize: Resize | None = None
    crop: Size | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    mirror: float = 0.5
    flip: float = 0.0
    turns: bool = False
    around: float = 0.0
    visible: float = VISIBLE
    covering: float = COVERING
    smallest: float = 1.0

    def __post_init__(self) -> None:
        low, high = self.scale
        if (self.crop is not None and min(self.crop) < 1) or not 0 < low <= high:
            raise ConfigError(f"crop {self.crop}, scale {self.scale}", allowed="a crop from 1 x 1, 0 < low <= high")
        self.check_scaling()

    def __call__(
        self, image: Tensor, valid: Tensor | None, truth: Truth, generator: torch.Generator, name: str = ""
    ) -> RegionSample:
        """What becomes of an image [C, H, W] of any type, `valid` [H, W] where it has data, and of its objects."""
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        size = (image.shape[-2], image.shape[-1])
        return self._changed(image, valid, truth, self.geometry(size, draws, truth.boxes), draws, generator, name)

    def of_scene(
        self, size: Size, read: Read, generator: torch.Generator, name: str = "", boxes: Floats | None = None
    ) -> RegionSample:
        """The same of an image that is not held: only what the crop is made of is read.

        size: (height, width) of the image. read: of a window within it, gives that part and its objects. boxes: [N, 4]
        of all objects of the image, which crops may be put around; needed with `around` alone.
        """
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        part, geometry = self.geometry(size, draws, boxes).within(size)
        where = f"{name} ({part.row}, {part.column})"
        return self._changed(*read(part), geometry, draws, generator, where)

    def geometry(self, size: Size, draws: list[float], boxes: Floats | None = None) -> Geometry:
        """What the uniform numbers `draws` make of an image of (height, width) `size`. boxes: [N, 4] of its objects."""
        low, high = self.scale
        factor = 1.0 if self.resize is None else self.resize.factor(size, draws[6])
        factor *= math.exp(math.log(low) + draws[0] * (math.log(high) - math.log(low)))
        turns = int(4 * draws[1]) if self.turns else 0
        whole = times(size, factor)
        crop = whole if self.crop is None else self.crop if turns % 2 == 0 else self.crop[::-1]
        out = min(crop[0], whole[0]), min(crop[1], whole[1])
        height, width = (
            length if out[i] == whole[i] else min(length, max(1, round(out[i] / factor)))
            for i, length in enumerate(size)
        )
        row, column = self._aim(boxes, draws)
        window = Window(lay(size[0], height, draws[2], row), lay(size[1], width, draws[3], column), height, width)
        shown = out if turns % 2 == 0 else out[::-1]
        return Geometry(window, shown, turns, draws[4] < self.mirror, draws[9] < self.flip)

    def _aim(self, boxes: Floats | None, draws: list[float]) -> tuple[int, int] | tuple[None, None]:
        """(row, column) of the middle of an object, each as likely."""
        if boxes is None or not len(boxes) or draws[5] >= self.around:
            return None, None
        x1, y1, x2, y2 = boxes[int(draws[7] * len(boxes))].tolist()
        return int((y1 + y2) / 2), int((x1 + x2) / 2)

    def _changed(
        self,
        image: Tensor,
        valid: Tensor | None,
        truth: Truth,
        geometry: Geometry,
        draws: list[float],
        generator: torch.Generator,
        name: str,
    ) -> RegionSample:
        out = geometry.on_image(image, valid)
        if self.changes_values:
            out = self.change(out, draws[10:12], generator)
        if valid is not None or image.is_floating_point():
            out = without_gaps(out)
        objects = moved(truth, geometry, visible=self.visible, covering=self.covering, smallest=self.smallest)
        return RegionSample(out, objects, name)
