"""Reading JSON that somebody else wrote: what the standard leaves open or parsers let pass is named by its path."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torchfpn.errors import DataError
from torchfpn.files.formats import check_regular

MAX_BYTES = 2**32
Keys = tuple[str | int, ...]  # from the top of the file to a value


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


def spelt(keys: Keys) -> str:
    """``("annotations", 17, "bbox")`` -> ``annotations[17].bbox``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


def shown(value: Any) -> str:
    """A value on one short line; 1.0 keeps its point, since where a whole number belongs the point is what is wrong."""
    text = ascii(value) if not isinstance(value, float) else f"{value:.10g}"
    text += ".0" if isinstance(value, float) and text.lstrip("-").isdigit() else ""
    return text if len(text) <= 60 else text[:57] + "..."


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
        raise DataError(_said(error), file=path) from error
    return value, list(_oddities(value)) if odd else []


def _bytes(path: Path) -> bytes:
    check_regular(path)
    try:
        with path.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size  # Python allocates what it is asked to read
            data = handle.read(min(size, MAX_BYTES) + 1)
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror or error})", file=path) from error
    if not data:
        raise DataError("empty file (0 bytes)", file=path, hint="copy it again")
    if len(data) > MAX_BYTES:
        raise DataError("over 4 GiB of JSON", file=path, allowed="at most 4 GiB")
    return data


def _said(error: ValueError | RecursionError) -> str:
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
