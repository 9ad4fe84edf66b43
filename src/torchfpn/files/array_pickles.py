"""NumPy arrays out of a pickle, without NumPy's or anybody else's code being called by it.

detectron2 publishes its models so: a pickle of {"model": {name: array}, "__author__": ...}. A pickle names what it
wants called; here the few names that arrays need lead to stand-ins that write down what they are given, and every other
name is refused. Afterwards the arrays are read off the stand-ins.
"""

import collections
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfpn.errors import WeightsError

KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")  # of numbers, as NumPy writes them
PLAIN = (str, bytes, bool, int, float, type(None))


def unpickle_arrays(path: Path) -> Any:
    """What pickle.dump wrote: dictionaries, lists, tuples, text, numbers, and arrays, which become tensors.

    Raises:
        WeightsError: damaged, or a pickle that asks for anything else (which is named).
    """
    try:
        with path.open("rb") as file:
            return _plain(_Reader(file, path).load(), {})
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle fails in any way that its next byte can mean
        found = f"not a pickle of arrays, or damaged after {path.stat().st_size} bytes"
        raise WeightsError(found, file=path, hint="copy or download it again") from error


class _Stand:
    """Something that a pickle may name: made with whatever it is given, filled once, and no more."""

    def __init__(self, *given: Any) -> None:
        self.given, self.state = given, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype(_Stand):
    """numpy.dtype("f4", False, True), with the byte order in its state."""

    def plain(self) -> np.dtype[Any]:
        """The dtype, where it is one of numbers."""
        kind = _text(self.given[0]).lstrip("<>=|")
        if kind not in KINDS:
            raise ValueError(kind)
        order = "<" if self.state is None else _text(self.state[1])
        return np.dtype({">": ">"}.get(order, "<") + kind)


class _Array(_Stand):
    """numpy's _reconstruct(ndarray, (0,), b"b"), with version, shape, dtype, order and bytes in its state."""

    def plain(self) -> Tensor:
        """The tensor."""
        assert self.state is not None
        _, shape, dtype, fortran, content = self.state
        return _tensor(content, dtype, shape, "F" if fortran else "C")


class _Buffer(_Stand):
    """numpy's _frombuffer(bytes, dtype, shape, order), of pickles of protocol 5."""

    def plain(self) -> Tensor:
        """The tensor."""
        return _tensor(*self.given)


class _Bytes(_Stand):
    """codecs.encode(text, "latin1") and bytes(), as old protocols write bytes."""

    def plain(self) -> bytes:
        """The bytes."""
        return _text(self.given[0]).encode("latin1") if self.given else b""


class _Class(_Stand):
    """numpy.ndarray itself, which is only mentioned."""


NAMES: dict[str, type] = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Class,
    "_codecs.encode": _Bytes,
    "__builtin__.bytes": _Bytes,
    "collections.OrderedDict": collections.OrderedDict,
    **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _Buffer for core in ("core", "_core")},
}


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")  # of strings that Python 2 wrote
        self.path = path

    def find_class(self, module: str, name: str) -> type:
        """The stand-in of a name."""
        if (found := NAMES.get(f"{module}.{name}")) is not None:
            return found
        raise WeightsError(
            f"refused: it would import {module}.{name}",
            file=self.path,
            allowed="arrays and plain containers",
            hint="a pickle can run code; ask its author for safetensors",
        )


def _tensor(content: Any, dtype: Any, shape: Any, order: Any) -> Tensor:
    content = content.plain() if isinstance(content, _Bytes) else content
    raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
    kind, sides = dtype.plain(), tuple(int(side) for side in shape)
    if min(sides, default=0) < 0 or math.prod(sides) * kind.itemsize != len(raw):
        raise ValueError(sides)
    array = np.frombuffer(raw, kind).reshape(sides, order="F" if order == "F" else "C")
    return torch.from_numpy(array.astype(kind.newbyteorder("="), order="C"))  # a copy, which may be written to


def _plain(value: Any, known: dict[int, Any]) -> Any:
    """The value with tensors for the stand-ins. known: by identity, since a pickle may hold one value many times."""
    if isinstance(value, PLAIN):
        return value
    if id(value) not in known:
        if isinstance(value, dict):
            known[id(value)] = {_key(key): _plain(each, known) for key, each in value.items()}
        elif isinstance(value, list | tuple):
            known[id(value)] = type(value)(_plain(each, known) for each in value)
        elif isinstance(value, _Array | _Buffer | _Bytes):
            known[id(value)] = value.plain()
        else:
            raise ValueError(type(value).__name__)
    return known[id(value)]


def _key(key: Any) -> Any:
    return key.plain() if isinstance(key, _Bytes) else key


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)
