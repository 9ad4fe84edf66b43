"""Files written whole or not at all, with what Windows asks for."""

import os
import time

import numpy as np
import pytest
import torch

from file_events import room_for
from torchfpn.errors import WriteError
from torchfpn.io.atomic import STALE, append, atomic_path, sweep, sync, write_text

IN_MEMORY_SIDE = 5800  # pixels: a raster of 8 bits that is not made in memory any more


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


def layer(path):
    from shapely import Point

    from torchfpn.io.vector_writing import write_layer

    rows = ((Point(i, 2 * i).buffer(1.0), (f"tree {i}",)) for i in range(2000))
    write_layer(path, rows, {"class": str}, crs="EPSG:32633")


def cog(path, side=300):
    from torchfpn.io.geotiff import Layout, write_cog

    noise = np.random.default_rng(0).integers(0, 255, (1, side, side), dtype=np.uint8)
    write_cog(path, Layout(side, side, "uint8", ("class",)), [(0, 0, noise)])


def label_file(path):
    from torchfpn.io.geotiff import write_label_raster

    write_label_raster(path, np.random.default_rng(0).integers(0, 255, (300, 300), dtype=np.uint8))


def checkpoint(path):
    from torchfpn.train.checkpoints import AtomicCheckpointIO

    AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(50_000)}, path)


WRITERS = {
    "a.txt": lambda path: write_text(path, "a" * 50_000),
    "small.tif": label_file,
    "cog.tif": cog,
    "large.tif": lambda path: cog(path, IN_MEMORY_SIDE),
    "a.gpkg": layer,
    "a.fgb": layer,
    "last.ckpt": checkpoint,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_without_room_says_which_path_and_leaves_what_was_there(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"before")
    with room_for(30_000), pytest.raises(WriteError) as caught:
        WRITERS[name](path)
    assert str(caught.value) == f"{path}: cannot be written (File too large)"
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "large.tif"])
def test_a_writer_whose_folder_is_gone_says_so(tmp_path, name):
    path = tmp_path / "gone" / name
    with pytest.raises(WriteError, match="No such file or directory") as caught:
        WRITERS[name](path)
    assert str(path) in str(caught.value)


def test_what_is_appended_is_there_whole_or_not_at_all(tmp_path):
    append(tmp_path / "a", b"0" * 1000)
    with room_for(1500), pytest.raises(WriteError, match="File too large"):
        append(tmp_path / "a", b"1" * 1000)
    assert (tmp_path / "a").read_bytes() == b"0" * 1000


def test_numbers_for_tensorboard_that_find_no_room_are_written_with_the_next(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from torchfpn.train.logs import TensorBoardLog

    board = TensorBoardLog(tmp_path / "tb")
    with room_for(20), pytest.raises(WriteError, match="File too large"):
        board.add({"loss": 2.0}, 1)
    board.add({"loss": 1.0}, 2)
    found = EventAccumulator(str(tmp_path / "tb"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 2.0), (2, 1.0)]
