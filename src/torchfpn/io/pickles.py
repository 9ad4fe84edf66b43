"""Checkpoints of torch.save and pickle.dump, read without torch.load: nothing that they name is called."""

import collections
import io
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfpn.errors import WeightsError
from torchfpn.io.formats import kind_of

KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")  # of numbers, as NumPy writes them
PLAIN = (str, bytes, bool, int, float, complex, type(None))

DTYPES = {  # torch's storage classes, without "Storage"
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}

EXPANDED = 2**20  # so many values may a view of fewer have: torch.expand is kept by torch.save

# Modules and names that no checkpoint needs and attacks use.
RUNS = (
    *("os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "importlib", "runpy", "pty", "ctypes", "code"),
    *(
        "pickle",
        "_pickle",
        "marshal",
        "io",
        "_io",
        "commands",
        "webbrowser",
        "multiprocessing",
        "operator",
        "_operator",
    ),
    *("pip", "urllib", "http", "asyncio", "signal", "tempfile", "timeit", "pdb", "bdb", "cProfile", "profile"),
)

RUNS_BY_NAME = (
    *(
        "numpy.load",
        "numpy.frombuffer",
        "numpy.fromfile",
        "numpy.memmap",
        "numpy.loads",
        "torch.load",
        "torch.jit.load",
    ),
    *("torch.storage._load_from_bytes", "torch.hub.load", "torch.hub.load_state_dict_from_url"),
)

TYPES = ("bytearray", "range", "slice", "object", "type", "list", "tuple", "dict")
MODULE = {"_parameters", "_buffers", "_modules"}  # of the state of every torch module
BUILTINS = ("builtins", "__builtin__")
MAGIC = 0x1950A86A20F9469CFC6C  # torch's, of the legacy format


def read_archive(path: Path) -> Any:
    """What was saved: plain values, tensors on the CPU, and a `Stand` for each object of another kind.

    Three formats are read. zip, since torch 1.6: <root>/data.pkl, and the numbers of each storage, not compressed, in
    <root>/data/<key>. legacy, before: a magic number, a version, facts about the machine, the pickle, the keys of the
    storages, then their numbers. plain: pickle.dump's, of arrays. Every size that a file states is compared with the
    bytes that it has before memory is asked for.

    Raises:
        WeightsError: empty, missing, damaged, another kind of file, or a pickle that would run code.
    """
    try:
        if not path.stat().st_size:
            raise WeightsError("the file is empty", file=path, hint="copy or download it again")
        return _zipped(path) if zipfile.is_zipfile(path) else _streamed(path)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file fails in any way that its next byte can mean
        raise WeightsError(f"not a checkpoint: {kind_of(path)}", file=path, hint="copy or download it again") from error


def _zipped(path: Path) -> Any:
    archive = zipfile.ZipFile(path)
    entries = {info.filename: info for info in archive.infolist()}
    if sum(info.file_size for info in entries.values()) > path.stat().st_size:
        raise ValueError("its records state more bytes than the file has")
    name = next(name for name in entries if name.rpartition("/")[2] == "data.pkl")
    root = name.removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise WeightsError(
            "a TorchScript program", file=path, allowed="a state_dict", hint="save torch.jit.load(...).state_dict()"
        )
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise WeightsError("written by a big-endian machine", file=path, hint="ask its author for safetensors")

    def record(name: str) -> bytearray:
        info = entries[name]
        content = bytearray(info.file_size)  # at most the file's own size, see above
        with archive.open(info) as file:
            if file.readinto(content) != len(content) or file.read(1):  # type: ignore[attr-defined]
                raise ValueError(f"record {name}")
        return content

    known: dict[str, Storage] = {}

    def storage(pid: Any) -> Storage:
        _, kind, key, _, numel = pid
        dtype, inside = _dtype(kind), f"{root}data/{key}"
        if numel * dtype.itemsize != entries[inside].file_size:
            raise ValueError(f"record {inside}")
        return known.setdefault(key, Storage(dtype, lambda: record(inside)))

    with archive:
        return plain(load_stands(io.BytesIO(record(name)), path, storage))


def _streamed(path: Path) -> Any:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        first = load_stands(stream, path)
        return plain(first) if first != MAGIC else _legacy(stream, path)


def _legacy(stream: Any, path: Path) -> Any:
    load_stands(stream, path)  # the protocol
    machine = load_stands(stream, path)
    if not machine.get("little_endian", True):
        raise WeightsError("written by a big-endian machine", file=path, hint="ask its author for safetensors")
    known: dict[str, Storage] = {}
    sizes: dict[str, int] = {}

    def storage(pid: Any) -> Any:
        if pid[0] == "module":  # a whole module was pickled, with the text of its class
            return pid[1]
        _, kind, key, _, numel, *view = pid
        if view and view[0] is not None:
            raise ValueError("a view of a storage")
        sizes[key] = numel * _dtype(kind).itemsize
        return known.setdefault(key, Storage(_dtype(kind), bytearray))

    content = load_stands(stream, path, storage)
    for key in load_stands(stream, path):
        (numel,) = struct.unpack("<q", stream.read(8))
        size = numel * known[key].dtype.itemsize
        if size != sizes[key] or size > len(stream) - stream.tell():
            raise ValueError(key)
        known[key].read = partial(bytearray, stream.read(size))
    return plain(content)


def _dtype(kind: Any) -> Any:
    return DTYPES[kind.spelled.rpartition(".")[2].removesuffix("Storage")]


class Stand:
    """Stands for a class or function that a pickle names: it records its arguments and state, and does nothing.

    Afterwards tensors are made from the stand-ins of arrays and tensors; every other stand-in is only a note that the
    pickle holds, say, an argparse.Namespace. Names that only an attack asks for (os.system, eval) are refused, although
    they would not be called either.
    """

    spelled = ""  # "argparse.Namespace"
    given: tuple[Any, ...] = ()
    state: Any = None
    tensors: dict[str, Any] | None = None  # of a module that was pickled whole: its state_dict

    def __init__(self, *given: Any, **_named: Any) -> None:
        self.given = given

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Of subclasses of dict, whose items are not read."""

    def append(self, value: Any) -> None:
        """Of subclasses of list, and of sets."""

    def extend(self, values: Any) -> None:
        """Of subclasses of list."""

    add = append


class Storage:
    """Numbers in a row, which several tensors may look at. read: gives their bytes."""

    def __init__(self, dtype: torch.dtype, read: Callable[[], bytearray]) -> None:
        self.dtype, self.read = dtype, read
        self.whole: Tensor | None = None

    def values(self, dtype: torch.dtype | None) -> Tensor:
        """All of them, as `dtype` or their own; read once."""
        if self.whole is None:
            content = self.read()
            self.whole = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
        return self.whole.view(dtype or self.dtype)


class _Dtype(Stand):
    """numpy.dtype("f4", False, True), with the byte order in its state."""

    def plain(self) -> np.dtype[Any] | None:
        """The dtype, where it is one of numbers."""
        kind = _text(self.given[0]).lstrip("<>=|")
        order = "<" if self.state is None else _text(self.state[1])
        return np.dtype({">": ">"}.get(order, "<") + kind) if kind in KINDS else None


class _Array(Stand):
    """numpy's _reconstruct(ndarray, (0,), b"b"), with version, shape, dtype, order and bytes in its state."""

    spelled = "numpy.ndarray"

    def plain(self) -> Any:
        """The tensor."""
        _, shape, dtype, fortran, content = self.state
        return _tensor(self, content, dtype, shape, "F" if fortran else "C")


class _Buffer(Stand):
    """numpy's _frombuffer(bytes, dtype, shape, order), of pickles of protocol 5."""

    spelled = "numpy.ndarray"

    def plain(self) -> Any:
        """The tensor."""
        return _tensor(self, *self.given)


class _Scalar(Stand):
    """numpy's scalar(dtype, bytes): a number with a type of its own."""

    spelled = "numpy.generic"

    def plain(self) -> Any:
        """The number."""
        made = _tensor(self, self.given[1], self.given[0], (), "C")
        return made.item() if isinstance(made, Tensor) else self


class _Bytes(Stand):
    """codecs.encode(text, "latin1") and bytes(), as old protocols write bytes."""

    def plain(self) -> bytes:
        """The bytes."""
        return _text(self.given[0]).encode("latin1") if self.given else b""


class _Tensor(Stand):
    """torch's _rebuild_tensor(storage, offset, size, stride, ...), and its second and third version."""

    spelled = "torch.Tensor"

    def plain(self) -> Any:
        """A view of the storage; see `EXPANDED` for how much larger than that it may be."""
        storage, offset, size, stride, *more = self.given
        told = more[2] if len(more) > 2 else None  # the third version's dtype, the second's {"conj": True}
        if isinstance(told, dict) and told:
            raise ValueError(told)
        values = storage.values(getattr(torch, told.spelled.removeprefix("torch.")) if told else None)
        sides, steps = tuple(map(int, size)), tuple(map(int, stride))
        count = math.prod(sides)
        last = offset + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
        if min((*sides, *steps, offset), default=0) < 0 or (count and last >= len(values)):
            raise ValueError(sides)
        if count > max(len(values), EXPANDED):
            raise ValueError(f"{list(sides)} of {len(values)} values")
        return values.as_strided(sides, steps, offset) if count else values.new_empty(sides)


class _Wrapped(Stand):
    """torch's _rebuild_parameter(tensor, ...)."""

    spelled = "torch.nn.Parameter"

    def plain(self) -> Any:
        """The tensor."""
        return _value(self.given[0])


class _Subclass(Stand):
    """torch's _rebuild_from_type_v2(function, type, arguments, state): a tensor of a class of its own."""

    def plain(self) -> Any:
        """The tensor."""
        return _value(self.given[0](*self.given[2]))


class _Size(Stand):
    """torch.Size((1, 2))."""

    def plain(self) -> Any:
        """The numbers."""
        return tuple(self.given[0]) if self.given else ()


class _Dict(dict[Any, Any]):
    """collections.Counter, and dictionaries with a default, which is left out."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*(each for each in given if isinstance(each, dict)))


NAMES: dict[str, type] = {
    "numpy.dtype": _Dtype,
    "_codecs.encode": _Bytes,
    "__builtin__.bytes": _Bytes,
    "builtins.bytes": _Bytes,
    "collections.OrderedDict": collections.OrderedDict,
    "collections.Counter": _Dict,
    "collections.defaultdict": _Dict,
    **{f"{module}.{kind.__name__}": kind for module in BUILTINS for kind in (set, frozenset)},
    "torch.Size": _Size,
    "torch._tensor._rebuild_from_type_v2": _Subclass,
    **{f"torch._utils._rebuild_parameter{end}": _Wrapped for end in ("", "_with_state")},
    **{f"torch._utils._rebuild_tensor{version}": _Tensor for version in ("", "_v2", "_v3")},
    **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _Buffer for core in ("core", "_core")},
}


def load_stands(stream: Any, path: Path, storage: Callable[[tuple[Any, ...]], Any] | None = None) -> Any:
    """The next pickle of `stream`, with stand-ins. storage: gives what a persistent id stands for.

    Raises:
        WeightsError: it asks for what would run code.
        Exception: of any kind, where it is damaged.
    """
    begin = stream.tell()
    _check_places(stream)
    stream.seek(begin)
    return _Reader(stream, path, storage).load()


def _check_places(stream: Any) -> None:
    """Reads the pickle's commands once, so that none asks for more memory than the pickle is long."""
    for opcode, argument, place in pickletools.genops(stream):
        is_put = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")  # the reader makes a table of that many
        if is_put and int(argument or 0) > (place or 0):
            raise ValueError(argument)


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, path: Path, storage: Callable[[tuple[Any, ...]], Any] | None) -> None:
        super().__init__(file, encoding="latin1")  # of strings that Python 2 wrote
        self.path, self.storage = path, storage
        self.stands: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> type:
        """The stand-in of a name."""
        spelled = f"{module}.{name}"
        if (found := NAMES.get(spelled)) is not None:
            return found
        if _runs_code(module, name):
            raise WeightsError(
                f"refused: it would import {spelled}",
                file=self.path,
                allowed="tensors, arrays and plain containers",
                hint="a pickle can run code; ask its author for safetensors",
            )
        return self.stands.setdefault(spelled, type("Foreign", (Stand,), {"spelled": spelled}))

    def persistent_load(self, pid: Any) -> Any:
        """A storage."""
        if self.storage is None:
            raise ValueError(pid)
        return self.storage(pid)


