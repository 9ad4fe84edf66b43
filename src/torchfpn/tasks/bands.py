"""Bands by name: which of them are red, green and blue, and how the others begin."""

from collections.abc import Mapping, Sequence
from typing import Any

from torchfpn.errors import ConfigError, nearest

COLORS = ("red", "green", "blue")


def band_options(
    bands: Sequence[str],
    *,
    rgb: Sequence[str | int] | None = None,
    band_init: str | Mapping[Any, str] = "repeat",
    fusion: str = "none",
    named: bool = True,
) -> dict[str, Any]:
    """The arguments `rgb` and `band_init` of `create_model` as positions among `bands`, where they matter.

    rgb: names, or positions from 0; None: the bands called red, green and blue. named: whether the names mean anything;
    of bands that were only counted the first three are red, green and blue.

    Raises:
        ConfigError: a band that is not there, or nothing to tell red, green and blue by.
    """
    places = None if rgb is None else tuple(_position(bands, band, "rgb") for band in rgb)
    if fusion == "none" and band_init in ("repeat", "mean"):
        return {"band_init": band_init}
    if places is None:
        places = _by_name(bands) if named else (0, 1, 2)
    if not isinstance(band_init, str):
        band_init = {_position(bands, band, "band_init"): color for band, color in band_init.items()}
    return {"rgb": places, "band_init": band_init}


def _by_name(bands: Sequence[str]) -> tuple[int, ...]:
    lower = [band.lower() for band in bands]
    if not set(COLORS) <= set(lower):
        found = f"none given, and no bands red, green, blue among {', '.join(bands)}"
        raise ConfigError(found, field="rgb", hint="say which three they are: rgb=[name, name, name]")
    return tuple(lower.index(color) for color in COLORS)


def _position(bands: Sequence[str], band: str | int, field: str) -> int:
    if isinstance(band, str) and band in bands:
        return list(bands).index(band)
    if isinstance(band, int) and 0 <= band < len(bands):
        return band
    hint = nearest(band, list(bands)) if isinstance(band, str) else f"positions are 0..{len(bands) - 1}"
    raise ConfigError(f"there is no band {band!r}", field=field, allowed=", ".join(bands), hint=hint)
