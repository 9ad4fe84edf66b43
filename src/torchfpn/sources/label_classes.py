"""The classes that label files and polygons have in common, from flags, tags of the files, and attributes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchfpn.classes import UNKNOWN, ClassMap
from torchfpn.errors import ConfigError, DataError, nearest
from torchfpn.io.formats import printable
from torchfpn.recipe import IGNORE
from torchfpn.types import Color

if TYPE_CHECKING:
    from torchfpn.vector.objects import Objects


BACKGROUND, OBJECT = "background", "object"  # names of classes that nobody names
MAX_VALUE = 65535  # of a label file
ReadValues = Callable[[], Collection[int]]  # reads label files for the values that occur in them


def classes_of_sources(
    named: Mapping[int, str],
    tags: Mapping[int, str],
    layers: "Sequence[Objects]",
    colors: Mapping[int, Color],
    *,
    ignore: Collection[int] | None = None,
    nodata: Collection[int] = (),
    burn_value: int | None = None,
    has_label_files: bool = True,
    read_values: ReadValues = set,
) -> ClassMap:
    """The classes of label files and polygons, settled before the first image.

    Args:
        named: label value -> name from the user; empty: as `tags` say; if they are empty, too, the classes of the
            polygons, or a class for each label value.
        tags: label value -> name from the tags of the label files.
        layers: polygons, each with or without classes.
        colors: label value -> color from the label files.
        ignore: label values that mean "not labelled"; None: 255 and `nodata`, except those that are classes.
        nodata: values that the label files declare as not labelled.
        burn_value: label value of polygons without a class; None: the only class besides the background; if no value
            has a name, the only one that occurs.
        has_label_files: whether there are label files besides the polygons.
        read_values: called if no value has a name.

    Raises:
        ConfigError: `burn_value` is None and there are several classes, or polygons whose classes are words besides
            label files without names. DataError: `burn_value` is None and several values occur.
    """
    names = dict(named or tags) or _names_from_polygons(layers, has_label_files)
    have_names, unclassed = bool(names), any(layer.classes is None for layer in layers)
    if not have_names:
        names = {value: str(value) for value in range(IGNORE)}
        if unclassed and burn_value is None:
            burn_value = sole_value(read_values(), ignore, "--burn")
        black_and_white = ignore is None and not layers and {IGNORE} <= set(read_values()) <= {0, IGNORE}
        if burn_value == IGNORE or black_and_white:  # 255 is a class, so fewer than all other values can be
            names = {value: str(value) for value in sorted({0, IGNORE, *read_values()})}
    ignored = frozenset({IGNORE, *nodata} - names.keys() if ignore is None else ignore)
    names = {value: name for value, name in sorted(names.items()) if value not in ignored}
    if burn_value is None and unclassed:
        burn_value = _foreground_value(names, named or tags)
    return ClassMap.of(names, colors, ignored=ignored, burn_value=burn_value or 1, named=have_names)


def indices_of_objects(classes: ClassMap, layer: "Objects") -> NDArray[np.int64]:
    """[N]: the class index of each object.

    Raises:
        ConfigError: an object of another class.
    """
    if layer.classes is None:
        if classes.burn_value not in classes.index:
            allowed = ", ".join(map(str, classes.values))
            raise ConfigError(f"{classes.burn_value}", field="--burn", allowed=allowed)
        return np.full(len(layer.shapes), classes.index[classes.burn_value], np.int64)
    indices = classes.indices_of_words(layer.classes)
    if len(unknown := np.flatnonzero(indices == UNKNOWN)):
        name = str(layer.classes[unknown[0]])
        hint = nearest(name, classes.names) + '; another attribute: --field; none: --field ""'
        raise ConfigError(f'no class "{name}"', file=printable(layer.file), hint=hint)
    return indices


def sole_value(
    values: Collection[int], ignore: Collection[int] | None, flag: str, file: str | Path | None = None
) -> int:
    """The label value of polygons without a class: the only one that occurs in the label files beside 0.

    255 is that value, too, if there is no other one. Files that hold none: the first that is not ignored.

    Args:
        values: all that occur in the label files.
        ignore: values that mean "not labelled"; None: 255, beside others.
        flag: the flag that chooses the value, for the error.
        file: named in the error.

    Raises:
        DataError: several values.
    """
    found = set(values) - {0, *(ignore or ())}
    if ignore is None and len(found) > 1:
        found -= {IGNORE}
    if len(found) > 1:
        listed = ", ".join(map(str, sorted(found)[:12]))
        hint = f"choose one with {flag} {min(found)}"
        raise DataError(f"has the values {listed}, and the polygons have no classes", file=file, hint=hint)
    return found.pop() if found else next(value for value in count(1) if value not in (ignore or ()))


def evaluated_classes(
    names: Mapping[int, str],
    layers: "Sequence[Objects]",
    chosen: Sequence[str] = (),
    file: str | Path | None = None,
    *,
    names_choose: bool = False,
    ignore: Collection[int] | None = None,
    read_values: ReadValues = set,
) -> dict[int, str]:
    """Label value -> name of the classes that predicted label files and true polygons have in common.

    Args:
        names: label value -> name, from the user or the tags of the label files; empty: unknown.
        layers: the true polygons; their classes are names or label values. Polygons without classes are all of one:
            the only one in `names` besides the background.
        chosen: names or label values of the classes to evaluate; none: those of the polygons.
        file: the label files, for errors.
        names_choose: `names` are those of the user; polygons of other classes do not count.
        ignore: label values that mean "not labelled".
        read_values: called if no value has a name.

    Raises:
        ConfigError: a class that the label files or the polygons do not have, or that is to be ignored. DataError: the
            polygons have no classes, and there are several.
    """
    occurring = {value for layer in layers if layer.classes is not None for value in layer.classes}
    words = [str(value) for value in sorted(occurring, key=lambda v: (isinstance(v, str), v))]
    if words:
        found = _classes_of_words(names, words, chosen, file, names_choose=names_choose)
    elif len(chosen) == 1 and (names or chosen[0].isdecimal()):
        found = _by_label_value(chosen, names, file)
    else:
        found = _single_class(names, chosen, file, ignore, read_values)
    ignored = [value for value in found if value in (ignore or ())]
    if ignored and (chosen or len(ignored) == len(found)):
        hint = "leave it out of --ignore, or of the classes that count"
        raise ConfigError(f"{ignored[0]}, which is the class {found[ignored[0]]}", field="--ignore", hint=hint)
    return {value: name for value, name in found.items() if value not in ignored}


def _classes_of_words(
    names: Mapping[int, str],
    words: Sequence[str],
    chosen: Sequence[str],
    file: str | Path | None,
    *,
    names_choose: bool,
) -> dict[int, str]:
    """words: the classes of the polygons."""
    if names_choose:
        chosen = [name for value, name in names.items() if name in words or str(value) in words]
        if not chosen:
            raise _no_polygon(list(names.values()), words)
    found = _by_label_value(chosen or words, names, file, advice=_classes_flag(words), is_chosen=bool(chosen))
    if not names and not set(words) & {*found.values(), *map(str, found)}:  # numbers for words
        raise _no_polygon([str(value) for value in found], words)
    return found


def _by_label_value(
    words: Sequence[str],
    names: Mapping[int, str],
    file: str | Path | None,
    *,
    advice: str = "",
    is_chosen: bool = True,
) -> dict[int, str]:
    """Label value -> name of the classes that `words` name, which are names or label values."""
    values, found = {name: value for value, name in names.items()}, {}
    for word in words:
        if word not in values and not word.isdecimal():
            hint = nearest(word, names.values()) if names else f"its values have no names: name them, {advice}"
            if not is_chosen:
                hint += '; choose classes with --classes, an attribute with --field, or none with --field ""'
            raise ConfigError(f'no class "{word}"', file=None if file is None else printable(file), hint=hint)
        value = values[word] if word in values else int(word)
        found[value] = names.get(value, word)
    return found


def _no_polygon(names: Sequence[str], words: Sequence[str]) -> ConfigError:
    found = f"no polygon is of the class {' or '.join(names[:12])}"
    return ConfigError(found, field="--classes", allowed=", ".join(words[:12]), hint=f"give {_classes_flag(words)}")


def _classes_flag(words: Sequence[str]) -> str:
    """The flag that names label values after the classes of polygons."""
    names = [word for word in words if word != BACKGROUND][:12]
    return "--classes 0=background," + ",".join(f"{i}={name}" for i, name in enumerate(names, start=1))


def _single_class(
    names: Mapping[int, str],
    chosen: Sequence[str],
    file: str | Path | None,
    ignore: Collection[int] | None,
    read_values: ReadValues,
) -> dict[int, str]:
    """The class of polygons without classes."""
    if len(chosen) > 1:
        found = f"{len(chosen)} classes ({', '.join(chosen)}) for polygons that have none"
        raise ConfigError(found, field="--classes", hint="choose their attribute with --field")
    if not names:
        value = sole_value(read_values(), ignore, "--classes", None if file is None else printable(file))
        return {value: chosen[0] if chosen else OBJECT}
    foreground = {value: name for value, name in _foreground(names).items() if value not in (ignore or ())}
    if len(foreground) != 1:
        found = f"has the classes {', '.join(names.values())}, and the polygons have none"
        raise DataError(found, file=file, hint="choose one with --classes NAME")
    return foreground


def _names_from_polygons(layers: "Sequence[Objects]", has_label_files: bool) -> dict[int, str]:
    """Label value -> name from the classes of polygons; nothing if there are none and label files have the values."""
    occurring = {value for layer in layers if layer.classes is not None for value in layer.classes}
    if all(isinstance(value, int) and 0 <= value <= MAX_VALUE for value in occurring):
        if not layers or (has_label_files and not occurring):
            return {}
        return {0: BACKGROUND} | ({value: str(value) for value in occurring} or {1: OBJECT})
    if has_label_files:
        words = sorted(map(str, occurring))
        found = f"label files without class names, and polygons with classes in words: {', '.join(words)}"
        raise ConfigError(found[:200], field="--classes", hint=f"name them: {_classes_flag(words)}")
    return dict(enumerate([BACKGROUND, *sorted({str(value) for value in occurring} - {BACKGROUND})]))


def _foreground_value(names: Mapping[int, str], given: Mapping[int, str]) -> int:
    """The label value of polygons without a class. given: those of the names that come from the user or from tags."""
    foreground = list(_foreground(names))
    if len(foreground) == 1:
        return foreground[0]
    if given:
        found = f"polygons without a class, and the classes {', '.join(names.values())}"
        hint = "set their value with --burn, or their attribute with --field"
        raise ConfigError(found[:200], field="--burn", hint=hint)
    return 1


def _foreground(names: Mapping[int, str]) -> dict[int, str]:
    """The classes without the background."""
    return {value: name for value, name in names.items() if value != 0 and name != BACKGROUND}
