"""Random changes of a training sample: a pure function of the sample and a generator, for any number of bands."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchfpn.data.geometry import Geometry, lay
from torchfpn.data.jitter import Jitter
from torchfpn.data.sample import Sample
from torchfpn.errors import ConfigError
from torchfpn.files.geo import Window
from torchfpn.types import IGNORE, Size

Aim = Callable[[Sequence[float]], tuple[int, int] | None]  # random numbers -> (row, column) to lay the crop around
Read = Callable[[Window], Sample]
_DRAWS = 16  # uniform numbers drawn at once; every use has its own place, so switching one off moves no other


@dataclass(frozen=True)
class Augment(Jitter):
    """Scale jitter, crop, mirror, flip, quarter turns; then brightness, contrast and noise, per band or for all.

    Invalid pixels stay NaN, and the target is `IGNORE` wherever the image is NaN.

    crop: (height, width) of what comes out; images smaller than that are padded with NaN and `IGNORE`.
    scale: the enlargement is drawn from this range, evenly on a logarithmic scale.
    mirror, flip: probability of left-right and of upside-down. turns: also quarter turns, for views from above.
    brightness, contrast, band_brightness, band_contrast, noise, scaling: see `Jitter`.
    class_aware: probability that the crop is put around a pixel of a class that is chosen first, so that rare classes
    are seen; class_weights: how eagerly each class is chosen among those present, by default all alike.
    """

    crop: Size
    scale: tuple[float, float] = (1.0, 1.0)
    mirror: float = 0.5
    flip: float = 0.0
    turns: bool = False
    class_aware: float = 0.0
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        low, high = self.scale
        if min(self.crop) < 1 or not 0 < low <= high:
            raise ConfigError(f"crop {self.crop}, scale {self.scale}", allowed="a crop from 1 x 1, 0 < low <= high")
        self.check_scaling()

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """The changed sample: [C, *crop] float32 and [*crop] int64. `sample` is left as it was."""
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        geometry = self._geometry(sample.size, draws, lambda numbers: self._aim(sample.target, numbers))
        return self._changed(sample, geometry, draws, generator)

    def of_scene(self, size: Size, read: Read, aim: Aim, generator: torch.Generator) -> Sample:
        """The same of an image that is not held: only what the crop is made of is read.

        size: (height, width) of the image. read: of a window within it, gives that part. aim: of three random numbers,
        gives a pixel of a class that is drawn first, or None where nothing is labelled.
        """
        draws = torch.rand(_DRAWS, generator=generator).tolist()
        geometry = self._geometry(size, draws, aim)
        part, moved = geometry.within(size)
        return self._changed(read(part), moved, draws, generator)

    def _changed(self, sample: Sample, geometry: Geometry, draws: list[float], generator: torch.Generator) -> Sample:
        image, target = geometry.on_image(sample.image, sample.valid), geometry.on_labels(sample.target)
        if self.changes_values:
            image = self.change(image, draws[10:12], generator)
        if sample.may_miss:
            missing = image.isnan().any(0)
            image, target = image.masked_fill_(missing, torch.nan), target.masked_fill_(missing, IGNORE)
        return Sample(image, target.contiguous(), sample.name)

    def _geometry(self, size: Size, draws: list[float], aim: Aim) -> Geometry:
        low, high = self.scale
        factor = math.exp(math.log(low) + draws[0] * (math.log(high) - math.log(low)))
        turns = int(4 * draws[1]) if self.turns else 0
        height, width = self.crop if turns % 2 == 0 else self.crop[::-1]
        window_height, window_width = max(1, round(height / factor)), max(1, round(width / factor))
        target = aim(draws[6:9]) if draws[5] < self.class_aware else None
        window = Window(
            lay(size[0], window_height, draws[2], target and target[0]),
            lay(size[1], window_width, draws[3], target and target[1]),
            window_height,
            window_width,
        )
        return Geometry(window, self.crop, turns, draws[4] < self.mirror, draws[9] < self.flip)

    def _aim(self, target: Tensor, draws: Sequence[float]) -> tuple[int, int] | None:
        """(row, column) of a pixel of a class that is present; None where nothing is labelled."""
        chosen = self.choose(torch.bincount(target.reshape(-1), minlength=IGNORE + 1)[:IGNORE], draws[0])
        return None if chosen is None else pixel_of(target, chosen, draws[1])

    def choose(self, counts: Tensor, draw: float) -> int | None:
        """One of the classes that are present, by `class_weights`; None without any. counts: [K], pixels of each."""
        weights = torch.ones(len(counts), dtype=torch.float64)
        if self.class_weights:
            known = min(len(self.class_weights), len(counts))
            weights.zero_()[:known] = torch.tensor(self.class_weights[:known], dtype=torch.float64)
        sums = ((counts > 0) * weights).cumsum(0)
        if sums[-1] <= 0:
            return None
        return int(torch.searchsorted(sums, draw * sums[-1], right=True).clamp(max=len(counts) - 1))


def pixel_of(target: Tensor, chosen: int, draw: float) -> tuple[int, int]:
    """(row, column) of one of the pixels of a class that is there, each as likely. target: [H, W]."""
    places = (target.reshape(-1) == chosen).nonzero()
    return divmod(int(places[int(draw * len(places))]), target.shape[1])
