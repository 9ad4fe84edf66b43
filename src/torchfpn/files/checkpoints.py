"""Tensors from a file, without ever running what the file says: safetensors, or pickles of tensors or arrays alone.

A file that is not what it claims gives one line that says so.
"""

import pickle
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from torchfpn.errors import WeightsError
from torchfpn.files.array_pickles import unpickle_arrays

PICKLES = (".pth", ".pt", ".ckpt", ".bin", ".pkl")
NESTS = ("state_dict", "model_state_dict", "model", "module")  # where training scripts put the weights


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .safetensors or pickled state_dict by name, and the file's metadata. A .pkl holds NumPy arrays.

    Raises:
        WeightsError: missing, empty, truncated, not a weights file, a pickle with more than tensors, or NaN in it.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError("no such file", file=path)
    if path.stat().st_size == 0:
        raise WeightsError("the file is empty", file=path, hint="copy or download it again")
    pickled = path.suffix in PICKLES
    tensors, metadata = (_from_pickle(path), {}) if pickled else _from_safetensors(path)
    check_finite(tensors, file=path)
    return tensors, metadata


def check_finite(tensors: dict[str, Tensor], *, file: str | Path) -> None:
    """Raises WeightsError naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise WeightsError(
                f"{bad} of {tensor.numel()} values are NaN or infinite",
                file=file,
                field=name,
                hint="the training diverged",
            )


def unpickle(path: Path, *, map_location: str = "cpu") -> Any:
    """What torch.save wrote, admitting tensors and plain containers only.

    Raises:
        WeightsError: truncated, another kind of file, or a pickle that would run code (what it asks for is named).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "pickle protocol 4": refused or read all the same
            return torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        if strangers := _strangers(path):
            raise WeightsError(
                f"refused: it would import {', '.join(strangers[:3])}",
                file=path,
                allowed="tensors and plain containers",
                hint="a pickle can run code; ask its author for safetensors",
            ) from error
        raise WeightsError(f"not a checkpoint: {_kind(path)}", file=path, hint="copy or download it again") from error


def _from_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"not a safetensors file: {_kind(path)}", file=path, hint="copy or download it again"
        ) from error


def _from_pickle(path: Path) -> dict[str, Tensor]:
    arrays = path.suffix == ".pkl" and not zipfile.is_zipfile(path)  # detectron2's; what torch.save writes is a zip
    content = unpickle_arrays(path) if arrays else unpickle(path)
    for nest in NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"a {type(content).__name__}", file=path, allowed="a state_dict: names and tensors")
    strangers = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise WeightsError(f"{len(strangers)} entries are no tensors", file=path, field=str(strangers[0]))
    return content


def _strangers(path: Path) -> list[str]:
    """What a pickle would import besides tensors and containers, read off its opcodes without running any of them."""
    names: list[str] = []
    for stream in _streams(path):
        strings: list[str] = []
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if isinstance(argument, str):
                    strings.append(argument)
                if opcode.name == "GLOBAL":
                    names.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
                    names.append(".".join(strings[-2:]))
        except ValueError:  # not a pickle, or cut off: what was read until here counts
            continue
    return [name for name in names if not name.startswith(("torch.", "torch._utils", "collections.OrderedDict"))]


def _streams(path: Path) -> list[bytes]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    return [path.read_bytes()]


def _kind(path: Path) -> str:
    """What the first bytes look like, for the message."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.lstrip()[:1] == b"<":
        return "it is an HTML page"
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return f"a pickle, truncated or damaged after {path.stat().st_size} bytes"
    return f"damaged or another format, {path.stat().st_size} bytes beginning {head[:8]!r}"
