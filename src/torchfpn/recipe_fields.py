"""The fields of a recipe as its JSON gives them: types, lengths and ranges, checked once when a model file is read.

What follows, from `fpn info` to the writing of results, trusts a recipe that passed. Each error names the field.
"""

from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any

from torchfpn.errors import WeightsError, amount, nearest

TASKS = ("semantic", "detection", "instance", "features")  # "features": backbone and pyramid without a head
DTYPES = ("", "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32",
          "float64")  # fmt: skip
MASKS = ("detectron2", "torchvision")
LOADED = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # read other files
LARGEST = 3.4028234663852886e38  # of float32, in which images are scaled
SMALLEST = 1.1754943508222875e-38  # above 0, of full precision
LABELS = (-(2**31), 2**32 - 1)  # values that label files hold
SIDE = 20_000  # pixels that an image is resized to at most
DEEPEST, LONGEST, MOST = 8, 2000, 65_536  # levels of nesting, characters of a word, values of a list


def check_fields(data: dict[str, Any], file: str) -> None:
    """Passes the fields of a recipe of this schema from which a `Recipe` can be made.

    Args:
        data: the recipe's JSON as `json.loads` gives it; all fields without a default are there.
        file: the model file, named in errors.

    Raises:
        WeightsError: a value of another type, length or range, with its field.
    """
    for field, value in data.items():
        wrong = next(_not_plain(value, field), None)
        if wrong is not None:
            raise WeightsError(wrong[1], file=file, field=wrong[0], allowed=wrong[2])
    for field, (is_right, allowed) in _rules(data).items():
        if field in data and not is_right(data[field]):
            raise WeightsError(_shown(data[field]), file=file, field=field, allowed=allowed)
    _check_scaling(data["scaling"], len(data["bands"]), file)
    _check_rules(data.get("rules", {}), file)
    _check_model(data["model"], file)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _rules(data: dict[str, Any]) -> dict[str, tuple[Callable[[Any], bool], str]]:
    """Of each field that stands alone: whether a value is right, and what is expected."""
    count = len(data["classes"]) if isinstance(data["classes"], list) else 0
    of_classes = f"one for each of {amount(count, 'class', 'classes')}"
    needed = data["task"] != "features"
    return {
        "task": (lambda x: x in TASKS, " | ".join(TASKS)),
        "model": (lambda x: isinstance(x, dict), "the arguments of the model by name"),
        "classes": (lambda x: _names(x) and (bool(x) or not needed), "a list of names, each once"),
        "bands": (lambda x: _names(x) and bool(x), "a list of names, each once"),
        "file_bands": (
            lambda x: _names(x) and (not x or set(data["bands"]) <= set(x)),
            "a list of names, each once, with all of bands among them, or an empty list",
        ),
        "label_ids": (
            lambda x: _list_of(x, lambda y: _whole(y, *LABELS)) and len(set(x)) == len(x) in (count, 0),
            f"different whole numbers, {of_classes}",
        ),
        "colors": (
            lambda x: _list_of(x, _color) and len(x) in (count, 0),
            f"red, green and blue from 0 to 255, {of_classes}",
        ),
        "ignore_index": (lambda x: _whole(x, *LABELS), "a whole number"),
        "dtype": (lambda x: isinstance(x, str) and x in DTYPES, "a pixel type, such as uint8, or nothing"),
        "nodata": (lambda x: x is None or isinstance(x, float) or _whole(x, -(2**63), 2**64), "a number, or null"),
        "loss": (lambda x: isinstance(x, str), "the terms of the loss as a word"),
        "class_weights": (
            lambda x: x is None or (_list_of(x, _weight) and len(x) == count),
            f"null, or numbers from 0, {of_classes}",
        ),
        "source": (lambda x: isinstance(x, dict), "a table"),
        "rules": (lambda x: isinstance(x, dict), "a table"),
        "inputs": (lambda x: x is None or _is_inputs(x), "null, or a table of low, high and divisors"),
        "measures": (is_measures, "nothing, or a table of parameters, levels, multiple and reach"),
        "scaling": (lambda x: isinstance(x, dict), "a table of offset, scale and method"),
    }


def _check_scaling(scaling: dict[str, Any], bands: int, file: str) -> None:
    """Raises WeightsError of a scaling that no image of that many bands can be brought to the network by."""
    each = f"one for each of {amount(bands, 'band')}"
    for name, least in (("offset", -LARGEST), ("scale", SMALLEST)):
        values = scaling.get(name)
        if not (_list_of(values, lambda x, least=least: is_number(x) and least <= x <= LARGEST)
                and len(values or ()) == bands):  # fmt: skip
            allowed = f"numbers above 0, {each}" if name == "scale" else f"numbers, {each}"
            raise WeightsError(_shown(values), file=file, field=f"scaling.{name}", allowed=allowed)
    if not isinstance(scaling.get("method"), str):
        raise WeightsError(_shown(scaling.get("method")), file=file, field="scaling.method", allowed="a word")


