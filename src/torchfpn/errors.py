"""Every error torchfpn raises on purpose. The message is one line: where, what was found, what was expected, the cure.

FPNError
├── ConfigError    a setting, a flag or a dataset.yaml that cannot be
├── DataError      an image, a label file or a folder that is not what it should be
│   ├── RasterError    the same, for rasters and their georeference
│   └── NotFiniteError a model's answer with NaN or infinity
├── ShapeError     tensors that do not fit together
├── WeightsError   a model file or a checkpoint that cannot be used
└── WriteError     an output that cannot be written; an OSError as well
"""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from torchfpn.printing import shortened, visible

SHOWN = 32  # names that a hint lists at most: all keys of a dataset.yaml

EXTRAS = {  # the packages that each optional part of torchfpn imports
    "raster": ("rasterio", "shapely", "pyogrio"),
    "train": ("lightning",),
    "objects": ("faster_coco_eval",),
}


class FPNError(Exception):
    """Something the user can mend; carries what a caller needs to say so in their own words.

    The line reads ``file: field: found; expected allowed; hint`` with the absent parts left out:
    ``dataset.yaml: nodata: 'none'; expected a number; leave it out if there is none``.

    Args:
        found: what is there ("-1.0", "3 bands") or what is wrong with it ("no such file").
        file: the file it is about.
        field: the setting, key, flag or record in it, as the user writes it.
        allowed: what belongs there, a phrase that can follow "expected": "a number from 0", "to come with --polygons".
        hint: what to do, an imperative: "replace it with --overwrite".
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
        line = " ".join(": ".join([*where, self.said]).split())  # names of files may hold newlines
        super().__init__(shortened(visible(line)))

    @property
    def said(self) -> str:
        """The line without file and field."""
        expected = f"expected {self.allowed}" if self.allowed else None
        return "; ".join(part for part in (self.found, expected, self.hint) if part)


class ConfigError(FPNError):
    """A setting that cannot be."""


class DataError(FPNError):
    """An image, a label file or a folder that is not what it should be."""


class RasterError(DataError):
    """A raster, or its georeference, that is not what it should be."""


class NotFiniteError(DataError):
    """A model's answer for an image, or for a window of one, that holds NaN or infinity."""


class ShapeError(FPNError):
    """Tensors that do not fit together."""


class WeightsError(FPNError):
    """A model file or a checkpoint that cannot be used."""


class WriteError(FPNError, OSError):
    """A file or a folder that cannot be written: a full disk, no permission, a folder that is gone.

    Args:
        reason: the words of the system: "No space left on device".
        file: the path that should have been written, never that of a temporary file.
        hint: what to do.
    """

    def __init__(self, reason: str, *, file: str | Path | None = None, hint: str | None = None) -> None:
        self.reason = reason
        super().__init__(f"cannot be written ({reason})", file=file, hint=hint)


def of_system(error: OSError, file: str | Path) -> DataError:
    """The line for what the system says against reading a file: about the file that it names, else about `file`."""
    named = error.filename if isinstance(error.filename, str | os.PathLike) else file
    shown = os.fsencode(named).decode("utf-8", "backslashreplace")
    return DataError(error.strerror or str(error), file=shown)


def amount(number: int, noun: str, plural: str = "") -> str:
    """A number of things in words: "1 file", "1,204 files"; the plural is the noun with an s if it is not given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def nearest(name: object, known: Iterable[str], most: int = 3) -> str:
    """What `name` was probably meant to be, as a hint: ``did you mean "resnet18"?``, or the known names.

    A name that is no text, such as the key 8 or null of a YAML file, is compared as it is printed.
    """
    names = list(known)
    close = get_close_matches(str(name), names, n=most, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(f'"{n}"' for n in close) + "?"
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"known: {shown}" + (" ..." if len(names) > SHOWN else "")


def missing_package(name: str, what: str = "") -> ConfigError | None:
    """The error for a package of an extra that is not installed; None for a package of no extra.

    Args:
        name: as it is imported.
        what: the part that needs it: "fpn rasterize", "the scores of objects".
    """
    for extra, packages in EXTRAS.items():
        if name in packages:
            needed = f"{what} needs {name}, which is not installed" if what else f"{name} is not installed"
            return ConfigError(needed, hint=f'pip install "torchfpn[{extra}]"')
    return None


def require(extra: str, what: str) -> None:
    """Makes sure, without importing them, that the packages of an extra are there, so that it is said before the work.

    Args:
        extra: a key of `EXTRAS`.
        what: the part that needs them.

    Raises:
        ConfigError: one is not installed, with the command that installs it.
    """
    for package in EXTRAS[extra]:
        if find_spec(package) is None and (error := missing_package(package, what)):
            raise error
