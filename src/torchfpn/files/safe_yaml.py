"""Reading YAML that somebody else wrote: plain values only, no tags, no aliases, bounded size and depth."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from torchfpn.errors import ConfigError, DataError
from torchfpn.files.formats import check_regular

MAX_BYTES = 2**20
MAX_DEPTH = 20
_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # no name of a file holds them, and no text in UTF-8


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
        raise ConfigError(f"not plain YAML: {_said(error)}", file=path) from error
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


def _said(error: yaml.YAMLError) -> str:
    """Line and problem, without the quotation of the source that makes the message many lines long."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return f"line {mark.line + 1}: {error.problem}" if mark else str(error.problem)
    return str(error)
