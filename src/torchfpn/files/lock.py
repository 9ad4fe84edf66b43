"""One at a time: a lock file that says who holds it, taken over when its holder is dead."""

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torchfpn.errors import ConfigError

NAME = ".lock"  # in the folder of a run


@contextmanager
def locked(
    path: Path, *, doing: str = "training in this folder", instead: str = "give another --name"
) -> Iterator[None]:
    """Holds the lock file `path` during the block. doing: what its holder does; instead: what another may do.

    Raises:
        ConfigError: another process holds it; its pid and host are named.
    """
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
    _take(path, mine, doing, instead)
    try:
        yield
    finally:
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def _take(path: Path, mine: dict[str, Any], doing: str, instead: str) -> None:
    for _ in range(10):  # a holder may go, or a third process come, between two looks
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            holder = _read(path)
            if holder is not None and _alive(holder):
                break
            _set_aside(path, holder)
        else:
            with os.fdopen(handle, "w") as file:
                json.dump(mine, file)
            return
    holder = _read(path) or {}
    raise ConfigError(
        f"process {holder.get('pid')} on {holder.get('host')} is {doing}",
        file=path.parent,
        hint=f"wait for it, or {instead}; if it is dead, delete {path}",
    )


def _set_aside(path: Path, seen: dict[str, Any] | None) -> None:
    """Removes a stale lock by renaming it, so that of two who do it only one meets the stale one."""
    aside = path.with_name(f"{path.name}-{uuid.uuid4().hex[:8]}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != seen:  # somebody took it over in between: give it back
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):  # gone, or its writer was killed before the first byte
        return None
    return holder if isinstance(holder, dict) else None


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the holder still runs; of another machine we cannot know, and believe it."""
    if holder.get("host") != socket.gethostname():
        return True
    pid = holder.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return _started(pid) == holder.get("started")  # a pid is used again after a while


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine did; None where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])  # a zombie is dead
