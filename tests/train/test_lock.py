"""One training per folder: refused while its holder lives, taken over when it is dead."""

import json
import os
import socket
import subprocess
import sys

import pytest

from torchfpn.errors import ConfigError
from torchfpn.files.lock import NAME, locked


def holder(folder, **changes):
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "started": None}
    (folder / NAME).write_text(json.dumps(mine | changes))


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_held_during_the_block_and_gone_after_it(tmp_path):
    with locked(tmp_path / NAME):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
        with (
            pytest.raises(ConfigError, match=f"process {os.getpid()} on {socket.gethostname()} is training"),
            locked(tmp_path / NAME),
        ):
            pass
        assert (tmp_path / NAME).exists()  # whoever was refused takes nothing away
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    holder(tmp_path, pid=dead_pid())
    with locked(tmp_path / NAME):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="start times come from /proc")
def test_a_pid_that_is_used_again_is_not_the_holder(tmp_path):
    holder(tmp_path, started=1)
    with locked(tmp_path / NAME):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": -1}'])
def test_a_damaged_lock_holds_nobody_up(tmp_path, text):
    (tmp_path / NAME).write_text(text.replace("-1}", f'-1, "host": "{socket.gethostname()}"}}'))
    with locked(tmp_path / NAME):
        pass


def test_another_machine_is_believed(tmp_path):
    holder(tmp_path, host="elsewhere", pid=1)
    with pytest.raises(ConfigError, match=r"process 1 on elsewhere .* if it is dead, delete"), locked(tmp_path / NAME):
        pass


def test_released_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / NAME):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
