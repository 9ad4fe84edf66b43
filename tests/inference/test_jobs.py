"""What is labelled, and what the answers are called."""

import numpy as np
import pytest

from made_data import write_png, write_tiff
from torchfpn.errors import ConfigError
from torchfpn.inference.jobs import find_sources, plan, refuse_existing, refuse_own_sources


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.png", "a.png", "sub/c.png"):
        write_png(folder / name, np.zeros((2, 2, 3), np.uint8))
    write_tiff(folder / "d.tif", np.zeros((1, 2, 2), np.uint8))
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    return folder


def names(paths):
    return [path.name for path in paths]


def test_folders_files_and_patterns_give_every_image_once(images):
    assert names(find_sources([str(images)])) == ["a.png", "b.png", "d.tif"]
    assert names(find_sources([str(images / "*.png")])) == ["a.png", "b.png"]
    assert names(find_sources([str(images / "**" / "*.png")])) == ["a.png", "b.png", "c.png"]
    assert names(find_sources([str(images / "b.png"), str(images), str(images / "..") + "/in/a.png"])) == [
        "b.png",
        "a.png",
        "d.tif",
    ]


def test_a_file_is_taken_whatever_its_suffix_and_its_name_may_hold_brackets(images):
    assert names(find_sources([str(images / "notes.txt")])) == ["notes.txt"]
    write_png(images / "x[1].png", np.zeros((2, 2, 3), np.uint8))
    assert names(find_sources([str(images / "x[1].png")])) == ["x[1].png"]


@pytest.mark.parametrize("source", ["nowhere.png", "*.jpg", "empty"])
def test_a_source_that_names_nothing_is_refused(images, source):
    (images / "empty").mkdir()
    with pytest.raises(ConfigError, match="no image found"):
        find_sources([str(images), str(images / source)])


def test_pictures_become_png_and_tiffs_tif(images, tmp_path):
    jobs = plan(find_sources([str(images)]), tmp_path, {"probs": ".npz"}, raster_extras={"probs": ".probs.tif"})
    assert names(job.labels for job in jobs) == ["a.png", "b.png", "d.tif"]
    assert names(job.others["probs"] for job in jobs) == ["a.npz", "b.npz", "d.probs.tif"]


def test_the_content_decides_not_the_suffix(tmp_path):
    write_tiff(tmp_path / "really.png", np.zeros((1, 2, 2), np.uint8))
    (job,) = plan([tmp_path / "really.png"], tmp_path / "out", {}, raster_extras={})
    assert job.labels.name == "really.tif"


def test_sources_of_one_stem_keep_their_suffix(tmp_path):
    for name in ("a.png", "A.jpg", "b.png"):
        write_png(tmp_path / name, np.zeros((2, 2, 3), np.uint8))
    jobs = plan(find_sources([str(tmp_path)]), tmp_path / "out", {}, raster_extras={})
    assert sorted(names(job.labels for job in jobs)) == ["A.jpg.png", "a.png.png", "b.png"]


def test_sources_of_one_name_keep_their_folder(tmp_path):
    for name in ("x/a.png", "y/a.png", "y/b.png", "y/z/a.png", "y/z/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        write_png(tmp_path / name, np.zeros((2, 2, 3), np.uint8))
    sources = find_sources([str(tmp_path / "**" / "*")])
    jobs = plan(sources, tmp_path / "out", {}, raster_extras={})
    found = {str(job.source.relative_to(tmp_path)): job.labels.name for job in jobs}
    assert found == {
        "x/a.png": "x-a.png", "y/a.png": "y-a.png", "y/b.png": "b.png", "y/z/a.png": "y-z-a.png.png",
        "y/z/a.jpg": "a.jpg.png",
    }  # fmt: skip


def test_two_answers_of_one_name_are_refused(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x-y").mkdir()
    for name in ("x/y/a.png", "x-y/a.png", "a.png"):
        write_png(tmp_path / name, np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"a\.png.*two folders"):
        plan(find_sources([str(tmp_path / "**" / "a.png")]), tmp_path / "out", {}, raster_extras={})
    write_png(tmp_path / "x-y" / "a.overlay.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ConfigError, match="same name"):
        plan(find_sources([str(tmp_path / "x-y")]), tmp_path / "out", {"overlay": ".overlay.png"}, raster_extras={})


def test_what_is_there_is_not_overwritten(images, tmp_path):
    jobs = plan(find_sources([str(images)]), tmp_path, {}, raster_extras={})
    refuse_existing(jobs)
    (tmp_path / "b.png").write_text("mine")
    with pytest.raises(ConfigError, match=r"1 file already exists: .*b\.png.*--overwrite"):
        refuse_existing(jobs)


def test_a_source_is_never_its_own_answer(images):
    jobs = plan(find_sources([str(images)]), images, {}, raster_extras={})
    with pytest.raises(ConfigError, match="its own output"):
        refuse_own_sources(jobs)


def test_long_names_work_and_too_long_ones_are_refused(tmp_path):
    image = write_png(tmp_path / f"{'n' * 246}.png", np.zeros((2, 2, 3), np.uint8))
    (job,) = plan([image], tmp_path / "out", {}, raster_extras={})
    assert job.labels.name == image.name
    with pytest.raises(ConfigError, match="too long"):
        plan([image], tmp_path / "out", {"overlay": ".overlay.png"}, raster_extras={})


def test_a_loop_of_links_is_a_source_that_will_fail_by_itself(tmp_path):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert names(find_sources([str(tmp_path / "loop.png")])) == ["loop.png"]
