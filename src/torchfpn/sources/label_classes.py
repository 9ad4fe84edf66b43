"""Classes of label files and vector files: values, names, colors, and the attribute with the class of a feature."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.classes import class_colors
from torchfpn.errors import ConfigError, DataError, amount, nearest
from torchfpn.io.formats import printable
from torchfpn.recipe import IGNORE
from torchfpn.types import Color

if TYPE_CHECKING:
    from torchfpn.io.vectors import Vectors
    from torchfpn.vector.objects import Objects


BACKGROUND, OBJECT = "background", "object"
MOST = 255  # classes of a data set
TOP = 65535
SHOWN = 3
Present = Callable[[], Collection[int]]


@dataclass(frozen=True)
class Legend:
    """The classes of a label map that is drawn from polygons.

    Attributes:
        names: label value -> class.
        burn: the value of every feature where no attribute gives it.
        values: value of the attribute, of those found -> label value.
        attribute: its name; None: all features are of one class.
    """

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

    def labels(self, vectors: "Vectors", *, unclassed: bool = False) -> NDArray[np.int64]:
        """[N]: the label value of each feature.

        Args:
            vectors: the features.
            unclassed: those without a class get `ignored`.

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

    Args:
        classes: two names, for 0 and `burn`; or names for 0, 1, 2, ..., `burn` among them.
        burn: the label value of all features.

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


def legend_of_field(attribute: str, files: "Sequence[Vectors]", classes: Sequence[str] = ()) -> Legend:
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


