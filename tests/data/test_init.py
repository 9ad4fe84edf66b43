"""A first dataset.yaml: what is found in folders of every shape, and that it passes the check."""

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from made_data import labels, picture, write_png, write_tiff
from made_objects import coco, record
from shared import DATA, needs_shared
from torchfpn.cli.main import main
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.init import init_dataset
from torchfpn.errors import ConfigError, DataError
from torchfpn.io.geotiff import write_label_raster


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
    with pytest.raises(ConfigError, match=r"train\.txt: already exists; replace it with --overwrite"):
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


KINDS = {
    "grey": lambda path, seed: write_png(path, picture(seed)[..., 0]),
    "colour": lambda path, seed: write_png(path, picture(seed)),
    "grey with a mask": lambda path, seed: Image.fromarray(picture(seed)[..., 0]).convert("LA").save(path),
    "colour with a mask": lambda path, seed: Image.fromarray(picture(seed)).convert("RGBA").save(path),
    "palette": lambda path, seed: Image.fromarray(picture(seed)).quantize(16).save(path),
    "four bands": lambda path, seed: write_tiff(path.with_suffix(".tif"), picture(seed, bands=4).transpose(2, 0, 1)),
    "16 bit": lambda path, seed: write_png(path, picture(seed)[..., 0].astype("uint16") * 200),
    "cut off": lambda path, seed: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
}
DECIDED = ("grey", "colour", "grey with a mask", "colour with a mask", "palette")


def made(folder, kinds, layout):
    """Images of the kinds given, labelled by masks or by boxes, and a second split of the same ones."""
    for split in ("train", "val"):
        place = folder / split / "images" if layout == "splits" else folder / "images"
        place.mkdir(parents=True, exist_ok=True)
        names = []
        for i, kind in enumerate(kinds):
            KINDS[kind](place / f"{split}{i}.png", i + 50 * (split == "val"))
            names.append(next(place.glob(f"{split}{i}.*")).name)
        if layout == "objects":
            annotations = [record(i + 1, (2, 3, 10, 9), image=i + 1) for i in range(len(kinds))]
            value = coco(annotations, images=len(kinds))
            for image, name in zip(value["images"], names, strict=True):
                image["file_name"] = name
            (folder / "annotations").mkdir(exist_ok=True)
            (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(value))
        else:
            (place.parent / "masks").mkdir(exist_ok=True)
            for i in range(len(kinds)):
                write_png(place.parent / "masks" / f"{split}{i}.png", labels(i))
    return folder


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3), st.sampled_from(["splits", "flat", "objects"]))
@example(["grey", "colour"], "flat")
@example(["colour", "grey", "palette"], "objects")
@example(["grey", "colour with a mask"], "splits")
def test_what_is_written_passes_the_check_or_what_is_left_is_said(kinds, layout):
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()) as told:
        code = main(["check", "--init", str(made(Path(name), kinds, layout)), "-q"])
        assert code in ((0,) if set(kinds) <= set(DECIDED) else (0, 1)), told.getvalue()
        assert (code == 1) == ("left to decide: " in told.getvalue())
        assert main(["check", name, "-q"]) == (2 if code else 0)
        grey = {kind.startswith("grey") for kind in kinds}
        if set(kinds) <= set(DECIDED):
            assert ("grey_as_color: true" in (Path(name) / "dataset.yaml").read_text()) == (len(grey) == 2)


def test_grey_and_colour_train_as_described(tmp_path, capsys):
    folder = made(tmp_path / "set", ["grey", "colour"], "splits")
    assert main(["check", "--init", str(folder)]) == 0
    words = ["--data.crop", "16", "--model.backbone", "test_resnet", "--accelerator", "cpu", "--num_workers", "0"]
    assert main(["train", "--dataset", str(folder), "--fast_dev_run", "true", *words]) == 0
