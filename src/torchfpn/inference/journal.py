"""The progress of predictions on disk: blocks of an interrupted one, and which outputs of a folder are finished.

The blocks lie in a folder beside the output. plan.json says of what source, model and settings they are; each block is
a file of its own, written whole or not at all. Both carry a SHA-256: a damaged plan starts the prediction again, a
damaged block is computed again. The folder is removed when the outputs are written.
"""

import contextlib
import hashlib
import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfpn.errors import ConfigError, DataError, amount
from torchfpn.io.atomic import PREFIX, append, make_directory, sweep, write_bytes, write_text

PLAN = "plan.json"
FINISHED = f"{PREFIX}finished.jsonl"
COMPRESSION = 1  # zlib's level: blocks live for minutes


class Journal:
    """The folder of one prediction. Blocks are arrays by name ("labels", "probabilities")."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def beside(cls, output: Path) -> "Journal":
        """The journal that belongs to an output."""
        return cls(output.with_name(f"{PREFIX}{output.name}.blocks"))

    def begin(self, facts: Mapping[str, Any], *, resume: bool, overwrite: bool = False) -> tuple[str, ...]:
        """Starts a prediction, or continues an interrupted one.

        A plan that is damaged cannot say what its blocks are of: the prediction starts again.

        Args:
            facts: plain values of source, model and settings, which all blocks must agree in.
            resume: continue with the blocks that are there.
            overwrite: discard them.

        Returns:
            Remarks about damaged files.

        Raises:
            ConfigError: blocks are there, and neither `resume` nor `overwrite` is set; or `resume` is, and they are of
                another source, model or settings.
        """
        facts = json.loads(json.dumps(facts))
        found, damaged = self._plan()
        if found is not None and not overwrite:
            count = len(list(self.folder.glob("*.block")))
            if not resume:
                what = f"holds {amount(count, 'block')} of an interrupted prediction"
                raise ConfigError(what, file=self.folder, hint="continue with --resume, or start over with --overwrite")
            if found != facts:
                raise _different("holds blocks made with", found, facts, self.folder)
            sweep(self.folder)
            return self._remove_damaged()
        shutil.rmtree(self.folder, ignore_errors=True)
        make_directory(self.folder)
        write_text(self.folder / PLAN, json.dumps({"facts": facts, "sha256": _digest(facts)}))
        remark = f"{self.folder / PLAN}: damaged; the prediction starts again from the first block"
        return (remark,) if damaged and not overwrite else ()

    def has(self, index: int) -> bool:
        """Whether a block is done."""
        return self._file(index).is_file()

    def _remove_damaged(self) -> tuple[str, ...]:
        """Removes damaged blocks; returns a remark about them."""
        damaged = [file for file in sorted(self.folder.glob("*.block")) if not _is_intact(file.read_bytes())]
        for file in damaged:
            file.unlink()
        if not damaged:
            return ()
        verb = "is" if len(damaged) == 1 else "are"
        return (f"{amount(len(damaged), 'damaged block')} of the interrupted prediction {verb} computed again",)

    def put(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Writes a block, whole or not at all."""
        head = {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}
        body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
        packed = zlib.compress(json.dumps(head).encode() + b"\n" + body, COMPRESSION)
        write_bytes(self._file(index), hashlib.sha256(packed).digest() + packed)

    def get(self, index: int) -> dict[str, NDArray[Any]]:
        """Reads a block that is done.

        Raises:
            DataError: its file is damaged.
        """
        data = self._file(index).read_bytes()
        if not _is_intact(data):
            raise DataError(
                "a damaged block", file=self._file(index), hint="continue with --resume, which computes it again"
            )
        head, _, body = zlib.decompress(data[32:]).partition(b"\n")
        arrays, offset = {}, 0
        for name, (dtype, shape) in json.loads(head).items():
            count = int(np.prod(shape))
            arrays[name] = np.frombuffer(body, dtype, count, offset).reshape(shape)
            offset += count * np.dtype(dtype).itemsize
        return arrays

    def close(self) -> None:
        """Removes the folder: the outputs are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _plan(self) -> tuple[Any, bool]:
        """The facts of the plan, or None; and whether blocks are there whose plan is missing or damaged."""
        try:
            plan = json.loads((self.folder / PLAN).read_text())
            if plan["sha256"] == _digest(plan["facts"]):
                return plan["facts"], False
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            pass
        return None, any(self.folder.glob("*.block"))

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:07d}.block"


class Finished:
    """The finished outputs of a folder: a line of JSON for each, with the facts that it was made of.

    The last line about an output counts; a line that a kill cut short does not.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FINISHED

    def begin(self, output: Path) -> None:
        """Notes that an output is about to be replaced: it is no longer finished."""
        self._add({"answer": output.name, "facts": None})

    def end(self, output: Path, facts: Mapping[str, Any]) -> None:
        """Notes that an output is finished. facts: plain values of its source, model and settings, by name."""
        self._add({"answer": output.name, "facts": facts})

    def facts(self) -> dict[str, Any]:
        """The facts of each output by its file name; None: it was begun again and is not finished."""
        found = dict[str, Any]()
        if self.file.is_file():
            for line in self.file.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                    entry = json.loads(line)
                    found[entry["answer"]] = entry["facts"]
        return found

    def _add(self, entry: Mapping[str, Any]) -> None:
        append(self.file, f"\n{json.dumps(entry)}".encode())  # a new line first: the one before may be cut short


def check_same(found: Any, facts: Mapping[str, Any], output: Path) -> None:
    """Refuses a finished output that was made of other facts.

    Raises:
        ConfigError: another source, model or settings.
    """
    facts = json.loads(json.dumps(facts))
    if found != facts:
        raise _different("was made with", found if isinstance(found, dict) else {}, facts, output)


def _different(what: str, found: Mapping[str, Any], facts: Mapping[str, Any], file: Path) -> ConfigError:
    differing = sorted(key for key in found.keys() | facts.keys() if found.get(key) != facts.get(key))
    return ConfigError(
        f"{what} a different {', '.join(differing)}",
        file=file,
        hint="give the former model, source and flags, or start over with --overwrite",
    )


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _is_intact(block: bytes) -> bool:
    return hashlib.sha256(block[32:]).digest() == block[:32]


def fingerprint(path: str | Path) -> str:
    """The SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
