"""Model files read without torch: safetensors with a recipe and a SHA-256 of each part in their metadata.

`fpn info`, and whatever refuses a file that is none of ours, needs the recipe alone. The tensors are then bytes.
"""

import hashlib
import json
import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from torchfpn.errors import WeightsError
from torchfpn.io.formats import first_bytes, kind_of
from torchfpn.recipe import Recipe

PICKLES = (".pth", ".pt", ".ckpt", ".bin", ".pkl")

RECIPE, DIGESTS = "torchfpn", "sha256"  # keys in the metadata of a model file

METADATA = {RECIPE, DIGESTS, "format"}  # "format" is what other tools add, and older versions did

SHOWN = 6  # names that an error lists

_OF_SYSTEM = re.compile(r"\((?:os error )?(\d+)\)$")  # at the end of what libraries say of the system's errors

DTYPES = {  # of safetensors -> of torch, as digests spell them
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


def read_recipe(path: str | Path, *, whole: bool = False) -> tuple[Recipe, bool]:
    """The recipe of a model file, and whether the file is proven to be as it was written.

    Args:
        path: of the file.
        whole: also hold the tensors against their digests, which reads all of the file. A file without digests, such
            as one of torchfpn 0.1.0, proves nothing.

    Raises:
        WeightsError: missing, empty, another kind of file, no recipe in it, a recipe that cannot be; with `whole`, a
            damaged file (the damaged tensors are named).
    """
    path = Path(path)
    check_there(path)
    if path.suffix in PICKLES:
        raise no_recipe(path)
    metadata = _read_metadata(path)
    has_digests = RECIPE in metadata and DIGESTS in metadata
    if whole and has_digests:
        check_digests(path, metadata)
    return recipe_of(metadata, path), whole and has_digests


def check_weights(path: Path) -> None:
    """Passes a file that may hold weights: a safetensors file, or one that begins as a pickle or a zip archive may.

    Raises:
        WeightsError: missing, empty, or another kind of file.
    """
    check_there(path)
    if path.suffix not in PICKLES:
        _read_metadata(path)
    elif first_bytes(path).lstrip()[:1] == b"<":  # no pickle begins so
        raise WeightsError(f"not a checkpoint: {kind_of(path)}", file=path, hint="copy or download it again")


def check_there(path: Path) -> None:
    """Passes a file that has any content.

    Raises:
        WeightsError: missing or empty.
    """
    if not path.is_file():
        raise WeightsError("a folder, not a file" if path.is_dir() else "no such file", file=path)
    if path.stat().st_size == 0:
        raise WeightsError("the file is empty", file=path, hint="copy or download it again")


def recipe_of(metadata: Mapping[str, str], path: str | Path) -> Recipe:
    """The recipe in the metadata of a file.

    Raises:
        WeightsError: none, one that cannot be, or metadata that is not ours.
    """
    if RECIPE not in metadata:
        raise no_recipe(path)
    if extra := sorted(metadata.keys() - METADATA):
        raise WeightsError(f'metadata "{extra[0]}"', file=path, allowed=" | ".join(sorted(METADATA)))
    return Recipe.from_json(metadata[RECIPE], file=str(path))


def no_recipe(path: str | Path) -> WeightsError:
    """Of a file of weights without metadata."""
    return WeightsError(
        "no recipe in the file", file=path, allowed="a file written by task.save, fpn train or fpn convert"
    )


def no_safetensors(path: Path, error: Exception) -> WeightsError:
    """Of a file of another kind, or one that the system does not open. error: what the library says."""
    if told := _OF_SYSTEM.search(str(error)):
        return WeightsError(f"cannot be opened ({os.strerror(int(told[1]))})", file=path)
    return WeightsError(f"not a safetensors file: {kind_of(path)}", file=path, hint="copy or download it again")


def _read_metadata(path: Path) -> dict[str, str]:
    """Of a safetensors file."""
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise no_safetensors(path, error) from error


def digests_of(recipe: str, head: Mapping[str, Any], data: memoryview) -> dict[str, str]:
    """SHA-256 of the type, shape and values of each tensor by its name, and of the recipe by "".

    Args:
        recipe: its JSON.
        head: the header of a safetensors file.
        data: the bytes behind the header.
    """
    digests = {"": hashlib.sha256(recipe.encode()).hexdigest()}
    for name, entry in head.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = DTYPES.get(entry["dtype"], entry["dtype"])
            digest = hashlib.sha256(f"torch.{dtype} {list(entry['shape'])} ".encode())
            digest.update(data[begin:end])
            digests[name] = digest.hexdigest()
    return digests


def check_digests(path: Path, metadata: Mapping[str, str]) -> None:
    """Passes a model file whose parts are as they were written.

    Args:
        path: of a file that safetensors itself can read.
        metadata: of that file, with a recipe and digests.

    Raises:
        WeightsError: they are not; the damaged parts are named.
    """
    try:
        told = dict(json.loads(metadata[DIGESTS]))
    except (ValueError, TypeError):
        raise WeightsError("the list of digests is damaged", file=path, hint="copy or download it again") from None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = 8 + int.from_bytes(content[:8], "little")
        with memoryview(content) as view, view[start:] as data:
            found = digests_of(metadata[RECIPE], json.loads(content[8:start]), data)
    damaged = sorted(name for name in told.keys() | found.keys() if told.get(name) != found.get(name))
    if damaged:
        names = [name or "the recipe" for name in damaged]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise WeightsError(
            f"damaged, not as it was written: {', '.join(names[:SHOWN])}{more}",
            file=path,
            hint="copy or download it again",
        )
