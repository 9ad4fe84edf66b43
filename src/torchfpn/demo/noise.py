"""Textures of the invented land: noise of any size and a Gaussian blur, in numpy alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]  # [H, W], or [4, H, W]; float32 unless said otherwise


def fractal(rng: np.random.Generator, shape: tuple[int, int], scale: float, *, roughness: float = 1.2) -> Field:
    """[H, W] noise of mean 0 and deviation 1 with features of about `scale` pixels, finer ones mixed in.

    White noise whose spectrum falls as frequency ** -(1 + roughness) above 1 / scale: hills for large `scale`, grain
    for small.
    """
    height, width = shape
    white = np.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    square = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None, :] ** 2
    weight = (1.0 + (square * scale**2).astype(np.float32)) ** np.float32(-(1.0 + roughness) / 2)
    weight[0, 0] = 0.0
    field = np.fft.irfft2(white * weight, s=shape)
    return (field / max(float(field.std()), 1e-9)).astype(np.float32)


def blur(field: Field, sigma: float) -> Field:
    """Gaussian blur of the last two axes; beyond the border the outermost pixels go on."""
    radius = max(1, round(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (field.ndim - 2, field.ndim - 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(field.ndim)]
        wide, size = np.pad(field, pad, mode="edge"), field.shape[axis]
        field = np.zeros_like(field)
        for start, tap in enumerate(taps):
            window = [slice(start, start + size) if a == axis else slice(None) for a in range(field.ndim)]
            field += np.float32(tap) * wide[tuple(window)]
    return field


def smoothstep(low: float, high: float, value: Field) -> Field:
    """0 below `low`, 1 above `high`, a soft ramp between."""
    ramp = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), dtype=np.float32)