@dataclass(frozen=True)
class LabelClasses:
    """The classes that label files and polygons have together.

    Attributes:
        values: label value of each class, rising.
        names: of each class.
        colors: of each class.
        ignored: values that mean "not labelled".
        burn: the value of polygons without a class.
        told: whether anybody said what the values mean; else each value is a class.
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

    def of_objects(self, layer: "Objects") -> NDArray[np.int64]:
        """[N]: the place of the class of each object in the list.

        Raises:
            ConfigError: a class that is not in the list.
        """
        index = {value: i for i, value in enumerate(self.values)}
        if layer.classes is None:
            if self.burn not in index:
                raise ConfigError(f"{self.burn}", field="--burn", allowed=", ".join(map(str, self.values)))
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
    layers: "Sequence[Objects]",
    colors: Mapping[int, Color],
    *,
    ignore: Collection[int] | None = None,
    told: Collection[int] = (),
    burn: int | None = None,
    maps: bool = True,
    present: Present = set,
) -> LabelClasses:
    """The classes of label files and polygons, settled before the first image.

    Args:
        given: value -> name as the user says, before `files`, as the label files say; where nobody says, every value is
            a class.
        files: value -> name as the label files say.
        layers: polygons, each with or without classes.
        colors: of values, as the files say.
        ignore: None: 255 and those that the files have `told`, unless they are classes.
        told: further ignored values that files declare.
        burn: the value of polygons without a class; None: the only one besides the background; where nobody names the
            values, the only one that occurs.
        maps: whether there are label files.
        present: gives the values that occur in them; asked where nobody names them.

    Raises:
        ConfigError: it cannot be told which value the polygons have. DataError: there are several values.
    """
    names = dict(given or files) or _named_by(layers, maps)
    named, plain = bool(names), any(layer.classes is None for layer in layers)
    if not named:
        names = {value: str(value) for value in range(IGNORE)}
        if plain and burn is None:
            burn = sole_value(present(), ignore, "--burn")
        black_and_white = ignore is None and not layers and {IGNORE} <= set(present()) <= {0, IGNORE}
        if burn == IGNORE or black_and_white:  # a class, so that not all values can be some
            names = {value: str(value) for value in sorted({0, IGNORE, *present()})}
    ignored = frozenset({IGNORE, *told} - names.keys() if ignore is None else ignore)
    names = {value: name for value, name in sorted(names.items()) if value not in ignored}
    shown = class_colors(list(names.values()), [colors.get(value) for value in names])
    value = _burnt(names, given or files) if burn is None and plain else burn or 1
    return LabelClasses(tuple(names), tuple(names.values()), tuple(shown), ignored, value, named)


def sole_value(
    present: Collection[int], ignore: Collection[int] | None, flag: str, file: str | Path | None = None
) -> int:
    """The label value of polygons without a class: the only one that occurs in the label files beside 0.

    255 is that value, too, if there is no other one. Files that hold none: the first that is not ignored.

    Args:
        present: values that occur in the label files.
        ignore: values that mean "not labelled"; None: 255, beside others.
        flag: what says the value, for the message.
        file: for messages.

    Raises:
        DataError: several values.
    """
    found = set(present) - {0, *(ignore or ())}
    if ignore is None and len(found) > 1:
        found -= {IGNORE}
    if len(found) > 1:
        listed = ", ".join(map(str, sorted(found)[:12]))
        hint = f"choose one with {flag} {min(found)}"
        raise DataError(f"has the values {listed}, and the polygons have no classes", file=file, hint=hint)
    return found.pop() if found else next(value for value in count(1) if value not in (ignore or ()))


def classes_of(
    maps: Mapping[int, str],
    layers: "Sequence[Objects]",
    only: Sequence[str] = (),
    file: str | Path | None = None,
    *,
    given: bool = False,
    ignore: Collection[int] | None = None,
    present: Present = set,
) -> dict[int, str]:
    """Label value -> name of the classes that polygons and maps have in common.

    Args:
        maps: names of the values in the maps, empty where nobody says.
        layers: the true polygons; their classes are names or values of the maps. Without classes they are all of one:
            the only one of the maps besides the background.
        only: names or values of the classes that count, if not all that the polygons have.
        file: the file, for messages.
        given: the user says what `maps` says, and polygons of other classes do not count.
        ignore: values that mean "not labelled".
        present: gives the values that occur in the maps; asked where nobody names them.

    Raises:
        ConfigError: a class that the maps or the polygons do not have, or that is to be ignored. DataError: it cannot
            be told which class the polygons are of.
    """
    held = {value for layer in layers if layer.classes is not None for value in layer.classes}
    words = [str(value) for value in sorted(held, key=lambda v: (isinstance(v, str), v))]
    if words:
        found = _named_classes(maps, words, only, file, given=given)
    elif len(only) == 1 and (maps or only[0].isdecimal()):
        found = _asked_for(only, maps, file)
    else:
        found = _only_class(maps, only, file, ignore, present)
    left = [value for value in found if value in (ignore or ())]
    if left and (only or len(left) == len(found)):
        hint = "leave it out of --ignore, or of the classes that count"
        raise ConfigError(f"{left[0]}, which is the class {found[left[0]]}", field="--ignore", hint=hint)
    return {value: name for value, name in found.items() if value not in left}


def _named_classes(
    maps: Mapping[int, str], words: Sequence[str], only: Sequence[str], file: str | Path | None, *, given: bool
) -> dict[int, str]:
    """words: the classes of the polygons."""
    if given:
        only = [name for value, name in maps.items() if name in words or str(value) in words]
        if not only:
            raise _none_of(list(maps.values()), words)
    found = _asked_for(only or words, maps, file, advice=_numbered(words), asked=bool(only))
    if not maps and not set(words) & {*found.values(), *map(str, found)}:  # numbers for words
        raise _none_of([str(value) for value in found], words)
    return found


def _asked_for(
    wanted: Sequence[str], maps: Mapping[int, str], file: str | Path | None, *, advice: str = "", asked: bool = True
) -> dict[int, str]:
    values, found = {name: value for value, name in maps.items()}, {}
    for word in wanted:
        if word not in values and not word.isdecimal():
            hint = nearest(word, maps.values()) if maps else f"its values have no names: name them, {advice}"
            if not asked:
                hint += '; choose classes with --classes, an attribute with --field, or none with --field ""'
            raise ConfigError(f'no class "{word}"', file=None if file is None else printable(file), hint=hint)
        value = values[word] if word in values else int(word)
        found[value] = maps.get(value, word)
    return found


def _none_of(wanted: Sequence[str], words: Sequence[str]) -> ConfigError:
    found = f"no polygon is of the class {' or '.join(wanted[:12])}"
    return ConfigError(found, field="--classes", allowed=", ".join(words[:12]), hint=f"give {_numbered(words)}")


def _numbered(words: Sequence[str]) -> str:
    """How the values of label files are named."""
    names = [word for word in words if word != BACKGROUND][:12]
    return "--classes 0=background," + ",".join(f"{i}={name}" for i, name in enumerate(names, start=1))


def _only_class(
    maps: Mapping[int, str],
    only: Sequence[str],
    file: str | Path | None,
    ignore: Collection[int] | None,
    present: Present,
) -> dict[int, str]:
    """Of polygons that have none."""
    if len(only) > 1:
        found = f"{len(only)} classes ({', '.join(only)}) for polygons that have none"
        raise ConfigError(found, field="--classes", hint="choose their attribute with --field")
    if not maps:
        value = sole_value(present(), ignore, "--classes", None if file is None else printable(file))
        return {value: only[0] if only else OBJECT}
    foreground = {value: name for value, name in maps.items() if value != 0 and name != BACKGROUND}
    foreground = {value: name for value, name in foreground.items() if value not in (ignore or ())}
    if len(foreground) != 1:
        shown = ", ".join(maps.values())
        found = f"has the classes {shown}, and the polygons have none"
        raise DataError(found, file=file, hint="choose one with --classes NAME")
    return foreground


def _named_by(layers: "Sequence[Objects]", maps: bool) -> dict[int, str]:
    """What the polygons call their classes, where nothing else does."""
    held = {value for layer in layers if layer.classes is not None for value in layer.classes}
    if all(isinstance(value, int) and 0 <= value <= TOP for value in held):
        if not layers or (maps and not held):
            return {}
        return {0: BACKGROUND} | ({value: str(value) for value in held} or {1: OBJECT})
    if maps:
        words = sorted(map(str, held))
        found = f"label files without class names, and polygons with classes in words: {', '.join(words)}"
        raise ConfigError(found[:200], field="--classes", hint=f"name them: {_numbered(words)}")
    return dict(enumerate([BACKGROUND, *sorted({str(value) for value in held} - {BACKGROUND})]))


def _burnt(names: Mapping[int, str], told: Mapping[int, str]) -> int:
    """The value of polygons without a class."""
    foreground = [value for value, name in names.items() if value != 0 and name != BACKGROUND]
    if len(foreground) == 1:
        return foreground[0]
    if told:
        found = f"polygons without a class, and the classes {', '.join(names.values())}"
        raise ConfigError(
            found[:200], field="--burn", hint="set their value with --burn, or their attribute with --field"
        )
    return 1
