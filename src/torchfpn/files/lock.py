"""One at a time: a lock that the system takes from a process that ends, and a file beside it that names the process."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from torchfpn.errors import ConfigError, FPNError
from torchfpn.files.atomic import write_text

NAME = ".lock"  # in the folder of a run


def holder_file(path: Path) -> Path:
    """The file that names who holds the lock `path`; Windows lets nobody read the lock file itself."""
    return path.with_name(f"{path.name}.json")


@contextmanager
def locked(
    path: Path, *, doing: str = "training in this folder", instead: str = "give another --name"
) -> Iterator[None]:
    """Holds the lock file `path` during the block. doing: what its holder does; instead: what another may do.

    Raises:
        ConfigError: another process holds it; its pid and host are named.
        FPNError: the lock file cannot be made.
    """
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise _refusal(path, doing, instead) from error
    except OSError as error:
        raise FPNError(f"cannot be locked: {error.strerror or error}", file=path) from error
    try:
        _take(path, doing, instead)
        yield
    finally:
        _release(lock, path)


def _take(path: Path, doing: str, instead: str) -> None:
    """Writes down who holds the lock.

    Where several machines share a disk, its locks may hold on one machine alone: what another one wrote is believed.
    """
    holder = _read(path)
    if holder is not None and holder.get("host") != socket.gethostname():
        raise _refusal(path, doing, instead)
    write_text(holder_file(path), json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))


def _release(lock: FileLock, path: Path) -> None:
    holder = _read(path)
    if holder == {"pid": os.getpid(), "host": socket.gethostname()}:
        holder_file(path).unlink(missing_ok=True)
    if os.name != "nt":  # still held: afterwards the file could be that of the next holder
        path.unlink(missing_ok=True)
    lock.release()
    if os.name == "nt":  # an open file cannot be removed there, neither this one nor that of the next holder
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _refusal(path: Path, doing: str, instead: str) -> ConfigError:
    holder = _read(path) or {}
    who = f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another process"
    elsewhere = bool(holder) and holder.get("host") != socket.gethostname()
    dead = f"; if it is dead, delete {holder_file(path)}" if elsewhere else ""
    return ConfigError(f"{who} is {doing}", file=path.parent, hint=f"wait for it, or {instead}{dead}")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        holder = json.loads(holder_file(path).read_text("utf-8"))
    except (OSError, ValueError):  # none, or damaged
        return None
    return holder if isinstance(holder, dict) and "host" in holder else None