def _check_rules(rules: dict[str, Any], file: str) -> None:
    """Raises WeightsError of a rule that is unknown, or says what cannot be done."""
    known: dict[str, tuple[Callable[[Any], bool], str]] = {
        "resize": (lambda x: x is None or _is_resize(x), f"shorter and longer: pixels from 1 to {SIDE:,}, or null"),
        "masks": (lambda x: x in MASKS, " | ".join(MASKS)),
        "grey_as_color": (lambda x: isinstance(x, bool), "true | false"),
        "tiles": (lambda x: isinstance(x, str), "a path with {z}, {x} and {y}"),
    }
    for name, value in rules.items():
        if name not in known:
            raise WeightsError(
                f'unknown rule "{_cut(name)}"', file=file, field="rules", hint=nearest(_cut(name), known)
            )
        is_right, allowed = known[name]
        if not is_right(value):
            raise WeightsError(_shown(value), file=file, field=f"rules.{name}", allowed=allowed)


def _check_model(model: dict[str, Any], file: str) -> None:
    """Raises WeightsError of arguments that would have other files read, or that are missing."""
    options = model.get("backbone_options")
    for field, table in (("model", model), ("model.backbone_options", options if isinstance(options, dict) else {})):
        if taken := next((name for name in LOADED if name in table), None):
            found = "an argument that has other weights read"
            raise WeightsError(found, file=file, field=f"{field}.{taken}", allowed="the weights of this file alone")
    needed = "name" if "original" in model else "backbone"
    if not isinstance(model.get(needed), str):
        raise WeightsError(_shown(model.get(needed)), file=file, field=f"model.{needed}", allowed="a name")


def _not_plain(value: Any, field: str, depth: int = 0) -> Iterator[tuple[str, str, str]]:
    """(field, found, expected) of each part that is nested too deeply, too long, or no text that can be printed."""
    if depth > DEEPEST:
        yield field, "lists in lists", f"at most {DEEPEST} within each other"
        return
    if isinstance(value, str) and (len(value) > LONGEST or not _is_text(value)):
        yield field, _shown(value), f"text of at most {LONGEST:,} characters"
    if isinstance(value, dict | list) and len(value) > MOST:
        yield field, f"{len(value):,} values", f"at most {MOST:,}"
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else ((None, part) for part in value)
        for key, part in parts:
            inner = field if key is None else f"{field}.{_cut(key)}"
            yield from _not_plain(key, field, depth)
            yield from _not_plain(part, inner, depth + 1)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _names(value: Any) -> bool:
    return _list_of(value, lambda x: isinstance(x, str) and x != "") and len(set(value)) == len(value)


def _list_of(value: Any, is_right: Callable[..., bool]) -> bool:
    return isinstance(value, list) and all(is_right(part) for part in value)


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _color(value: Any) -> bool:
    return _list_of(value, lambda x: _whole(x, 0, 255)) and len(value) == 3


def _weight(value: Any) -> bool:
    return is_number(value) and 0 <= value <= LARGEST


def _is_inputs(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"low", "high", "divisors"} and _divisors(value["divisors"])


def is_measures(value: Any) -> bool:
    """Whether a value can stand as `measures` in a recipe."""
    if not isinstance(value, dict) or value.keys() not in (set(), {"parameters", "levels", "multiple", "reach"}):
        return False
    if not value:
        return True
    counts, levels = value["parameters"], value["levels"]
    return (
        isinstance(counts, dict)
        and all(_whole(x, 0, 2**53) for x in counts.values())
        and isinstance(levels, dict)
        and all(_list_of(x, lambda y: _list_of(y, lambda z: _whole(z, 0, 2**31))) for x in levels.values())
        and all(len(level) == 2 for maps in levels.values() for level in maps)
        and all(value[name] is None or _whole(value[name], 0, 2**31) for name in ("multiple", "reach"))
    )


def _divisors(value: Any) -> bool:
    return isinstance(value, dict) and all(name in DTYPES for name in value)


def _is_resize(value: Any) -> bool:
    if not isinstance(value, dict) or not {"shorter", "longer"} <= value.keys() <= {
        "shorter", "longer", "antialias", "pillow"
    }:  # fmt: skip
        return False
    sides = [value["shorter"], value["longer"]]
    if not all(side is None or _whole(side, 1, SIDE) for side in sides):
        return False
    flags = [value.get("antialias", False), value.get("pillow", False)]
    return all(isinstance(flag, bool) for flag in flags) and not (flags[1] and None in sides)


def _shown(value: Any) -> str:
    """A value of the JSON as an error shows it: as JSON has it, cut where it is long."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
