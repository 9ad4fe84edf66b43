"""The demo end to end, as small as it gets, and its files as other programs see them."""

from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
import yaml

import torchfpn
from torchfpn.config.parsing import load_config
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.demo.job import Plan, describe_dataset, fresh_folder, make_sheets, plan_dataset, plan_map, train_config
from torchfpn.demo.scenes import BANDS, CLASSES


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    sheets = plan_dataset(folder, seed=1, train=2, val=1, size=64)
    describe_dataset(folder)
    assert list(make_sheets(sheets, processes=1)) == sheets
    return folder, sheets


def test_the_dataset_is_one_that_fpn_check_passes(dataset):
    folder, _ = dataset
    found = read_dataset(folder)
    assert found.names == CLASSES
    assert found.bands == BANDS
    assert found.ignore_index == 0
    assert {name: len(found.pairs(name)) for name in found.splits} == {"train": 2, "val": 1}
    report = check(found)
    assert not report.problems


def test_scenes_lie_beside_one_another_on_the_map(dataset):
    _, sheets = dataset
    town = plan_map(sheets[0].image.parent, seed=1, size=256)
    boxes = []
    for sheet in sheets:
        with rasterio.open(sheet.image) as image, rasterio.open(sheet.label) as label:
            assert image.crs.to_epsg() == label.crs.to_epsg() == 32759
            assert image.transform == label.transform
            assert image.descriptions == BANDS
            assert [c.name for c in image.colorinterp] == ["red", "green", "blue", "undefined"]
            assert label.nodata == 0
            boxes.append(image.bounds)
    assert len({(b.left, b.bottom) for b in boxes}) == 3
    assert all(b.right - b.left == 32 for b in boxes)
    assert len({sheet.seed for sheet in [*sheets, town]}) == 4
    assert town.west_north()[1] < min(b.bottom for b in boxes)


def test_two_processes_paint_the_same(tmp_path, dataset):
    _, sheets = dataset
    called = []
    copies = [replace(s, image=tmp_path / f"i{k}.tif", label=tmp_path / f"l{k}.tif") for k, s in enumerate(sheets[:2])]
    list(make_sheets(copies, processes=2, meanwhile=lambda: called.append(1)))
    assert called
    for copy, sheet in zip(copies, sheets, strict=False):
        assert copy.image.read_bytes() == sheet.image.read_bytes()
        assert copy.label.read_bytes() == sheet.label.read_bytes()


def test_a_second_demo_takes_a_new_folder(tmp_path):
    made = [fresh_folder(tmp_path / "a" / "demo").name for _ in range(3)]
    assert made == ["demo", "demo-2", "demo-3"]


def test_the_config_of_the_demo_s_data_is_its_training(tmp_path):
    (tmp_path / "data" / "semantic").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        config = load_config(Path(__file__).resolve().parents[2] / "configs" / "demo.yaml")
    own = train_config(tmp_path, Plan.usual())
    assert replace(config, dataset=own.dataset, name=own.name, out=own.out) == own


def test_the_training_is_one_that_the_command_could_run(tmp_path):
    from torchfpn.config.checks import check as check_config
    from torchfpn.config.parsing import from_plain, to_yaml

    (tmp_path / "dataset").mkdir()
    config = train_config(tmp_path, Plan(seed=5))
    check_config(config)
    assert config.keep == "last"  # nothing is chosen on the held-out scenes
    assert from_plain(yaml.safe_load(to_yaml(config))) == config
    model = torchfpn.create_model(
        "semantic", backbone=config.model.backbone, num_classes=4, in_channels=4, channels=config.model.channels,
        head_channels=config.model.head_channels,
    )  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) < 6e6
