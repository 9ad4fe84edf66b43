"""Checkpoints that are whole or not there: last, the checkpoint before it, and best.

checkpoints/last.ckpt      the newest state, training goes on from it
checkpoints/previous.ckpt  the one before, for the day last.ckpt turns out damaged
checkpoints/best.ckpt      a hard link to what was last when the score was highest
"""

import hashlib
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from torchfpn.errors import WeightsError
from torchfpn.files.atomic import atomic_path, library_writes, sweep
from torchfpn.files.checkpoints import unpickle

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
STATE = "torchfpn"  # the key of our own state inside a checkpoint
SCHEMA = 1  # of that state
SEAL, END = b"sha256:", 22  # what the digest in a file begins with; bytes of the record that ends a zip file


class AtomicCheckpointIO(CheckpointIO):
    """How Lightning reads and writes checkpoints here: never half, never unpickling more than tensors.

    Lightning's own writes by way of $TMPDIR without fsync and builds the file in memory first.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None  # a checkpoint read before the fit, handed over once

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Streams to a temporary file beside `path`, fsyncs, renames; what was at `path` becomes previous.ckpt.

        Raises:
            WriteError: it could not be written; what was there before is untouched.
        """
        path = Path(path)
        with atomic_path(path) as part:
            with library_writes(path, part, RuntimeError):
                torch.save(checkpoint, part)
            _seal(part)
            if path.name == LAST and path.exists():
                link(path, path.with_name(PREVIOUS))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """The checkpoint handed over, or else the file."""
        loaded, self.loaded = self.loaded, None
        return loaded if loaded is not None else read(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes the file."""
        Path(path).unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """`target` becomes another name of the file `source`, in one step; a copy where there are no hard links."""
    with atomic_path(target) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)


def newest(folder: Path) -> tuple[Path, dict[str, Any], list[str]] | None:
    """(file, content, complaints) of the newest checkpoint in `folder` that can be read; None where none was written.

    Raises:
        WeightsError: there are some, and none can be read.
    """
    sweep(folder)
    complaints: list[str] = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            return path, read(path), complaints
        except WeightsError as error:
            complaints.append(str(error))
    if complaints:
        raise WeightsError("; ".join(complaints), hint="no other checkpoint to resume from")
    return None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint of `fpn train`, tensors on the CPU.

    Raises:
        WeightsError: empty, damaged in any of its bytes, a pickle that would run code, or not one of ours.
    """
    if path.stat().st_size == 0:
        raise WeightsError("the file is empty", file=path)
    _check_seal(path)
    content = unpickle(path)
    if not isinstance(content, dict) or STATE not in content or "state_dict" not in content:
        raise WeightsError("no checkpoint of fpn train", file=path, hint="--resume takes what fpn train wrote")
    return content


def _seal(path: Path) -> None:
    """Writes the digest of a checkpoint into its own end: the comment that a zip file may have, which torch skips.

    torch.load takes changed weights as they are: it does not look at the checksums of the file.
    """
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(-2, os.SEEK_END)  # the length of the comment, 0 so far
        comment = SEAL + digest.encode()
        file.write(len(comment).to_bytes(2, "little") + comment)


def _check_seal(path: Path) -> None:
    """Passes a checkpoint that is as it was written; one of an earlier version by the checksums of its parts.

    Raises:
        WeightsError: it is damaged.
    """
    size, length = path.stat().st_size, len(SEAL) + 64
    with path.open("rb") as file:
        file.seek(max(0, size - length))
        end = file.read()
        file.seek(max(0, size - END))
        plain = file.read().startswith(b"PK\5\6") and end.endswith(b"\0\0")
        if not end.startswith(SEAL):
            intact = plain and _is_intact(path)
        else:
            file.seek(0)
            digest, left = hashlib.sha256(), size - length - 2
            while left > 0 and (part := file.read(min(left, 2**20))):
                digest.update(part)
                left -= len(part)
            digest.update(b"\0\0")  # the length of the comment when there was none
            same = file.read(2) == length.to_bytes(2, "little")
            intact = same and end == SEAL + digest.hexdigest().encode()
    if not intact:
        raise WeightsError("damaged: it is not as it was written", file=path)


def _is_intact(path: Path) -> bool:
    """Whether the checksums of all parts of a zip file hold."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, RuntimeError, zlib.error):
        return False  # zipfile raises NotImplementedError for a damaged compression method or version
