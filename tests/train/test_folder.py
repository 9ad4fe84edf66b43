"""Run folders: never overwritten unasked, found again to go on."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from torchfpn.config.settings import TrainConfig
from torchfpn.errors import ConfigError
from torchfpn.train.run_folder import check_writable, clear_folder, find_folder, make_folder


def config(tmp_path, **changes):
    return TrainConfig(name="roofs", out=str(tmp_path / "runs"), **changes)


def run(tmp_path, name, of=None):
    folder = tmp_path / "runs" / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: {of or name}\n")
    (folder / "env.json").write_text("")
    return folder


def test_each_run_has_a_folder_of_its_own(tmp_path):
    made = [make_folder(config(tmp_path)).name for _ in range(3)]
    assert made == ["roofs", "roofs-2", "roofs-3"]


def test_overwrite_takes_the_very_folder_and_empties_it_of_a_run_only(tmp_path):
    run(tmp_path, "roofs")
    folder = make_folder(config(tmp_path, overwrite=True))
    assert folder.name == "roofs"
    (folder / ".lock").write_text("mine")
    clear_folder(folder)
    assert [p.name for p in folder.iterdir()] == [".lock"]
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="not a run folder"):
        clear_folder(folder)
    assert (folder / "thesis.tex").exists()


def test_resume_means_the_newest_run_of_that_name(tmp_path):
    assert find_folder(config(tmp_path, resume=True)) is None
    for name in ("roofs", "roofs-2", "roofs-10"):
        run(tmp_path, name, "roofs")
    for name in ("roofs-2018", "roofs-old", "roofs-"):
        run(tmp_path, name)
    assert find_folder(config(tmp_path, resume=True)) == (tmp_path / "runs" / "roofs-10", None)


def test_a_run_of_another_name_is_not_gone_on_with(tmp_path):
    run(tmp_path, "roofs-2018")
    assert find_folder(config(tmp_path, resume=True)) is None
    run(tmp_path, "roofs-2", "roofs")  # the second run of "roofs" is not the first one of "roofs-2"
    other = TrainConfig(name="roofs-2", out=str(tmp_path / "runs"), resume=True)
    assert find_folder(other) is None
    assert find_folder(config(tmp_path, resume=True)) == (tmp_path / "runs" / "roofs-2", None)
    (run(tmp_path, "roofs") / "config.yaml").write_text("")  # it does not say: its own name is its name
    assert find_folder(config(tmp_path, resume=True))[0].name == "roofs-2"
    (tmp_path / "runs" / "roofs-2" / "config.yaml").unlink()
    assert find_folder(config(tmp_path, resume=True))[0].name == "roofs"


def test_resume_takes_a_folder_or_a_checkpoint(tmp_path):
    folder = run(tmp_path, "other")
    file = folder / "checkpoints" / "best.ckpt"
    file.write_bytes(b"")
    assert find_folder(config(tmp_path, resume=str(folder))) == (folder, None)
    assert find_folder(config(tmp_path, resume=str(file))) == (folder, file)
    with pytest.raises(ConfigError, match="a run folder, or a checkpoint in one"):
        find_folder(config(tmp_path, resume=str(tmp_path)))


def test_probe_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "new", 1)
    assert list((tmp_path / "new").iterdir()) == []


def test_trainings_started_together_do_not_trip_over_each_other(tmp_path):
    """As threads, which meet each other more often than processes do."""
    together = threading.Barrier(8)

    def start(_):
        together.wait()
        for _ in range(20):
            check_writable(tmp_path / "runs", 1)
        return make_folder(config(tmp_path)).name

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(start, range(8)))
    assert sorted(names) == sorted(["roofs", *(f"roofs-{n}" for n in range(2, 9))])
    assert {path.name for path in (tmp_path / "runs").iterdir()} == set(names)


def test_overwrite_leaves_what_no_run_wrote(tmp_path):
    folder = run(tmp_path, "roofs")
    for name in (
        "metrics.csv",
        "samples/0.png",
        "checkpoints/last.ckpt",
        "thesis.tex",
        "samples/best.tif",
        "notes/a.md",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "events.out.tfevents.1").write_text("another run's")
    (folder / "tb").symlink_to(tmp_path / "elsewhere")
    clear_folder(folder)
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert left == ["notes/a.md", "samples/best.tif", "thesis.tex"]
    assert (tmp_path / "elsewhere" / "events.out.tfevents.1").exists()


@pytest.mark.parametrize("missing", ["config.yaml", "env.json"])
def test_overwrite_refuses_a_folder_of_another_kind_and_a_link(tmp_path, missing):
    folder = run(tmp_path, "roofs")
    (tmp_path / "runs" / "link").symlink_to(folder)
    with pytest.raises(ConfigError, match="is a link"):
        clear_folder(tmp_path / "runs" / "link")
    (folder / missing).unlink()
    (folder / "metrics.csv").write_text("mine")
    with pytest.raises(ConfigError, match="not a run folder"):
        clear_folder(folder)
    assert (folder / "metrics.csv").exists()
