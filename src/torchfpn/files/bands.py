"""Which bands of a file are meant: by number from 1, or by name, in any of the known spellings of one band."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from torchfpn.errors import DataError, amount, nearest

Wanted = Sequence[int | str] | None  # None: every band

# B2, B02, B02_10m, SR_B2, S2_B8A, Band 4
_NUMBERED = re.compile(
    r"(?P<sensor>s2|sentinel[ _-]?2|sr)?[ _-]?b(?:and)?[ _-]?"
    r"(?P<zero>0?)(?P<number>[1-9]\d?a?)(?P<side>[ _-][126]0 ?m)?"
)
_UNNAMED = re.compile(r"(band|layer|channel)?[ _-]?0*(\d+)")
_WORDS = {
    "r": "red",
    "g": "green",
    "b": "blue",
    "gray": "grey",
    "nearinfrared": "nir",
    "coastalaerosol": "coastal",
    "panchromatic": "pan",
    "watervapour": "watervapor",
    "nir09": "watervapor",
    "narrownir": "nir08",
    "nirnarrow": "nir08",
    "swir16": "swir1",
    "swir22": "swir2",
    "rededge071": "rededge1",
    "rededge075": "rededge2",
    "rededge078": "rededge3",
}
# What the bands of a number show, from the handbooks of the missions; panchromatic bands have pixels of another size.
_SENTINEL = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "rededge1",
    "6": "rededge2",
    "7": "rededge3",
    "8": "nir",
    "8a": "nir08",
    "9": "watervapor",
    "10": "cirrus",
    "11": "swir1",
    "12": "swir2",
}
_LANDSAT_8 = {"1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir1", "7": "swir2"}
_LANDSAT_7 = {"1": "blue", "2": "green", "3": "red", "4": "nir", "5": "swir1", "7": "swir2"}
_OTHERS = (_LANDSAT_8 | {"9": "cirrus", "10": "tirs1", "11": "tirs2"}, _LANDSAT_7)


def band_numbers(wanted: Wanted, names: Sequence[str], *, file: str | Path | None = None) -> list[int]:
    """Numbers from 1 of the `wanted` bands of a file whose bands are called `names`.

    Raises:
        DataError: a number outside the file, a name it does not have, or has twice.
    """
    if wanted is None:
        return list(range(1, len(names) + 1))
    return [_number(band, list(names), file) for band in wanted]


def same_band(one: str, other: str) -> bool:
    """Whether two names are spellings of one band: "B2" and "B02_10m", "Near Infrared" and "nir"."""
    return match_bands([one], [other]) is not None


def match_bands(found: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """The places among `found` of all bands `wanted`, by name; None where a name is missing, twice there, or unclear.

    Numbers and colour words are one band where the numbers tell the sensor, or all sensors that have these numbers
    agree: B02 is blue (Sentinel-2), B2 alone may be blue or green (Landsat 8, Landsat 7).
    """
    keys_of: list[Callable[[str], str]] = [str.casefold, _key, *_translations([*found, *wanted])]
    for key in keys_of:
        keys = [key(name) for name in found]
        if all(keys.count(key(name)) == 1 for name in wanted) and len({key(name) for name in wanted}) == len(wanted):
            return [keys.index(key(name)) for name in wanted]
    return None


def is_name(name: str, place: int | None = None) -> bool:
    """Whether a band is called by more than its place or "grey". place: from 1; None: any number is one."""
    counted = _UNNAMED.fullmatch(name.strip().casefold())
    return name.casefold() != "grey" and not (counted and place in (None, int(counted[2])))


def misplaced(found: Sequence[str], told: Sequence[bool], names: Sequence[str]) -> bool:
    """Whether a name that a file tells is that of another place among `names`."""
    return any(
        tells and not same_band(one, own) and any(same_band(one, other) for other in names)
        for one, tells, own in zip(found, told, names, strict=True)
    )


def _key(name: str) -> str:
    """The same for all spellings of a name; numbers stay numbers."""
    numbered = _NUMBERED.fullmatch(name.strip().casefold())
    if numbered:
        return f"b{numbered['number']}"
    word = re.sub(r"[\s_-]+", "", name.casefold())
    return _WORDS.get(word, word)


def _translations(names: Sequence[str]) -> "list[_Translation]":
    """The way from numbers to words, if these names leave no doubt of it."""
    numbered = [found for found in (_NUMBERED.fullmatch(name.strip().casefold()) for name in names) if found]
    numbers = {found["number"] for found in numbered}
    tables: tuple[dict[str, str], ...] = (_SENTINEL, *_OTHERS)
    if any(found["zero"] or found["side"] or (found["sensor"] or "").startswith("s2") for found in numbered):
        tables = (_SENTINEL,)
    elif any(found["sensor"] == "sr" for found in numbered):
        tables = _OTHERS
    readings = [{n: table[n] for n in numbers} for table in tables if numbers <= table.keys()]
    if not numbers or not readings or any(reading != readings[0] for reading in readings):
        return []
    return [_Translation(readings[0])]


class _Translation:
    """A name as a colour word, where the number of a band stands for one."""

    def __init__(self, words: dict[str, str]) -> None:
        self.words = words

    def __call__(self, name: str) -> str:
        key = _key(name)
        return self.words.get(key[1:], key) if key.startswith("b") else key


def _number(band: int | str, names: list[str], file: str | Path | None) -> int:
    if isinstance(band, int):
        if not 1 <= band <= len(names):
            raise DataError(
                f"has {amount(len(names), 'band')}, band {band} is wanted", file=file, allowed=_listed(names)
            )
        return band
    if names.count(band) == 1:
        return names.index(band) + 1
    if names.count(band) > 1:
        raise DataError(f'several bands are called "{band}"', file=file, hint="choose by number, from 1")
    place = match_bands(names, [band])
    if place is None:
        raise DataError(f'has no band "{band}"', file=file, allowed=_listed(names), hint=nearest(band, names))
    return place[0] + 1


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{i} {name}" for i, name in enumerate(names[:20], start=1))
    return f"it has {shown}" + (" ..." if len(names) > 20 else "")
