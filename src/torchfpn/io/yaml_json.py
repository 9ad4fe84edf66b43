"""YAML and JSON files: size and depth limited, repeated keys refused; typed fields of a mapping."""

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from torchfpn.errors import ConfigError, DataError, nearest
from torchfpn.io.formats import check_regular

MAX_BYTES = 2**20
MAX_DEPTH = 20  # lists and mappings of a YAML file within each other
_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # no name of a file holds them, and no text in UTF-8
MAX_JSON_BYTES = 2**32
Keys = tuple[str | int, ...]  # from the top of the file to a value


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the C one where it was built
    """The safe loader, which in addition refuses to read a key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A dict, once it is known that no key hides another."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f'the key "{key.value}" twice', key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


def read_yaml(path: str | Path) -> Any:
    """The plain value (dict, list, text, number, bool, None) a YAML file holds.

    Raises:
        ConfigError: missing, over 1 MB, not UTF-8, not YAML, with a tag (`!!python/...`), an alias or a repeated key.
    """
    path = Path(path)
    try:
        check_regular(path)
    except DataError as error:
        raise ConfigError(error.found, file=path, allowed=error.allowed, hint=error.hint) from error
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be opened ({error.strerror or error})", file=path) from error
    if len(data) > MAX_BYTES:
        raise ConfigError("over 1 MB of YAML", file=path, allowed="at most 1 MB")
    try:
        text = data.decode("utf-8-sig")
        _check_events(path, yaml.parse(text, Loader=_Loader))
        return yaml.load(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 (byte {error.start})", file=path) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not plain YAML: {_yaml_problem(error)}", file=path) from error
    except (ValueError, TypeError) as error:  # a date like 2024-99-99, a list as a key
        raise ConfigError(f"not plain YAML: {error}", file=path) from error


def _check_events(path: Path, events: Iterator[Any]) -> None:
    """Aliases make a kilobyte of YAML a gigabyte of objects; deep nesting ends in a crash of the composer."""
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                f"the alias *{event.anchor}", file=path, field=where, allowed="no aliases", hint="write it out"
            )
        if isinstance(event, yaml.ScalarEvent) and (odd := _UNUSABLE.search(event.value)):
            raise ConfigError(f"the character {odd.group()!a}", file=path, field=where, hint="remove it")
        if depth > MAX_DEPTH:
            raise ConfigError("nested too deeply", file=path, field=where, allowed=f"at most {MAX_DEPTH} levels")


def _yaml_problem(error: yaml.YAMLError) -> str:
    """Line and problem, without the quotation of the source that makes the message many lines long."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return f"line {mark.line + 1}: {error.problem}" if mark else str(error.problem)
    return str(error)


class Flaw(NamedTuple):
    """Something wrong in a file: where, and what; `line` is one line for people."""

    keys: Keys
    line: str

    def __str__(self) -> str:
        """``annotations[17].bbox: what is wrong``."""
        return f"{spelt(self.keys)}: {self.line}"


class _Doubled(dict[str, Any]):
    """An object in which a key stood twice."""

    twice: str


def read_json(path: Path) -> tuple[Any, list[Flaw]]:
    """The value that a JSON file holds, and what should not be in it: numbers that are none (NaN), keys that repeat.

    Of a key that repeats, the last value counts.

    Raises:
        DataError: missing, over 4 GiB, not UTF-8, not JSON, cut off, nested too deeply.
    """
    data = _bytes(path)
    odd: list[bool] = []  # one entry for each oddity; where they are is looked up only if there are any

    def constant(name: str) -> float:
        odd.append(True)
        return float(name)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) == len(items):
            return found
        odd.append(True)
        keys = [key for key, _ in items]
        doubled = _Doubled(found)
        doubled.twice = next(key for key in keys if keys.count(key) > 1)
        return doubled

    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=constant, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(_json_problem(error), file=path) from error
    return value, list(_oddities(value)) if odd else []


def _bytes(path: Path) -> bytes:
    check_regular(path)
    try:
        with path.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size  # Python allocates what it is asked to read
            data = handle.read(min(size, MAX_JSON_BYTES) + 1)
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror or error})", file=path) from error
    if not data:
        raise DataError("empty file (0 bytes)", file=path, hint="copy it again")
    if len(data) > MAX_JSON_BYTES:
        raise DataError("over 4 GiB of JSON", file=path, allowed="at most 4 GiB")
    return data


