"""Checkpoints as torch.save and pickle.dump write them, read without torch.load: nothing in them is called.

zip     since torch 1.6: <root>/data.pkl, and the numbers of each storage in <root>/data/<key>, none of them compressed
legacy  before: a magic number, a version, facts about the machine, the pickle, the storages' keys, then their numbers
plain   pickle.dump's, of arrays

Every size that a file states is compared with the bytes that it has before memory is asked for.
"""

import io
import mmap
import struct
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from torchfpn.errors import WeightsError
from torchfpn.files.array_pickles import DTYPES, Storage, load_stands, plain
from torchfpn.files.model_files import kind_of

MAGIC = 0x1950A86A20F9469CFC6C  # torch's, of the legacy format


def read_archive(path: Path) -> Any:
    """What was saved: plain values, tensors on the CPU, and a `Stand` for each object of another kind.

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
