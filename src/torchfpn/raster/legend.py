"""What the pixels of a drawn label map mean: values and names of the classes, and which attribute gives which."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.colors import class_colors
from torchfpn.errors import ConfigError, DataError, amount, nearest
from torchfpn.vectors.reading import Vectors

BACKGROUND, OBJECT = "background", "object"
MOST = 255  # classes of a data set
TOP = 65535
SHOWN = 3


@dataclass(frozen=True)
class Legend:
    """names: label value -> class. values: attribute, of those found -> label value; `burn`: of every feature else."""

    names: dict[int, str]
    burn: int = 1
    values: dict[int | str, int] = field(default_factory=dict)
    attribute: str | None = None

    @property
    def colors(self) -> dict[int, tuple[int, int, int]]:
        """Red, green, blue of each label value."""
        names = list(self.names.values())
        return dict(zip(self.names, class_colors(names, [None] * len(names)), strict=True))

    @property
    def ignored(self) -> int:
        """The label value that means "not labelled"."""
        return 255 if 255 not in self.names else TOP

    @property
    def dtype(self) -> str:
        """Of label files, the same for all images."""
        return "uint8" if max(*self.names, self.ignored) <= 255 else "uint16"

    def labels(self, vectors: Vectors, *, unclassed: bool = False) -> NDArray[np.int64]:
        """[N]: the label value of each feature. unclassed: those without a class get `ignored`.

        Raises:
            DataError: values of the attribute that are no class, or features without one.
        """
        if self.attribute is None or vectors.column is None:
            return np.full(len(vectors.shapes), self.burn, np.int64)
        passed = vectors.unclassed if unclassed else np.zeros(len(vectors.shapes), bool)
        pairs = list(zip(vectors.column, passed, strict=True))
        unknown = Counter(value for value, empty in pairs if value not in self.values and not empty)
        if unknown:
            raise _unknown(unknown, self, vectors.file)
        return np.array([self.ignored if empty else self.values[value] for value, empty in pairs], np.int64)


def legend_of_one(classes: Sequence[str] = (), burn: int = 1) -> Legend:
    """Every feature is of one class, drawn as the value `burn`.

    classes: two names, for 0 and `burn`; or names for 0, 1, 2, ..., `burn` among them.

    Raises:
        ConfigError: a value that is none of the classes, or not within 1..65535.
    """
    if not 1 <= burn <= TOP:
        raise ConfigError(f"{burn}", field="--burn", allowed=f"1..{TOP}; 0 is the background")
    names = list(classes) or [BACKGROUND, OBJECT]
    _check_names(names)
    if len(names) == 2:
        return Legend({0: names[0], burn: names[1]}, burn)
    if burn >= len(names):
        raise ConfigError(f"{burn}", field="--burn", allowed=f"1..{len(names) - 1}, as {len(names)} classes are named")
    return Legend(dict(enumerate(names)), burn)


def legend_of_field(attribute: str, files: Sequence[Vectors], classes: Sequence[str] = ()) -> Legend:
    """The class of a feature is the value of its attribute.

    With `classes`, values are their names, or their numbers from 0. Without, whole numbers are drawn as they are, and
    words as 1, 2, ... in alphabetical order, those of all `files` together.

    Raises:
        ConfigError: unusable names. DataError: numbers that fit into no label file, or too many values.
    """
    held = {value for file in files if file.column is not None for value in file.column if value is not None}
    if classes:
        _check_names(classes)
        known = {i: i for i in range(len(classes))} | _by_name(classes)
        values = {value: known[value] for value in held & known.keys()}
        return Legend(dict(enumerate(classes)), values=values, attribute=attribute)
    if len(held) > MOST:
        raise DataError(f"{len(held)} different values", field=attribute, allowed=f"at most {MOST} classes")
    if all(isinstance(value, int) for value in held):
        if wrong := sorted(value for value in held if not 0 <= value <= TOP):
            raise DataError(f"the value {wrong[0]}", field=attribute, allowed=f"numbers in 0..{TOP}, or words")
        return Legend({0: BACKGROUND} | {v: str(v) for v in sorted(held) if v}, 1, {v: v for v in held}, attribute)
    words = [BACKGROUND, *sorted({str(value) for value in held} - {BACKGROUND})]
    by_name = _by_name(words)
    return Legend(dict(enumerate(words)), 1, {value: by_name[str(value)] for value in held}, attribute)


def _by_name(names: Sequence[str]) -> dict[int | str, int]:
    return {name: value for value, name in enumerate(names)}


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not all(names) or not 2 <= len(names) <= MOST:
        found = f'"{twice[0]}" twice' if twice else f"{len(names)} names: {', '.join(names)[:80]}"
        raise ConfigError(found, field="--classes", allowed=f"2 to {MOST} different names, the background first")


def _unknown(found: Counter[Any], legend: Legend, file: Path) -> DataError:
    if found[None]:
        n = amount(found[None], "feature")
        hint = "give them one, or choose --without-class ignore | skip"
        return DataError(f"{n} without a value", file=file, field=legend.attribute, hint=hint)
    shown = [f'"{value}" in {amount(count, "feature")}' for value, count in found.most_common(SHOWN)]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    hint = nearest(str(found.most_common(1)[0][0]), legend.names.values())
    return DataError("no class " + ", ".join(shown) + more, file=file, field=legend.attribute, hint=hint)