def _json_problem(error: ValueError | RecursionError) -> str:
    """What is wrong with the text, and where."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start})"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not isinstance(error, json.JSONDecodeError):  # a number of 5000 digits
        return f"not JSON: {error}"
    where = f"line {error.lineno}, column {error.colno}"
    cut_off = not error.doc[error.pos :].strip() or error.msg.startswith("Unterminated string")
    return f"not JSON: cut off at {where}" if cut_off else f"not JSON: {error.msg} at {where}"


def _oddities(value: Any) -> Iterator[Flaw]:
    """Where they are, from the top of the file to its end."""
    waiting: list[tuple[Keys, Any]] = [((), value)]
    while waiting:
        keys, one = waiting.pop()
        if isinstance(one, _Doubled):
            yield Flaw(keys, f'the key "{one.twice}" twice')
        if isinstance(one, float) and not math.isfinite(one):
            yield Flaw(keys, f"{one}; JSON has no such number")
        if isinstance(one, dict):
            waiting += [((*keys, key), part) for key, part in reversed(one.items())]
        elif isinstance(one, list):
            below = [i for i, part in enumerate(one) if isinstance(part, list | dict | float)]
            waiting += [((*keys, i), one[i]) for i in reversed(below)]


def spelt(keys: Keys) -> str:
    """``("annotations", 17, "bbox")`` -> ``annotations[17].bbox``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


def shown(value: Any) -> str:
    """A value on one short line; 1.0 keeps its point, since where a whole number belongs the point is what is wrong."""
    text = ascii(value) if not isinstance(value, float) else f"{value:.10g}"
    text += ".0" if isinstance(value, float) and text.lstrip("-").isdigit() else ""
    return text if len(text) <= 60 else text[:57] + "..."


class Fields:
    """One mapping of a YAML file. Takes what is known; `finish` then refuses what nobody took."""

    def __init__(self, value: Any, file: Path, field: str = "") -> None:
        self.file, self.field = file, field
        if not isinstance(value, dict):
            raise ConfigError(_shown(value), file=file, field=field, allowed="a mapping, `name: value` on each line")
        self.values: dict[Any, Any] = value
        self.known: list[str] = []

    def wrong(self, name: str, value: Any, allowed: str, hint: str | None = None) -> ConfigError:
        """The error for a value that cannot be."""
        return ConfigError(_shown(value), file=self.file, field=self.path(name), allowed=allowed, hint=hint)

    def path(self, name: str) -> str:
        """Where a key stands, as in ``splits.train.images``."""
        return f"{self.field}.{name}" if self.field else name

    def raw(self, name: str) -> Any:
        """Whatever stands there; None if nothing does."""
        if name not in self.known:
            self.known.append(name)
        return self.values.get(name)

    def inner(self, name: str) -> "Fields":
        """The mapping that stands there."""
        return Fields(self.raw(name), self.file, self.path(name))

    def text(self, name: str) -> str | None:
        """Text, not empty."""
        value = self.raw(name)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            hint = f'write "{value}" in quotes' if isinstance(value, bool | int | float) else None
            raise self.wrong(name, value, "text", hint)
        return None if value is None else str(value)

    def choice(self, name: str, allowed: Sequence[str]) -> str | None:
        """One of several words."""
        value = self.raw(name)
        if value is not None and value not in allowed:
            raise self.wrong(name, value, "one of " + ", ".join(allowed), nearest(str(value), allowed))
        return None if value is None else str(value)

    def number(self, name: str) -> float | None:
        """A number, NaN allowed."""
        value = self.raw(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise self.wrong(name, value, "a number")
        return None if value is None else float(value)

    def flag(self, name: str) -> bool:
        """True or false; false if nothing stands there."""
        value = self.raw(name)
        if value not in (None, True, False):
            raise self.wrong(name, value, "true or false")
        return bool(value)

    def items(self, name: str) -> list[Any]:
        """A list, empty if nothing stands there."""
        value = self.raw(name)
        if value is not None and not isinstance(value, list):
            raise self.wrong(name, value, "a list")
        return value or []

    def finish(self) -> None:
        """Refuses the keys that nothing asked for."""
        for key in self.values:
            if key not in self.known:
                raise ConfigError(
                    f'unknown key "{key}"', file=self.file, field=self.field or None, hint=nearest(str(key), self.known)
                )


def is_whole(value: Any) -> bool:
    """Whether it is a whole number; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
