"""Writing a file whole or not at all: a temporary file in the same folder, fsync, rename, fsync of the folder."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PREFIX, SUFFIX = ".fpn-", ".part"  # what a killed writer leaves behind; swept by `sweep`
STALE = 24 * 3600.0  # seconds after which nobody writes a file any more
TRIES = (0.01, 0.04, 0.15, 0.3, 0.5)  # seconds between attempts to rename


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` when the block ends without error, removed otherwise.

    The temporary name ends like `path`, so that writers which look at the suffix still work.
    """
    path = Path(path)
    part = path.with_name(f"{PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}{SUFFIX}{path.suffix}")
    try:
        yield part
        with part.open("r+b") as handle:
            sync(handle)
        _replace(part, path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(handle: IO[bytes]) -> None:
    """Has the content of an open file reach the disk.

    Raises:
        ValueError: the file was opened for reading alone, which works everywhere but on Windows.
    """
    if not handle.writable():
        raise ValueError("a file opened for reading cannot be synced on Windows")
    handle.flush()
    os.fsync(handle.fileno())


def write_bytes(path: str | Path, data: bytes) -> None:
    """`data` at `path`, or what was there before."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """`text` at `path` as UTF-8, or what was there before."""
    write_bytes(path, text.encode())


def sweep(folder: str | Path, *, system: str = os.name) -> int:
    """Removes what killed writers left in `folder` (not below it); how many there were. system: as `os.name` has it."""
    parts = [p for p in Path(folder).glob(f"{PREFIX}*") if SUFFIX in p.name and p.is_file()]
    stale = [p for p in parts if not _is_written(p, system)]
    for part in stale:
        part.unlink(missing_ok=True)
    return len(stale)


def _is_written(part: Path, system: str) -> bool:
    """Whether another process of this machine may still be writing it. system: as `os.name` has it.

    The name tells the process, and POSIX whether it runs. On Windows the same question would end the process; there a
    file that is a day old has been left behind.
    """
    number = part.name.removeprefix(PREFIX).partition("-")[0]
    if not number.isdecimal() or int(number) == os.getpid():
        return False
    if system == "nt":
        with contextlib.suppress(OSError):
            return time.time() - part.stat().st_mtime < STALE
        return False
    try:
        os.kill(int(number), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _replace(part: Path, path: Path) -> None:
    """Renames; on Windows again for a second while somebody, a virus scanner say, has `path` open."""
    for pause in TRIES if os.name == "nt" else ():
        with contextlib.suppress(PermissionError):
            part.replace(path)
            return
        time.sleep(pause)
    part.replace(path)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut; a no-op where folders cannot be opened (Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
