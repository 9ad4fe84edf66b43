"""Files and folders written whole or not at all, and a lock for one process at a time."""

import contextlib
import errno
import glob
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from torchfpn.errors import ConfigError, FPNError, WriteError

PREFIX, SUFFIX = ".fpn-", ".part"  # what a killed writer leaves behind; swept by `sweep`
STALE = 24 * 3600.0  # seconds after which nobody writes a file any more
FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
TRIAL = 2**16  # bytes that are written to learn why a library could not write
LIVE: set[Path] = set()  # what this process is writing, in any of its threads
REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?:/|$)|/vsi\w+(?:/|$)", re.ASCII)  # one letter is a drive of Windows
TRIES = (0.01, 0.04, 0.15, 0.3, 0.5)  # seconds between attempts to rename
NAME = ".lock"  # in the folder of a run


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` when the block ends without error, removed otherwise.

    The temporary file lies in the same folder and is synced to the disk before it is renamed. Its name ends like
    `path`, so that writers which look at the suffix still work. Where the block fails, files beside it whose names
    begin like its name (an SQLite journal, say) are removed as well. All outputs go through this function, `append` or
    `make_directory`: whatever the system says against writing (a full disk, no permission, a folder that is gone)
    becomes a WriteError that names `path`.

    Raises:
        WriteError: `path` cannot be written. What was there before is untouched.
    """
    check_local(path)
    path = Path(path)
    part = path.with_name(f"{PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}{SUFFIX}{path.suffix}")
    LIVE.add(part.absolute())
    try:
        with _system_errors(path, part):
            yield part
            with part.open("r+b") as handle:
                sync(handle)
            _replace(part, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            for left in path.parent.glob(f"{glob.escape(part.name)}*"):
                left.unlink(missing_ok=True)
        raise
    finally:
        part.unlink(missing_ok=True)  # a rename onto another name of the same file leaves both
        LIVE.discard(part.absolute())


def write_bytes(path: str | Path, data: bytes) -> None:
    """`data` at `path`, or what was there before."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """`text` at `path` as UTF-8, or what was there before."""
    write_bytes(path, text.encode())


def append(path: Path, data: bytes) -> None:
    """Adds `data` to the end of a file, which is made if it is not there; all of it, or none.

    Raises:
        WriteError: it cannot be written; the file is as before.
    """
    check_local(path)
    with _system_errors(path, path), path.open("ab", buffering=0) as handle:  # nothing is left for the closing
        before = handle.tell()
        try:
            left = memoryview(data)
            while left:
                left = left[handle.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle.fileno(), before)
            raise


def make_directory(folder: str | Path) -> None:
    """Makes a folder, and those above it, where they are missing.

    Raises:
        WriteError: it cannot be made.
    """
    check_local(folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _write_error(folder, error) from error


def check_local(path: str | Path) -> None:
    """Passes paths of the file system; GDAL would take the others for places on the network, or in memory.

    Args:
        path: an output, as the user wrote it: "http://host/a.gpkg" is a relative path for the system alone.

    Raises:
        WriteError: an address with a scheme (http://, s3://), or one of GDAL's virtual file systems (/vsicurl/).
    """
    if REMOTE.match(Path(path).as_posix()):
        hint = "write to a local folder and copy the files from there"
        raise WriteError("it is an address, not a path on this machine", file=path, hint=hint)


@contextlib.contextmanager
def library_writes(path: str | Path, part: Path, *failures: type[Exception]) -> Iterator[None]:
    """Inside, a library writes `part`, which becomes `path`; its exceptions of the types `failures` mean it failed.

    Libraries rarely pass on what the system said, so the system is asked again: a few bytes are written beside `part`.

    Raises:
        WriteError: the library failed, and why.
    """
    try:
        yield
    except FPNError:
        raise
    except failures as error:
        raise write_error(path, part, error) from error


HANDLES = 8  # files that a library may open beside the one it writes, such as the journal of SQLite


def write_error(path: str | Path, part: Path, error: Exception | str) -> WriteError:
    """The error of a library that could not write `part`, which was to become `path`; error: what the library said."""
    try:
        check_room(path, part)
        with _system_errors(Path(path), part), contextlib.ExitStack() as files:
            for _ in range(HANDLES):
                files.enter_context(open(os.devnull, "rb"))  # noqa: PTH123
    except WriteError as reason:
        return reason
    cause = error.__cause__ if isinstance(error, Exception) else None
    return WriteError(" ".join(str(cause or error).split())[:200].replace(part.name, Path(path).name), file=path)


def check_room(path: str | Path, part: Path) -> None:
    """Passes if a few bytes more can be written behind `part`, which becomes `path`; its content stays as it is.

    Raises:
        WriteError: they cannot, and why.
    """
    with _system_errors(Path(path), part), part.open("ab") as handle:
        before = handle.tell()
        try:
            handle.write(b"0" * TRIAL)
            sync(handle)
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(handle.fileno(), before)


@contextlib.contextmanager
def _system_errors(path: Path, part: Path) -> Iterator[None]:
    """Inside, an OSError of `path`, of `part` or of no file in particular becomes a WriteError of `path`."""
    try:
        yield
    except FPNError:
        raise
    except OSError as error:
        named = os.fspath(error.filename) if isinstance(error.filename, str | os.PathLike) else ""
        if named and named != str(path) and not named.startswith(str(part)):  # another file, which was being read
            raise
        raise _write_error(path, error) from error


def _write_error(path: str | Path, error: OSError) -> WriteError:
    hint = "free disk space, or write to another disk" if error.errno in FULL else None
    return WriteError(error.strerror or str(error), file=path, hint=hint)


def sync(handle: IO[bytes]) -> None:
    """Has the content of an open file reach the disk.

    Raises:
        ValueError: the file was opened for reading alone, which works everywhere but on Windows.
    """
    if not handle.writable():
        raise ValueError("a file opened for reading cannot be synced on Windows")
    handle.flush()
    os.fsync(handle.fileno())


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
    if part.absolute() in LIVE:
        return True
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


def holder_file(path: Path) -> Path:
    """The file that names who holds the lock `path`; Windows lets nobody read the lock file itself."""
    return path.with_name(f"{path.name}.json")


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
