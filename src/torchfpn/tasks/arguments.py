"""Arguments that come from files and settings, held against what a function says that it takes."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from math import isfinite
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torchfpn.errors import ConfigError

MOST = 2**31  # a whole number above this is no width, size or count
WORDS = {bool: "true | false", int: "a whole number", float: "a number", str: "a word", type(None): "null"}


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any], field: str) -> None:
    """Passes arguments whose values are of the types that a function declares.

    Names that the function does not have are left to the call. Types that files cannot hold are not looked at.

    Args:
        function: a function, or a class that is called; its annotations tell the types.
        given: values by the name of the argument.
        field: named in errors, with the argument behind it: "head_options" -> "head_options.hidden"; "" -> "hidden".

    Raises:
        ConfigError: a value of another type, a number that is not finite, or a whole number beyond 2^31.
    """
    hints = get_type_hints(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
    for name, value in given.items():
        kind = hints.get(name)
        if kind is not None and not _is_of(value, kind):
            shown = repr(value)
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            where = f"{field}.{name}".lstrip(".")
            raise ConfigError(shown, field=where, allowed=" | ".join(dict.fromkeys(_words(kind))))


def _is_of(value: Any, kind: Any) -> bool:
    if kind in SIMPLE:
        return SIMPLE[kind](value)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_of(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is dict or origin is Mapping:
        return isinstance(value, Mapping)
    if origin is Sequence:
        listed = hasattr(value, "__iter__") and not isinstance(value, str | bytes | Mapping)
        return listed and (not inner or not isinstance(value, Sequence | Set) or _each_of(value, inner[0]))
    return True


def _each_of(values: Iterable[Any], kind: Any) -> bool:
    return all(_is_of(value, kind) for value in values)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) < MOST


def _is_real(value: Any) -> bool:
    if isinstance(value, Integral):
        return _is_whole(value)
    return isinstance(value, Real) and isfinite(value)


SIMPLE: dict[Any, Callable[[Any], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: _is_whole,
    float: _is_real,
    str: lambda value: isinstance(value, str),
    type(None): lambda value: value is None,
}


def _words(kind: Any) -> Iterable[str]:
    """What a type is called in an error."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind in WORDS:
        yield WORDS[kind]
    elif origin in (Union, UnionType):
        for one in inner:
            yield from _words(one)
    elif origin is Literal:
        yield from (str(one) for one in inner)
    elif origin is Sequence:
        yield "a list of " + " or ".join({"a whole number": "whole numbers", "a number": "numbers"}.get(word, "lists")
                                         for word in _words(inner[0]))  # fmt: skip
    elif origin is not None:
        yield "a table"
