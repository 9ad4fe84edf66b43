"""Files written whole or not at all, with what Windows asks for."""

import os
import time

import pytest

from torchfpn.errors import WriteError
from torchfpn.files.atomic import STALE, atomic_path, sweep, sync, write_text


def part(folder, pid, age=0.0):
    path = folder / f".fpn-{pid}-0123456789ab.part.txt"
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_is_synced_was_opened_for_writing(tmp_path):
    """Elsewhere the system does not mind; on Windows no file would ever be written."""
    write_text(tmp_path / "a.txt", "a")
    with (tmp_path / "a.txt").open("rb") as handle, pytest.raises(ValueError, match="Windows"):
        sync(handle)
    with (tmp_path / "a.txt").open("r+b") as handle:
        sync(handle)


def test_a_writer_that_leaves_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "a")
    with pytest.raises(WriteError, match="No such file"), atomic_path(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "a"


@pytest.mark.parametrize("system", ["posix", "nt"])
def test_leftovers_are_swept_without_harm_to_those_who_write(tmp_path, system):
    """Where asking a process whether it lives would end it (Windows), the age of the file decides."""
    mine, old = part(tmp_path, os.getpid()), part(tmp_path, 2**22 + 7, age=STALE + 60)
    running = part(tmp_path, os.getppid())
    assert sweep(tmp_path, system=system) == 2
    assert not mine.exists()
    assert not old.exists()
    assert running.exists()
