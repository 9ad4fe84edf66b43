"""Which classes label files and polygons speak of together: values, names, colours, and the place of each in a list."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.data.colors import class_colors
from torchfpn.errors import ConfigError, DataError, amount, nearest
from torchfpn.files.formats import printable
from torchfpn.files.rasters import Color
from torchfpn.raster.legend import BACKGROUND, OBJECT
from torchfpn.recipe import IGNORE
from torchfpn.vectors.objects import Objects

TOP = 65535


@dataclass(frozen=True)
class LabelClasses:
    """values: label value of each class, rising. names, colors: of each. ignored: values that mean "not labelled".

    burn: the value of polygons without a class. told: whether anybody said what the values mean; else each is a class.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ignored: frozenset[int]
    burn: int
    told: bool

    def indices(self, labels: NDArray[Any], nodata: int | None, file: Path) -> NDArray[np.uint8]:
        """Label values -> places in the list of classes; `IGNORE` where nothing is labelled.

        Raises:
            DataError: a value that is neither.
        """
        index = {value: i for i, value in enumerate(self.values)}
        found = np.flatnonzero(np.bincount(labels.ravel())) if labels.dtype == np.uint8 else np.unique(labels)
        known = np.zeros(len(found), np.uint8)
        for k, value in enumerate(found.tolist()):
            if value in self.ignored or (value == nodata and value not in index):
                known[k] = IGNORE
            elif value in index:
                known[k] = index[value]
            else:
                raise self._unknown(value, int((labels == value).sum()), file)
        if labels.dtype != np.uint8:
            return np.asarray(known[np.searchsorted(found, labels)])
        table = np.zeros(256, np.uint8)
        table[found] = known
        return np.asarray(table[labels])

    def _unknown(self, value: int, count: int, file: Path) -> DataError:
        shown = ", ".join(f"{v} {name}" for v, name in list(zip(self.values, self.names, strict=True))[:20])
        shown = shown if self.told else "0..254 where the values have no names"
        hint = f"name it with --classes, or leave it out with --ignore {value}"
        return DataError(
            f"the value {value} in {amount(count, 'pixel')}", file=printable(file), allowed=shown, hint=hint
        )

    def of_objects(self, layer: Objects) -> NDArray[np.int64]:
        """[N]: the place of the class of each object in the list.

        Raises:
            ConfigError: a class that is not in the list.
        """
        index = {value: i for i, value in enumerate(self.values)}
        if layer.classes is None:
            if self.burn not in index:
                raise ConfigError(f"{self.burn}", field="burn", allowed=", ".join(map(str, self.values)))
            return np.full(len(layer.shapes), index[self.burn], np.int64)
        known = {str(v): i for v, i in index.items()} | {name: i for i, name in enumerate(self.names)}
        for value in layer.classes:
            if str(value) not in known:
                hint = nearest(str(value), self.names) + '; another attribute: --field; none: --field ""'
                raise ConfigError(f'no class "{value}"', file=printable(layer.file), hint=hint)
        return np.array([known[str(value)] for value in layer.classes], np.int64)


def label_classes(
    given: Mapping[int, str],
    files: Mapping[int, str],
    layers: Sequence[Objects],
    colors: Mapping[int, Color],
    *,
    ignore: Collection[int] | None = None,
    told: Collection[int] = (),
    burn: int | None = None,
    maps: bool = True,
) -> LabelClasses:
    """The classes of label files and polygons, settled before the first image.

    given: value -> name as the user says, before `files`, as the label files say; where nobody says, every value is a
    class. layers: polygons, each with or without classes. colors: of values, as the files say. ignore: None: 255 and
    those that the files have `told`, unless they are classes. burn: the value of polygons without a class; None: the
    only one besides the background, or 1.
    maps: whether there are label files.

    Raises:
        ConfigError: it cannot be told which value the polygons have.
    """
    names = dict(given or files) or _named_by(layers, maps)
    ignored = frozenset({IGNORE, *told} - names.keys() if ignore is None else ignore)
    named = bool(names)
    if not named:
        names = {value: str(value) for value in range(IGNORE)}
    names = {value: name for value, name in sorted(names.items()) if value not in ignored}
    shown = class_colors(list(names.values()), [colors.get(value) for value in names])
    plain = any(layer.classes is None for layer in layers)
    value = _burnt(names, given or files) if burn is None and plain else burn or 1
    return LabelClasses(tuple(names), tuple(names.values()), tuple(shown), ignored, value, named)


def _named_by(layers: Sequence[Objects], maps: bool) -> dict[int, str]:
    """What the polygons call their classes, where nothing else does."""
    held = {value for layer in layers if layer.classes is not None for value in layer.classes}
    if all(isinstance(value, int) and 0 <= value <= TOP for value in held):
        if not layers or (maps and not held):
            return {}
        return {0: BACKGROUND} | ({value: str(value) for value in held} or {1: OBJECT})
    if maps:
        found = (
            f"label files do not say what their values mean, and the polygons have words: {', '.join(map(str, held))}"
        )
        raise ConfigError(found[:200], field="classes", hint="say it: --classes 0=background,1=...")
    return dict(enumerate([BACKGROUND, *sorted({str(value) for value in held} - {BACKGROUND})]))


def _burnt(names: Mapping[int, str], told: Mapping[int, str]) -> int:
    """The value of polygons without a class."""
    foreground = [value for value, name in names.items() if value != 0 and name != BACKGROUND]
    if len(foreground) == 1:
        return foreground[0]
    if told:
        found = f"polygons without a class, and the classes {', '.join(names.values())}"
        raise ConfigError(found[:200], field="burn", hint="say which value they have with --burn, or give --field")
    return 1
