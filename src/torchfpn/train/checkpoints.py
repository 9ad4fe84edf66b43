"""Checkpoints that are whole or not there: last, the one before it, and best.

checkpoints/last.ckpt      the newest state, training goes on from it
checkpoints/previous.ckpt  the one before, for the day last.ckpt turns out damaged
checkpoints/best.ckpt      a hard link to what was last when the score was highest
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from torchfpn.errors import WeightsError
from torchfpn.files.atomic import atomic_path, sweep
from torchfpn.files.checkpoints import unpickle

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
STATE = "torchfpn"  # the key of our own state inside a checkpoint
SCHEMA = 1  # of that state
WRITE_ERRORS = ("PytorchStreamWriter", "unexpected pos", "file write failed")  # torch's words for a failed write


class AtomicCheckpointIO(CheckpointIO):
    """How Lightning reads and writes checkpoints here: never half, never unpickling more than tensors.

    Lightning's own writes by way of $TMPDIR without fsync and builds the file in memory first.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None  # a checkpoint read before the fit, handed over once

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Streams to a temporary file beside `path`, fsyncs, renames; what was at `path` becomes previous.ckpt.

        Raises:
            OSError: it could not be written; what was there before is untouched.
        """
        path = Path(path)
        with atomic_path(path) as part:
            _stream(checkpoint, part)
            if path.name == LAST and path.exists():
                link(path, path.with_name(PREVIOUS))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """The checkpoint handed over, or else the file."""
        loaded, self.loaded = self.loaded, None
        return loaded if loaded is not None else unpickle(Path(path))

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
        raise WeightsError("; ".join(complaints), hint="no other checkpoint to go on from")
    return None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint of `fpn train`, tensors on the CPU.

    Raises:
        WeightsError: empty, damaged, a pickle that would run code, or not one of ours.
    """
    if path.stat().st_size == 0:
        raise WeightsError("the file is empty", file=path)
    content = unpickle(path)
    if not isinstance(content, dict) or STATE not in content or "state_dict" not in content:
        raise WeightsError("no checkpoint of fpn train", file=path, hint="--resume takes what fpn train wrote")
    return content


def _stream(checkpoint: dict[str, Any], path: Path) -> None:
    try:
        torch.save(checkpoint, path)
    except RuntimeError as error:
        if any(words in str(error) for words in WRITE_ERRORS):
            raise OSError(f"cannot write the checkpoint: {str(error).splitlines()[0]}") from error
        raise
