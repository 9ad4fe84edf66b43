"""Run folders: never overwritten unasked, found again to go on."""

import pytest

from torchfpn.config import TrainConfig
from torchfpn.errors import ConfigError
from torchfpn.train.folder import empty, find_folder, make_folder, probe


def config(tmp_path, **changes):
    return TrainConfig(name="roofs", out=str(tmp_path / "runs"), **changes)


def run(tmp_path, name):
    folder = tmp_path / "runs" / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    return folder


def test_each_run_has_a_folder_of_its_own(tmp_path):
    made = [make_folder(config(tmp_path)).name for _ in range(3)]
    assert made == ["roofs", "roofs-2", "roofs-3"]


def test_overwrite_takes_the_very_folder_and_empties_it_of_a_run_only(tmp_path):
    run(tmp_path, "roofs")
    folder = make_folder(config(tmp_path, overwrite=True))
    assert folder.name == "roofs"
    (folder / ".lock").write_text("mine")
    empty(folder)
    assert [p.name for p in folder.iterdir()] == [".lock"]
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="not a run folder"):
        empty(folder)
    assert (folder / "thesis.tex").exists()


def test_resume_means_the_newest_run_of_that_name(tmp_path):
    assert find_folder(config(tmp_path, resume=True)) is None
    for name in ("roofs", "roofs-2", "roofs-10", "roofs-old", "roofs-"):
        run(tmp_path, name)
    assert find_folder(config(tmp_path, resume=True)) == (tmp_path / "runs" / "roofs-10", None)


def test_resume_takes_a_folder_or_a_checkpoint(tmp_path):
    folder = run(tmp_path, "other")
    file = folder / "checkpoints" / "best.ckpt"
    file.write_bytes(b"")
    assert find_folder(config(tmp_path, resume=str(folder))) == (folder, None)
    assert find_folder(config(tmp_path, resume=str(file))) == (folder, file)
    with pytest.raises(ConfigError, match="a run folder, or a checkpoint in one"):
        find_folder(config(tmp_path, resume=str(tmp_path)))


def test_probe_leaves_nothing_behind(tmp_path):
    probe(tmp_path / "new", 1)
    assert list((tmp_path / "new").iterdir()) == []
