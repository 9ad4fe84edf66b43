"""Classes of label files that are drawn from polygons: of each feature, by an attribute or one for all."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.classes import MAX_CLASSES, ClassMap
from torchfpn.errors import ConfigError, DataError, amount, nearest
from torchfpn.recipe import IGNORE
from torchfpn.sources.label_classes import BACKGROUND, MAX_VALUE, OBJECT

if TYPE_CHECKING:
    from torchfpn.io.vectors import Vectors

SHOWN = 3  # unknown values that a message names


@dataclass(frozen=True)
class PolygonClasses:
    """The classes of features, and their values in the label files drawn from them.

    Attributes:
        classes: the background and the classes of the features.
        attribute: the attribute with the class of a feature; None: all features have the value `classes.burn_value`.
        attribute_values: label value of each value of the attribute that occurs.
    """

    classes: ClassMap
    attribute: str | None = None
    attribute_values: dict[int | str, int] = field(default_factory=dict)

    @property
    def ignore_value(self) -> int:
        """The label value that means "not labelled"."""
        return IGNORE if IGNORE not in self.classes.index else MAX_VALUE

    @property
    def dtype(self) -> str:
        """Pixel type of the label files, the same for all images."""
        return "uint8" if max(*self.classes.values, self.ignore_value) <= 255 else "uint16"

    def label_values(self, vectors: "Vectors", *, allow_unclassed: bool = False) -> NDArray[np.int64]:
        """[N]: the label value of each feature.

        Args:
            vectors: the features.
            allow_unclassed: features without a class get `ignore_value`.

        Raises:
            DataError: values of the attribute that are no class, or features without one.
        """
        if self.attribute is None or vectors.column is None:
            return np.full(len(vectors.shapes), self.classes.burn_value, np.int64)
        unclassed = vectors.unclassed if allow_unclassed else np.zeros(len(vectors.shapes), bool)
        pairs = list(zip(vectors.column, unclassed, strict=True))
        unknown = Counter(value for value, empty in pairs if value not in self.attribute_values and not empty)
        if unknown:
            raise self._unknown(unknown, vectors.file)
        values = (self.ignore_value if empty else self.attribute_values[value] for value, empty in pairs)
        return np.fromiter(values, np.int64, len(pairs))

    def _unknown(self, found: Counter[Any], file: Path) -> DataError:
        if found[None]:
            n = amount(found[None], "feature")
            hint = "give them one, or choose --without-class ignore | skip"
            return DataError(f"{n} without a value", file=file, field=self.attribute, hint=hint)
        shown = [f'"{value}" in {amount(count, "feature")}' for value, count in found.most_common(SHOWN)]
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        hint = nearest(str(found.most_common(1)[0][0]), self.classes.names)
        return DataError("no class " + ", ".join(shown) + more, file=file, field=self.attribute, hint=hint)


def single_class(names: Sequence[str] = (), burn_value: int = 1) -> PolygonClasses:
    """All features are of one class.

    Args:
        names: two names, for the label values 0 and `burn_value`; or names for 0, 1, 2, ..., `burn_value` among them.
        burn_value: the label value of all features.

    Raises:
        ConfigError: a value that is none of the classes, or not within 1..65535.
    """
    if not 1 <= burn_value <= MAX_VALUE:
        raise ConfigError(f"{burn_value}", field="--burn", allowed=f"1..{MAX_VALUE}; 0 is the background")
    chosen = list(names) or [BACKGROUND, OBJECT]
    _check_names(chosen)
    if len(chosen) > 2 and burn_value >= len(chosen):
        allowed = f"1..{len(chosen) - 1}, as {len(chosen)} classes are named"
        raise ConfigError(f"{burn_value}", field="--burn", allowed=allowed)
    values = (0, burn_value) if len(chosen) == 2 else range(len(chosen))
    return PolygonClasses(ClassMap.of(dict(zip(values, chosen, strict=True)), burn_value=burn_value))


def classes_of_attribute(attribute: str, files: "Sequence[Vectors]", names: Sequence[str] = ()) -> PolygonClasses:
    """The class of a feature is the value of its attribute.

    With `names`, values are names, or their numbers from 0. Without, whole numbers are drawn as they are, and words as
    1, 2, ... in alphabetical order, those of all `files` together.

    Raises:
        ConfigError: unusable names. DataError: numbers that fit into no label file, or too many values.
    """
    found = {value for file in files if file.column is not None for value in file.column if value is not None}
    if names:
        _check_names(names)
        known = {i: i for i in range(len(names))} | _by_name(names)
        values = {value: known[value] for value in found & known.keys()}
        return PolygonClasses(ClassMap.of(dict(enumerate(names))), attribute, values)
    if len(found) > MAX_CLASSES:
        allowed = f"at most {MAX_CLASSES} classes"
        raise DataError(f"{len(found)} different values", field=attribute, allowed=allowed)
    if all(isinstance(value, int) for value in found):
        if wrong := sorted(value for value in found if not 0 <= value <= MAX_VALUE):
            raise DataError(f"the value {wrong[0]}", field=attribute, allowed=f"numbers in 0..{MAX_VALUE}, or words")
        numbered = {0: BACKGROUND} | {value: str(value) for value in sorted(found) if value}
        return PolygonClasses(ClassMap.of(numbered), attribute, {value: value for value in found})
    words = [BACKGROUND, *sorted({str(value) for value in found} - {BACKGROUND})]
    by_name = _by_name(words)
    values = {value: by_name[str(value)] for value in found}
    return PolygonClasses(ClassMap.of(dict(enumerate(words))), attribute, values)


def _by_name(names: Sequence[str]) -> dict[int | str, int]:
    return {name: value for value, name in enumerate(names)}


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not all(names) or not 2 <= len(names) <= MAX_CLASSES:
        found = f'"{twice[0]}" twice' if twice else f"{len(names)} names: {', '.join(names)[:80]}"
        raise ConfigError(found, field="--classes", allowed=f"2 to {MAX_CLASSES} different names, the background first")
