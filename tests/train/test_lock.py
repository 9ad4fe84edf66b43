"""One training per folder: refused while its holder lives, taken over when it is dead."""

import json
import os
import socket
import subprocess
import sys

import pytest

from torchfpn.errors import ConfigError
from torchfpn.io.atomic import NAME, holder_file, locked

HERE = socket.gethostname()


def write_holder(folder, **changes):
    holder_file(folder / NAME).write_text(json.dumps({"pid": os.getpid(), "host": HERE} | changes))


def holding(folder, then, **more):
    """A process that holds the lock of `folder`, prints a line, and goes on with the code `then`."""
    code = f"""
import os, pathlib, sys, time
from torchfpn.io.atomic import locked
with locked(pathlib.Path({str(folder / NAME)!r})):
    {then}
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **more)
    process.line = process.stdout.readline()
    return process


def test_held_during_the_block_and_gone_after_it(tmp_path):
    with locked(tmp_path / NAME):
        assert json.loads(holder_file(tmp_path / NAME).read_text())["pid"] == os.getpid()
        with (
            pytest.raises(ConfigError, match=f"process {os.getpid()} on {HERE} is training"),
            locked(tmp_path / NAME),
        ):
            pass
        assert (tmp_path / NAME).exists()  # whoever was refused takes nothing away
        assert holder_file(tmp_path / NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_another_process_names_it_and_a_killed_one_is_no_hindrance(tmp_path):
    process = holding(tmp_path, "print('held', flush=True); time.sleep(60)")
    with pytest.raises(ConfigError, match=f"process {process.pid} on {HERE} is training"), locked(tmp_path / NAME):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with locked(tmp_path / NAME):
        assert json.loads(holder_file(tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_loader_process_that_outlives_its_training_does_not_hold_the_lock(tmp_path):
    child = "r, w = os.pipe(); pid = os.fork(); pid or (os.write(w, b'.'), time.sleep(60)); "
    process = holding(tmp_path, child + "os.read(r, 1); print(pid, flush=True); os._exit(9)")
    process.wait()
    with locked(tmp_path / NAME):
        pass
    os.kill(int(process.line), 9)
    process.stdout.close()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_holder_holds_nobody_up(tmp_path, text):
    (tmp_path / NAME).write_text(text)  # as killed processes leave it, and as earlier versions wrote it
    holder_file(tmp_path / NAME).write_text(text)
    with locked(tmp_path / NAME):
        pass
    assert not (tmp_path / NAME).exists()


def test_another_machine_is_believed(tmp_path):
    write_holder(tmp_path, host="elsewhere", pid=1)
    told = rf"process 1 on elsewhere .* if it is dead, delete {holder_file(tmp_path / NAME)}"
    for _ in range(2):
        with pytest.raises(ConfigError, match=told), locked(tmp_path / NAME):
            pass
    holder_file(tmp_path / NAME).unlink()
    with locked(tmp_path / NAME):
        pass


def test_released_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / NAME):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
