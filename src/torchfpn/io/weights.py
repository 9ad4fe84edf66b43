"""Tensors from a file without running what it says: safetensors, or pickles of tensors and arrays alone."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from torchfpn.errors import WeightsError
from torchfpn.io.atomic import atomic_path
from torchfpn.io.model_files import (
    DIGESTS,
    PICKLES,
    RECIPE,
    SHOWN,
    check_digests,
    check_there,
    digests_of,
    no_safetensors,
)
from torchfpn.io.pickles import Stand, read_archive

NESTS = ("state_dict", "model_state_dict", "model", "module")  # where training scripts put the weights

COPIES = (
    "ema",
    "average",
    "averaged",
    "avg",
    "swa",
    "teacher",
    "momentum",
    "shadow",
    "target",
)  # words in the names of copies of the weights


class Weights(NamedTuple):
    """What a file holds. metadata: of .safetensors. notes: for people, what was left out and where the tensors lay."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .safetensors or pickled state_dict by name, and the file's metadata. A .pkl holds NumPy arrays.

    Raises:
        WeightsError: missing, empty, truncated, not a weights file, a pickle that would run code, or NaN in it.
    """
    found = read_weights(path)
    check_finite(found.tensors, file=path)
    return found.tensors, found.metadata


def read_weights(path: str | Path) -> Weights:
    """As `read_tensors`, with what was left out; values are not looked at.

    Raises:
        WeightsError: missing, empty, truncated, not a weights file, or a pickle that would run code.
    """
    path = Path(path)
    check_there(path)
    if path.suffix in PICKLES:
        return state_dict_of(read_archive(path), file=path)
    return Weights(*_from_safetensors(path))


def _from_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise no_safetensors(path, error) from error
    if RECIPE in metadata and DIGESTS in metadata:
        check_digests(path, metadata)
        del metadata[DIGESTS]
    return tensors, metadata


def state_dict_of(content: Any, *, file: str | Path) -> Weights:
    """The names and tensors in what a training script saved, wherever it put them.

    Looked for under the usual names ("state_dict", "model"), and else under the one name that holds tensors; of copies
    of the weights ("ema") the original is taken. A module that was pickled whole gives its state_dict.

    Raises:
        WeightsError: none, or several that could be meant.
    """
    notes, left = [], []
    while True:
        if isinstance(content, Stand) and content.tensors is not None:
            notes.append(f"the tensors of a pickled {content.spelled}, which was not run")
            content = content.tensors
        if not isinstance(content, Mapping) or not content:
            found = f"a {_word(content)}" if not isinstance(content, Mapping) else "nothing in it"
            raise WeightsError(found, file=file, allowed="a state_dict: names and tensors")
        nest = _nest(content, file)
        if nest is None:
            break
        notes += [f'tensors taken from "{nest}"'] if nest not in NESTS else []
        left += [_entry(name, value) for name, value in content.items() if name != nest]
        content = content[nest]
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    left += [_entry(name, value) for name, value in content.items() if name not in tensors]
    if not tensors:
        raise WeightsError(f"no tensors: {listed(left)}", file=file, allowed="a state_dict: names and tensors")
    notes += [f"left out: {listed(left)}"] if left else []
    return Weights(tensors, {}, tuple(notes))


def _nest(content: Mapping[str, Any], file: str | Path) -> str | None:
    """The name under which the weights lie; None where they are not nested.

    Raises:
        WeightsError: several names could be meant.
    """
    for name in NESTS:
        if _holds_tensors(content.get(name)):
            return name
    if any(isinstance(value, Tensor) for value in content.values()):
        return None
    found = originals([str(name) for name, value in content.items() if _holds_tensors(value)])
    if len(found) > 1:
        raise WeightsError(
            f"several sets of weights: {listed(found)}",
            file=file,
            allowed="one state_dict",
            hint="save the one you mean alone",
        )
    return found[0] if found else next((name for name in NESTS if isinstance(content.get(name), Mapping)), None)


def _holds_tensors(value: Any) -> bool:
    """Whether this is a state_dict, or holds one under a usual name."""
    if isinstance(value, Stand):
        return value.tensors is not None
    if not isinstance(value, Mapping):
        return False
    direct = any(isinstance(name, str) and isinstance(each, Tensor) for name, each in value.items())
    return direct or any(_holds_tensors(value.get(name)) for name in NESTS)


def originals(found: list[str]) -> list[str]:
    """Of names of several sets of weights, those that do not say that they are a copy; all, where every one does."""
    return [name for name in found if not _is_copy(name)] or found


def _is_copy(name: str) -> bool:
    words = name.lower().replace(".", "_").split("_")
    return any(word in COPIES for word in words)


def _entry(name: Any, value: Any) -> str:
    return f"{name} ({value.spelled})" if isinstance(value, Stand) else str(name)


def _word(value: Any) -> str:
    return str(value.spelled) if isinstance(value, Stand) else type(value).__name__


def unpickle(path: Path) -> Any:
    """What torch.save wrote, admitting tensors and plain containers only.

    Raises:
        WeightsError: truncated, another kind of file, or a pickle of anything else (what it asks for is named).
    """
    content = read_archive(path)
    if strangers := sorted(set(_strangers(content, set()))):
        raise WeightsError(
            f"refused: it would import {', '.join(strangers[:3])}",
            file=path,
            allowed="tensors and plain containers",
            hint="a pickle can run code; ask its author for safetensors",
        )
    return content


def _strangers(value: Any, seen: set[int]) -> Iterator[str]:
    """What is neither a tensor nor plain, by the names that the pickle uses."""
    if isinstance(value, Mapping | list | tuple):
        if id(value) in seen:
            return
        seen.add(id(value))
        for each in (*value.keys(), *value.values()) if isinstance(value, Mapping) else value:
            yield from _strangers(each, seen)
    elif spelled := getattr(value, "spelled", None):
        yield spelled


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


def write_tensors(path: Path, tensors: dict[str, Tensor], recipe: str) -> None:
    """Writes a model file, whole or not at all: .safetensors with the recipe and a digest of every part as metadata.

    Equal content makes equal bytes.
    """
    data = memoryview(save(tensors))
    start = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(bytes(data[8:start]))
    # safetensors itself writes several keys of metadata in an order that changes from run to run
    metadata = {RECIPE: recipe, DIGESTS: json.dumps(digests_of(recipe, entries, data[start:]), sort_keys=True)}
    head = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # the tensors begin at a multiple of 8
    with atomic_path(path) as part, part.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.write(data[start:])


def prefixes(names: Mapping[str, Any], min_count: int) -> Iterator[tuple[str, int]]:
    """("", all), then each beginning up to a dot that `min_count` names or more share, shortest first, with counts."""
    counts: dict[str, int] = {"": len(names)}
    for name in names:
        parts = name.split(".")
        for end in range(1, len(parts)):
            beginning = ".".join(parts[:end]) + "."
            counts[beginning] = counts.get(beginning, 0) + 1
    yield from sorted(((p, n) for p, n in counts.items() if n >= min_count), key=lambda found: found[0].count("."))


def listed(names: list[str]) -> str:
    """The first few."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
