"""Which bands of a file are meant, by number from 1 or by name."""

from collections.abc import Sequence
from pathlib import Path

from torchfpn.errors import DataError, amount, nearest

Wanted = Sequence[int | str] | None  # None: every band


def band_numbers(wanted: Wanted, names: Sequence[str], *, file: str | Path | None = None) -> list[int]:
    """Numbers from 1 of the `wanted` bands of a file whose bands are called `names`.

    Raises:
        DataError: a number outside the file, a name it does not have, or has twice.
    """
    if wanted is None:
        return list(range(1, len(names) + 1))
    return [_number(band, list(names), file) for band in wanted]


def _number(band: int | str, names: list[str], file: str | Path | None) -> int:
    if isinstance(band, int):
        if not 1 <= band <= len(names):
            raise DataError(
                f"has {amount(len(names), 'band')}, band {band} is wanted", file=file, allowed=_listed(names)
            )
        return band
    if names.count(band) > 1:
        raise DataError(f'several bands are called "{band}"', file=file, hint="choose by number, from 1")
    if band not in names:
        raise DataError(f'has no band "{band}"', file=file, allowed=_listed(names), hint=nearest(band, names))
    return names.index(band) + 1


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{i} {name}" for i, name in enumerate(names[:20], start=1))
    return f"it has {shown}" + (" ..." if len(names) > 20 else "")
