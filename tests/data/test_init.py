"""A first dataset.yaml: what is found in folders of every shape, and that it passes the check."""

import shutil

import numpy as np
import pytest
from PIL import Image

from made_data import labels, picture, write_png, write_tiff
from shared import DATA, needs_shared
from torchfpn.data.check import check
from torchfpn.data.dataset import read_dataset
from torchfpn.data.init import init_dataset
from torchfpn.errors import ConfigError, DataError
from torchfpn.files.rasters import write_label_raster


def flat(folder, n, images="images", masks="masks"):
    for name in (images, masks):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        write_png(folder / images / f"s{i}.png", picture(i))
        write_png(folder / masks / f"s{i}.png", labels(i))
    return folder


def copied(folder, name, kinds, most=4):
    """Some files of every split of a real set."""
    for split in ("train", "val"):
        for kind in kinds:
            (folder / split / kind).mkdir(parents=True)
        for path in sorted((DATA / name / split / kinds[0]).iterdir())[:most]:
            for kind in kinds:
                for file in (DATA / name / split / kind).glob(f"{path.stem}.*"):
                    shutil.copy(file, folder / split / kind)
    return folder


@needs_shared
@pytest.mark.parametrize(
    ("name", "kinds", "classes", "bands"),
    [
        ("camvid", ("images", "labels"), 12, ("red", "green", "blue")),
        ("water-12band", ("images", "labels"), 2, 12),
        ("s2-burned-area", ("images", "masks"), 2, ("TCI_R", "TCI_G", "TCI_B", "B8", "B12")),
    ],
)
def test_copies_of_real_sets(tmp_path, name, kinds, classes, bands):
    dataset = init_dataset(copied(tmp_path, name, kinds))
    assert len(dataset.classes) == classes
    assert dataset.bands == bands or len(dataset.bands) == bands
    report = check(dataset)
    assert report.ok, report.problems
    assert [split.images for split in report.splits] == [4, 4]


@needs_shared
def test_one_scene_with_sparse_labels(tmp_path):
    """Landsat: nodata of the labels is "not labelled"; a single image makes no validation split."""
    for kind, file in (("images", "LE70220492002106EDC00_stack.tif"), ("labels", "training_data.tif")):
        (tmp_path / kind).mkdir()
        shutil.copy(DATA / "landsat7-landcover" / file, tmp_path / kind / "scene.tif")
    dataset = init_dataset(tmp_path)
    assert [c.id for c in dataset.classes] == [1, 2, 3, 4, 5]
    assert dataset.ignored == (0,)
    assert list(dataset.splits) == ["train"]
    report = check(dataset)
    assert report.ok
    assert report.splits[0].counts.pixels == (383, 16, 145, 106, 68)  # what its README counts
    assert report.splits[0].counts.ignored == 61782


def test_flat_folder_is_split_80_to_20_the_same_everywhere(tmp_path):
    one, other = init_dataset(flat(tmp_path / "a", 10)), init_dataset(flat(tmp_path / "b", 10, "Images", "LABELS"))
    stems = [{split: [p.image.stem for p in d.pairs(split)] for split in d.splits} for d in (one, other)]
    assert stems[0] == stems[1]
    assert [len(stems[0][split]) for split in ("train", "val")] == [8, 2]
    assert not set(stems[0]["train"]) & set(stems[0]["val"])
    assert check(one).ok


def test_splits_below_the_kinds(tmp_path):
    for split in ("training", "validation", "test"):
        flat(tmp_path / split, 1)
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / split / kind).rename(tmp_path / kind / split)
        (tmp_path / split).rmdir()
    dataset = init_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "val", "test"]
    assert dataset.splits["train"].images == "images/training"
    assert check(dataset).ok


def test_unlabelled_folder_is_kept_without_labels(tmp_path):
    flat(tmp_path / "train", 2)
    (tmp_path / "unlabelled" / "images").mkdir(parents=True)
    write_png(tmp_path / "unlabelled" / "images" / "x.png", picture(9))
    assert init_dataset(tmp_path).splits["unlabelled"].labels is None


@pytest.mark.parametrize(
    ("values", "classes", "ignored"),
    [
        ([0, 255], {0: "background", 255: "foreground"}, ()),
        ([0, 1], {0: "background", 1: "foreground"}, (255,)),
        ([0, 1, 255], {0: "background", 1: "foreground"}, (255,)),
        ([0, 1, 2, 255], {0: "class0", 1: "class1", 2: "class2"}, (255,)),
        ([3, 7, 9], {3: "class3", 7: "class7", 9: "class9"}, (255,)),
        ([0, 300, 65535], {0: "class0", 300: "class300", 65535: "class65535"}, (255,)),
    ],
)
def test_values_become_classes(tmp_path, values, classes, ignored):
    flat(tmp_path, 2)
    deep = max(values) > 255
    for path in (tmp_path / "masks").iterdir():
        grid = np.resize(np.array(values, "uint16" if deep else "uint8"), (24, 32))
        Image.fromarray(grid).save(path)
    dataset = init_dataset(tmp_path)
    assert {c.id: c.name for c in dataset.classes} == classes
    assert dataset.ignored == ignored
    assert check(dataset).ok


def test_names_and_colours_that_the_labels_carry(tmp_path):
    flat(tmp_path, 2)
    for path in list((tmp_path / "masks").iterdir()):
        write_label_raster(
            path.with_suffix(".tif"), labels(0), colors=[(1, 1, 1), (2, 2, 2), (3, 3, 3)], names=["a: b", "#c", "d"]
        )
        path.unlink()
    dataset = init_dataset(tmp_path)
    assert dataset.names == ("a: b", "#c", "d")
    assert [c.color for c in dataset.classes] == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]


def test_colour_masks(tmp_path):
    flat(tmp_path, 2)
    for path in (tmp_path / "masks").iterdir():
        write_png(path, np.array([[255, 0, 0], [0, 0, 9]], "uint8")[labels(0, classes=2)])
    with pytest.raises(DataError, match=r"an RGB mask; .*--palette"):
        init_dataset(tmp_path)
    dataset = init_dataset(tmp_path, colors=True)
    assert sorted(c.color for c in dataset.classes) == [(0, 0, 9), (255, 0, 0)]
    assert check(dataset).ok


def test_fourth_band_marked_alpha_is_data_if_it_has_many_values(tmp_path):
    flat(tmp_path, 2)
    for path in list((tmp_path / "images").iterdir()):
        write_tiff(path.with_suffix(".tif"), picture(1, bands=4).transpose(2, 0, 1))
        path.unlink()
    dataset = init_dataset(tmp_path)
    assert dataset.bands == ("red", "green", "blue", "band4")
    assert len(check(dataset).bands) == 4


def test_nothing_is_overwritten(tmp_path):
    init_dataset(flat(tmp_path, 5))
    (tmp_path / "dataset.yaml").unlink()
    (tmp_path / "train.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"train\.txt: is there already; replace it with --overwrite"):
        init_dataset(tmp_path)
    assert (tmp_path / "train.txt").read_text() == "mine"
    assert not (tmp_path / "dataset.yaml").exists()
    init_dataset(tmp_path, overwrite=True)
    assert len(read_dataset(tmp_path).pairs("train")) == 4


def test_folders_that_are_no_dataset(tmp_path):
    with pytest.raises(DataError, match="no images and labels found"):
        init_dataset(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        init_dataset(tmp_path / "x")
    flat(tmp_path, 2)
    (tmp_path / "masks" / "s0.png").unlink()
    with pytest.raises(DataError, match=r"s0\.png: image without label"):
        init_dataset(tmp_path)
