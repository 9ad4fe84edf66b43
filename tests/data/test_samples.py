"""Samples: raw values and class indices, the same with and without cache and workers."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from made_data import YAML, labels, make_dataset, picture, write_png, write_tiff
from shared import DATA, needs_shared
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import SemanticDataset
from torchfpn.data.sample import collate
from torchfpn.data.sampler import Draw, KeyedSampler
from torchfpn.data.transforms import Augment
from torchfpn.errors import ConfigError, DataError
from torchfpn.recipe import IGNORE, Scaling

CONFIGS = Path(__file__).parents[2] / "configs" / "datasets"


def same(one, other):
    return torch.equal(one.image.nan_to_num(-1), other.image.nan_to_num(-1)) and torch.equal(one.target, other.target)


def test_values_are_those_of_the_files(tmp_path):
    samples = SemanticDataset(read_dataset(make_dataset(tmp_path)), "val")
    assert len(samples) == 2
    assert samples.bands == ("red", "green", "blue")
    assert samples.dtype == "uint8"
    sample = samples[1]
    assert torch.equal(sample.image, torch.from_numpy(picture(101)).permute(2, 0, 1).float())
    assert torch.equal(sample.target, torch.from_numpy(labels(101)).long())
    assert sample.name == str(tmp_path / "val" / "images" / "a1.png")
    assert len(list(samples)) == 2


def test_values_of_label_files_become_indices(tmp_path):
    make_dataset(tmp_path, yaml=YAML.replace("[grass, road, water]", "{200: a, 7: b}") + "ignore_index: [0, 9]\n")
    values = np.array([[200, 7, 0, 9]], "uint8")
    for split in ("train", "val"):
        for path in (tmp_path / split / "labels").iterdir():
            write_png(path, values)
            write_png(tmp_path / split / "images" / path.name, picture(0, (1, 4)))
    assert SemanticDataset(read_dataset(tmp_path), "train")[0].target.tolist() == [[0, 1, IGNORE, IGNORE]]


def test_labels_as_colours(tmp_path):
    classes = 'classes: [{name: a, color: [255, 0, 0]}, {name: b, color: "#0000ff"}]\nlabels_are: colors\n'
    text = YAML.replace("classes: [grass, road, water]\n", classes) + "ignore_color: [0, 0, 0]\n"
    make_dataset(tmp_path, train=1, val=0, yaml=text)
    colors = np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 0]]], "uint8")
    write_png(tmp_path / "train" / "labels" / "a0.png", colors)
    write_png(tmp_path / "train" / "images" / "a0.png", picture(0, (1, 3)))
    dataset = read_dataset(tmp_path)
    assert SemanticDataset(dataset, "train")[0].target.tolist() == [[0, 1, IGNORE]]
    write_png(tmp_path / "train" / "labels" / "a0.png", colors + 1)
    with pytest.raises(DataError, match=r"the color \(0, 1, 1\) in 1 pixel.*first at \(row, column\) \(0, 0\)"):
        SemanticDataset(dataset, "train")


def tiffs(tmp_path, **profile):
    make_dataset(tmp_path, train=2, val=0)
    for i in range(2):
        (tmp_path / "train" / "images" / f"a{i}.png").unlink()
        array = np.arange(5 * 24 * 32, dtype="int16").reshape(5, 24, 32) + i
        array[i, 0, 0] = -7
        write_tiff(tmp_path / "train" / "images" / f"a{i}.tif", array, **profile)
    return read_dataset(tmp_path)


def test_pixels_without_data_are_nan_in_every_band_and_ignored(tmp_path):
    for augment in (None, Augment((24, 32), mirror=0.0)):
        sample = SemanticDataset(tiffs(tmp_path, nodata=-7), "train", augment=augment)[1]
        assert sample.image.dtype == torch.float32
        assert sample.image.isnan().sum() == 5
        assert sample.image[:, 0, 0].isnan().all()
        assert (sample.target == IGNORE).nonzero().tolist() == [[0, 0]]
        assert sample.image[4, 23, 31] == 5 * 24 * 32


def test_unlabelled_split(tmp_path):
    make_dataset(tmp_path, yaml=YAML.replace("val/images, labels: val/labels", "val/images"))
    assert (SemanticDataset(read_dataset(tmp_path), "val")[0].target == IGNORE).all()


@pytest.mark.parametrize("cache", [True, False, "auto"])
def test_cache_changes_nothing(tmp_path, cache):
    dataset = read_dataset(make_dataset(tmp_path))
    samples = SemanticDataset(dataset, "train", cache=cache)
    first = [samples[i] for i in range(3)]
    first[0].image.zero_()  # what comes out belongs to the caller
    first[0].target.zero_()
    second = [samples[i] for i in range(3)]
    fresh = [SemanticDataset(dataset, "train", cache=False)[i] for i in range(3)]
    assert all(same(a, b) for a, b in zip(second, fresh, strict=True))
    for path in (tmp_path / "train" / "images").iterdir():
        path.write_bytes(b"")
    if cache:
        assert same(samples[0], fresh[0])
    else:
        with pytest.raises(DataError, match="empty file"):
            samples[0]


def test_cache_keeps_masks_and_types_and_stops_when_full(tmp_path):
    samples = SemanticDataset(tiffs(tmp_path, nodata=-7), "train")
    before = [samples[i] for i in (0, 1, 0, 1)]
    assert samples.frame(1).image.dtype == np.int16
    assert samples.frame(1).valid.sum() == 24 * 32 - 1
    assert same(before[0], before[2])
    assert same(before[1], before[3])
    cache = samples._cache
    cache._used[0] = cache.capacity
    cache._table[:] = 0
    assert same(samples[0], before[0])
    assert cache.get(0) is None


def test_workers_share_the_cache_and_give_the_same(tmp_path):
    dataset = read_dataset(make_dataset(tmp_path, train=6))
    augment = Augment((16, 16), scale=(0.5, 2.0), noise=0.2, scaling=Scaling((1.0,) * 3, (9.0,) * 3))
    samples = SemanticDataset(dataset, "train", augment=augment)
    sampler = KeyedSampler(6, seed=1, per_epoch=9)
    alone = list(DataLoader(SemanticDataset(dataset, "train", augment=augment), 3, sampler=sampler, collate_fn=collate))
    workers = DataLoader(samples, 3, sampler=sampler, collate_fn=collate, num_workers=2)
    for _ in range(2):
        for one, other in zip(alone, workers, strict=True):
            assert torch.equal(one.images.nan_to_num(-1), other.images.nan_to_num(-1))
            assert torch.equal(one.targets, other.targets)
    assert all(samples._cache.get(i) is not None for i in range(6))  # filled by the workers, seen here


def test_samples_can_be_pickled(tmp_path):
    samples = SemanticDataset(read_dataset(make_dataset(tmp_path)), "train")
    again = pickle.loads(pickle.dumps(samples))
    assert same(again[2], samples[2])
    assert same(again[2], samples[Draw(2, 99)])  # without augmentation the key does not matter


def test_other_bands_or_types_are_told(tmp_path):
    make_dataset(tmp_path)
    write_png(tmp_path / "train" / "images" / "a1.png", picture(0, bands=4))
    write_png(tmp_path / "train" / "images" / "a2.png", picture(0)[..., 0])
    samples = SemanticDataset(read_dataset(tmp_path), "train")
    assert len(samples[1].image) == 3  # alpha is no band
    with pytest.raises(DataError, match=r"a2\.png: has 1 band \(grey\); expected 3 as in a0\.png: red, green, blue"):
        samples[2]


def test_unknown_split(tmp_path):
    with pytest.raises(ConfigError, match="no split"):
        SemanticDataset(read_dataset(make_dataset(tmp_path)), "tests")


@needs_shared
def test_real_sets():
    water = SemanticDataset(read_dataset(CONFIGS / "water.yaml"), "val")
    assert water.bands == ("coastal", "blue", "green", "red", "nir", "swir1", "swir2")
    assert water[0].image.shape == (7, 128, 128)
    assert set(water[0].target.unique().tolist()) <= {0, 1}
    burned = SemanticDataset(read_dataset(CONFIGS / "burned-area.yaml"), "train")
    ranch = burned[next(i for i, pair in enumerate(burned.pairs) if "RANCH" in pair.image.name)]
    assert int(ranch.image[0].isnan().sum()) == 225  # what the README of the set says
    assert int((ranch.target == IGNORE).sum()) == 225
    camvid = SemanticDataset(read_dataset(CONFIGS / "camvid.yaml"), "test")
    assert camvid[0].image.shape == (3, 360, 480)
    assert camvid[0].target.max() == IGNORE
    assert DATA.is_dir()
