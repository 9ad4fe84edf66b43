"""Bands by name: which of them are red, green and blue, and how the others begin."""

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

from torchfpn.backbones import check_words
from torchfpn.backbones.inputs import COLORS
from torchfpn.errors import ConfigError, nearest


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
    check_words(fusion, band_init)
    places = color_places(bands, rgb=rgb, named=named)
    if isinstance(band_init, str):
        if fusion == "none" and band_init in ("repeat", "mean"):
            return {"band_init": band_init}
    else:
        band_init = {_position(bands, band, "band_init"): color for band, color in band_init.items()}
        if fusion == "none" and places is None:  # those that are called by a colour begin as that colour
            own = {i: band.lower() for i, band in enumerate(bands) if named and band.lower() in COLORS}
            return {"rgb": (), "band_init": own | band_init}
    if places is None and named:
        found = f"none given, and no bands red, green, blue among {', '.join(bands)}"
        raise ConfigError(found, field="rgb", hint="name the three: rgb=[name, name, name]")
    return {"rgb": (0, 1, 2) if places is None else places, "band_init": band_init}


def color_places(
    bands: Sequence[str], *, rgb: Sequence[str | int] | None = None, named: bool = True
) -> tuple[int, ...] | None:
    """Which bands are red, green and blue, as positions; None where nothing tells. rgb, named: as of `band_options`.

    Raises:
        ConfigError: a band that is not there, or not three of them (none at all may be said).
    """
    if rgb is not None:
        places = tuple(_position(bands, band, "rgb") for band in rgb)
        if places and not len(places) == len(set(places)) == 3:
            found = f"{list(places)} of {len(bands)} bands"
            raise ConfigError(found, field="rgb", allowed="three different bands: red, green, blue")
        return places
    if not named:
        return (0, 1, 2) if len(bands) >= 3 else None
    lower = [band.lower() for band in bands]
    return tuple(lower.index(color) for color in COLORS) if set(COLORS) <= set(lower) else None


def _position(bands: Sequence[str], band: str | int, field: str) -> int:
    if isinstance(band, str):
        if band in bands:
            return list(bands).index(band)
    elif hasattr(band, "__index__") and 0 <= index(band) < len(bands):  # NumPy's whole numbers, too
        return index(band)
    hint = nearest(band, list(bands)) if isinstance(band, str) else f"positions are 0..{len(bands) - 1}"
    raise ConfigError(f"there is no band {band!r}", field=field, allowed=", ".join(bands), hint=hint)
