"""Random changes of the values of an image: brightness, contrast, noise, for all bands alike or each by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchfpn.errors import ConfigError
from torchfpn.recipe import Scaling


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """How much values may change.

    Amounts of brightness and noise are in units of the band's `scaling.scale`, and contrast turns about its offset, so
    that they mean the same for 8-bit colours, reflectances and degrees.

    brightness: the image is shifted by up to this much. contrast: stretched by up to e to the power of this.
    band_brightness, band_contrast: the same drawn for each band by itself. noise: its largest standard deviation.
    scaling: of the bands; needed as soon as one of the five is used.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    band_brightness: float = 0.0
    band_contrast: float = 0.0
    noise: float = 0.0
    scaling: Scaling | None = None

    @property
    def changes_values(self) -> bool:
        """Whether anything happens at all."""
        amounts = (self.brightness, self.contrast, self.band_brightness, self.band_contrast, self.noise)
        return any(amount > 0 for amount in amounts)

    def check_scaling(self) -> None:
        """Passes if the units of the amounts are known.

        Raises:
            ConfigError: they are not.
        """
        if self.changes_values and self.scaling is None:
            raise ConfigError("brightness, contrast or noise without a scaling", hint="pass scaling=")

    def change(self, image: Tensor, draws: Sequence[float], generator: torch.Generator) -> Tensor:
        """The image times gain plus shift plus noise, gain and shift per band; changed in place. draws: two."""
        assert self.scaling is not None  # check_scaling has seen to it
        bands = len(image)
        offset, scale = (torch.tensor(v, dtype=torch.float32) for v in (self.scaling.offset, self.scaling.scale))
        own = torch.rand(2, bands, generator=generator) * 2 - 1
        gain = torch.exp(self.contrast * (2 * draws[0] - 1) + self.band_contrast * own[0])
        bright = self.brightness * (2 * draws[1] - 1) + self.band_brightness * own[1]
        shift = offset * (1 - gain) + bright * scale
        image = image.mul_(gain[:, None, None]).add_(shift[:, None, None])
        if self.noise > 0:
            deviations = self.noise * torch.rand(1, generator=generator) * scale
            grain = torch.empty(image.shape[1:])  # a band at a time: it then stays in the cache of the core
            for band, deviation in zip(image, deviations.tolist(), strict=True):
                band.add_(grain.normal_(generator=generator), alpha=deviation)
        return image
