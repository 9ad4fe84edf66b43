"""Checkpoint files: whole or not there, with the one before kept, and links that cost no second copy."""

import errno

import numpy as np
import pytest
import torch

from file_events import failing_at, room_for
from torchfpn.errors import WeightsError
from torchfpn.train.checkpoints import BEST, LAST, PREVIOUS, STATE, AtomicCheckpointIO, link, read, read_newest


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


def test_without_hard_links_best_is_a_copy(tmp_path):
    save(tmp_path, 0)
    with failing_at(0, OSError(errno.EPERM, "Operation not permitted"), event="os.link"):
        link(tmp_path / LAST, tmp_path / BEST)
    assert not (tmp_path / BEST).samefile(tmp_path / LAST)
    assert read(tmp_path / BEST)[STATE] == 0


def test_a_file_that_may_not_grow_is_an_os_error_and_leaves_everything(tmp_path):
    save(tmp_path, 0)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with room_for(1000), pytest.raises(OSError, match=r"last\.ckpt: cannot be written"):
        save(tmp_path, 1)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_newest_reads_last_then_previous_and_tells_why(tmp_path):
    assert read_newest(tmp_path) is None
    save(tmp_path, 0)
    save(tmp_path, 1)
    path, content, complaints = read_newest(tmp_path)
    assert (path.name, content[STATE], complaints) == (LAST, 1, [])
    with (tmp_path / LAST).open("r+b") as file:
        file.truncate(700)
    path, content, complaints = read_newest(tmp_path)
    assert (path.name, content[STATE]) == (PREVIOUS, 0)
    assert len(complaints) == 1
    assert LAST in complaints[0]
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(WeightsError, match=r"last.ckpt.*previous.ckpt"):
        read_newest(tmp_path)


def test_stale_parts_are_swept(tmp_path):
    (tmp_path / ".fpn-0123.part.ckpt").write_bytes(b"half")
    read_newest(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_state_dict_is_no_checkpoint_of_a_training(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / LAST)
    with pytest.raises(WeightsError, match="no checkpoint of fpn train"):
        read(tmp_path / LAST)


def flip(data, rng):
    place = int(rng.integers(len(data)))
    return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]


def zero_a_block(data, rng):
    place = int(rng.integers(len(data) - 512))
    return data[:place] + bytes(512) + data[place + 512 :]


DAMAGES = {
    "a bit": flip,
    "a block of zeros": zero_a_block,
    "cut off": lambda data, rng: data[: int(rng.integers(len(data)))],
    "two blocks swapped": lambda data, rng: data[512:1024] + data[:512] + data[1024:],
    "bytes behind it": lambda data, rng: data + b"PK",
    "the digest cut off": lambda data, rng: data[:-71],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_falls_back_to_the_one_before_and_is_said(tmp_path, damage):
    for number in range(2):
        save(tmp_path, number)
    data, rng = (tmp_path / LAST).read_bytes(), np.random.default_rng(0)
    for _ in range(25):
        broken = DAMAGES[damage](data, rng)
        assert broken != data
        (tmp_path / LAST).write_bytes(broken)
        path, content, complaints = read_newest(tmp_path)
        assert (path.name, content[STATE]) == (PREVIOUS, 0)
        assert len(complaints) == 1
        assert str(tmp_path / LAST) in complaints[0]


def test_checkpoints_of_earlier_versions_are_read_and_their_damage_is_found(tmp_path):
    torch.save({STATE: 7, "state_dict": {"w": torch.arange(1000.0)}}, tmp_path / LAST)
    assert read(tmp_path / LAST)[STATE] == 7
    data = (tmp_path / LAST).read_bytes()
    place = data.index(torch.arange(500.0, 520.0).numpy().tobytes())
    (tmp_path / LAST).write_bytes(data[:place] + b"\x01" + data[place + 1 :])
    with pytest.raises(WeightsError, match="damaged: it is not as it was written"):
        read(tmp_path / LAST)
