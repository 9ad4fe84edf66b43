"""Every error torchfpn raises on purpose. The message is one line: where, what was found, what is allowed, the cure.

FPNError
├── ConfigError    a setting, a flag or a dataset.yaml that cannot be
├── DataError      an image, a label file or a folder that is not what it should be
│   └── RasterError    the same, for rasters and their georeference
├── ShapeError     tensors that do not fit together
└── WeightsError   a model file or a checkpoint that cannot be used
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

SHOWN = 24  # names that a hint lists at most: all keys of a dataset.yaml


class FPNError(Exception):
    """Something the user can mend; carries what a caller needs to say so in their own words.

    The line reads ``file: field: found; allowed; hint`` with the absent parts left out.
    """

    def __init__(
        self,
        found: str,
        *,
        file: str | Path | None = None,
        field: str | None = None,
        allowed: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.found, self.file, self.field, self.allowed, self.hint = found, file, field, allowed, hint
        where = [str(part) for part in (file, field) if part]
        line = ": ".join([*where, found])
        line = "; ".join([line, *(part for part in (allowed, hint) if part)])
        super().__init__(" ".join(line.split()))  # names of files may hold newlines: still one line


class ConfigError(FPNError):
    """A setting that cannot be."""


class DataError(FPNError):
    """An image, a label file or a folder that is not what it should be."""


class RasterError(DataError):
    """A raster, or its georeference, that is not what it should be."""


class ShapeError(FPNError):
    """Tensors that do not fit together."""


class WeightsError(FPNError):
    """A model file or a checkpoint that cannot be used."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """What `name` was probably meant to be, as a hint: ``did you mean "resnet18"?``, or the known names."""
    names = list(known)
    close = get_close_matches(name, names, n=most, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(f'"{n}"' for n in close) + "?"
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"known: {shown}" + (" ..." if len(names) > SHOWN else "")
