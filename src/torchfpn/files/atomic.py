"""Writing a file whole or not at all: a temporary file in the same folder, fsync, rename, fsync of the folder."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

PREFIX, SUFFIX = ".fpn-", ".part"  # what a killed writer leaves behind; swept by `sweep`


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` when the block ends without error, removed otherwise.

    The temporary name ends like `path`, so that writers which look at the suffix still work.
    """
    path = Path(path)
    part = path.with_name(f"{PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}{SUFFIX}{path.suffix}")
    try:
        yield part
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """`data` at `path`, or what was there before."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """`text` at `path` as UTF-8, or what was there before."""
    write_bytes(path, text.encode())


def sweep(folder: str | Path) -> int:
    """Removes what killed writers left in `folder` (not below it); how many there were."""
    parts = [p for p in Path(folder).glob(f"{PREFIX}*") if SUFFIX in p.name and p.is_file()]
    stale = [p for p in parts if not _is_written(p)]
    for part in stale:
        part.unlink(missing_ok=True)
    return len(stale)


def _is_written(part: Path) -> bool:
    """Whether another process of this machine, which its name tells, may still be writing it."""
    number = part.name.removeprefix(PREFIX).partition("-")[0]
    if not number.isdecimal() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut; a no-op where folders cannot be opened (Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