def _runs_code(module: str, name: str) -> bool:
    if module in BUILTINS:
        return name not in TYPES
    return module.partition(".")[0] in RUNS or f"{module}.{name}" in RUNS_BY_NAME


def _tensor(stand: Stand, content: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """The tensor; the stand-in itself where its values are not numbers."""
    kind = dtype.plain()
    if kind is None:
        return stand
    content = content.plain() if isinstance(content, _Bytes) else content
    raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
    sides = tuple(int(side) for side in shape)
    if min(sides, default=0) < 0 or math.prod(sides) * kind.itemsize != len(raw):
        raise ValueError(sides)
    array = np.frombuffer(raw, kind).reshape(sides, order="F" if order == "F" else "C")
    return torch.from_numpy(array.astype(kind.newbyteorder("="), order="C"))  # a copy, which may be written to


def plain(value: Any) -> Any:
    """The value with tensors and numbers for the stand-ins that mean them."""
    return _plain(value, {})


def _plain(value: Any, known: dict[int, Any]) -> Any:
    """known: by identity, since a pickle may hold one value many times."""
    if isinstance(value, PLAIN):
        return value
    if id(value) not in known:
        if isinstance(value, dict):
            known[id(value)] = {_key(key): _plain(each, known) for key, each in value.items()}
        elif isinstance(value, list | tuple):
            known[id(value)] = type(value)(_plain(each, known) for each in value)
        else:
            known[id(value)] = _value(value)
    return known[id(value)]


def _value(value: Any) -> Any:
    """What a stand-in means; itself where that is unknown."""
    if isinstance(value, Stand) and isinstance(value.state, dict) and value.state.keys() >= MODULE:
        value.tensors = dict(_module_tensors(value, "", set()))
    if isinstance(value, _Dtype) or not hasattr(value, "plain") or isinstance(value, type):
        return value
    return value.plain()


def _module_tensors(module: Any, prefix: str, above: set[int]) -> Iterator[tuple[str, Any]]:
    """(name, tensor) of a pickled torch module, as its state_dict has them. above: modules that hold this one."""
    state = getattr(module, "state", None)
    if not isinstance(state, dict) or not state.keys() >= MODULE or id(module) in above:
        return
    passing = set(state.get("_non_persistent_buffers_set") or ())
    for name, tensor in {**state["_parameters"], **state["_buffers"]}.items():
        if tensor is not None and name not in passing:
            yield f"{prefix}{name}", _value(tensor)
    for name, child in state["_modules"].items():
        yield from _module_tensors(child, f"{prefix}{name}.", above | {id(module)})


def _key(key: Any) -> Any:
    return key.plain() if isinstance(key, _Bytes | _Scalar) else key


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)
