"""Checkpoint files: whole or not there, with the one before kept, and links that cost no second copy."""

import errno
import os

import pytest
import torch

from torchfpn.errors import WeightsError
from torchfpn.train.checkpoints import BEST, LAST, PREVIOUS, STATE, AtomicCheckpointIO, link, newest, read


def save(folder, number):
    AtomicCheckpointIO().save_checkpoint(
        {STATE: number, "state_dict": {"w": torch.full((1000,), number)}}, folder / LAST
    )


def test_what_was_last_becomes_previous(tmp_path):
    for number in range(3):
        save(tmp_path, number)
    assert read(tmp_path / LAST)[STATE] == 2
    assert read(tmp_path / PREVIOUS)[STATE] == 1
    assert {p.name for p in tmp_path.iterdir()} == {LAST, PREVIOUS}


def test_best_is_another_name_of_last_until_last_moves_on(tmp_path):
    save(tmp_path, 0)
    link(tmp_path / LAST, tmp_path / BEST)
    assert (tmp_path / BEST).samefile(tmp_path / LAST)
    link(tmp_path / LAST, tmp_path / BEST)  # once more changes nothing
    save(tmp_path, 1)
    assert read(tmp_path / BEST)[STATE] == 0
    assert {p.name for p in tmp_path.iterdir()} == {LAST, PREVIOUS, BEST}


def test_without_hard_links_best_is_a_copy(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    save(tmp_path, 0)
    monkeypatch.setattr(os, "link", no_links)
    link(tmp_path / LAST, tmp_path / BEST)
    assert not (tmp_path / BEST).samefile(tmp_path / LAST)
    assert read(tmp_path / BEST)[STATE] == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_disk_that_is_full_is_an_os_error_and_leaves_everything(tmp_path, monkeypatch):
    save(tmp_path, 0)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    torch_save = torch.save
    monkeypatch.setattr(torch, "save", lambda value, path: torch_save(value, "/dev/full"))
    with pytest.raises(OSError, match="cannot write the checkpoint"):
        save(tmp_path, 1)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_newest_reads_last_then_previous_and_tells_why(tmp_path):
    assert newest(tmp_path) is None
    save(tmp_path, 0)
    save(tmp_path, 1)
    path, content, complaints = newest(tmp_path)
    assert (path.name, content[STATE], complaints) == (LAST, 1, [])
    with (tmp_path / LAST).open("r+b") as file:
        file.truncate(700)
    path, content, complaints = newest(tmp_path)
    assert (path.name, content[STATE]) == (PREVIOUS, 0)
    assert len(complaints) == 1
    assert LAST in complaints[0]
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(WeightsError, match=r"last.ckpt.*previous.ckpt"):
        newest(tmp_path)


def test_stale_parts_are_swept(tmp_path):
    (tmp_path / ".fpn-0123.part.ckpt").write_bytes(b"half")
    newest(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_state_dict_is_no_checkpoint_of_a_training(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / LAST)
    with pytest.raises(WeightsError, match="no checkpoint of fpn train"):
        read(tmp_path / LAST)
