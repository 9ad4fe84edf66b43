"""Scenes: images that are never held. Their samples, counts and scaling are those of the same image read whole."""

import tracemalloc
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from made_data import write_png
from made_maps import PLACE, blobs, box, make_scene, noise, scene_yaml, write_geojson, write_map
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import SCENE_CROP, SemanticDataset, index_scene
from torchfpn.data.headers import quick_size, read_header
from torchfpn.data.reading import image_parts, nth_window, pad_window, read_pair, scene_of, window_count
from torchfpn.data.sample import collate
from torchfpn.data.sampler import Draw, KeyedSampler
from torchfpn.data.scaling import find_scaling
from torchfpn.data.statistics import class_counts
from torchfpn.data.transforms import Augment
from torchfpn.errors import DataError
from torchfpn.evaluation.model import evaluate_pixels
from torchfpn.geo.window import Window
from torchfpn.geo.window import tiles as tiling
from torchfpn.nn.layers import Normalize
from torchfpn.recipe import IGNORE, Scaling
from torchfpn.report.dataset_sheet import write_sheet
from torchfpn.types import Semantic

WHOLE, SCENE = 2**22, 1000  # scene_pixels: the same files as images and as scenes
SEVERAL = (1100, 1150)  # a size of four windows
EVERYTHING = {"scale": (0.5, 2.0), "mirror": 0.5, "flip": 0.5, "turns": True, "brightness": 0.3, "noise": 0.2}


def both(folder, **options):
    """The same files as a dataset of whole images, and of scenes."""
    make_scene(folder, **options)
    text = (folder / "dataset.yaml").read_text()
    scenes = read_dataset(folder)
    (folder / "whole.yaml").write_text(text.replace(f"scene_pixels: {SCENE}", f"scene_pixels: {WHOLE}"))
    return read_dataset(folder / "whole.yaml"), scenes


def same(one, other):
    return torch.equal(one.image.nan_to_num(-1), other.image.nan_to_num(-1)) and torch.equal(one.target, other.target)


class TestCrops:
    """Training samples of a scene."""

    @pytest.mark.parametrize("kind", ["bytes", "int16 with nodata", "float with NaN", "polygons"])
    def test_they_are_the_crops_of_the_whole_image(self, tmp_path, kind):
        array, profile = noise(1, (300, 260)), {}
        if kind == "int16 with nodata":
            array, profile = array.astype(np.int16), {"nodata": -7}
            array[1, ::9, ::7] = -7
        elif kind == "float with NaN":
            array = array.astype(np.float32)
            array[0, 50:90, 100:170] = np.nan
        whole, scenes = both(tmp_path, array=array, **profile)
        if kind == "polygons":
            write_geojson(tmp_path / "l.geojson", [box(30 * i, 25 * i, 21) for i in range(9)], ["b", "c", "c"] * 3)
            for name in ("dataset.yaml", "whole.yaml"):
                text = (tmp_path / name).read_text().replace("mask.tif", "l.geojson")
                (tmp_path / name).write_text(text + "polygons: {field: kind, background: a, border: 1}\n")
            whole, scenes = read_dataset(tmp_path / "whole.yaml"), read_dataset(tmp_path)
        augment = Augment((48, 64), **EVERYTHING, scaling=Scaling((9.0,) * 3, (50.0,) * 3))
        one = SemanticDataset(whole, "train", augment=augment)
        other = SemanticDataset(scenes, "train", augment=augment)
        assert (len(one), len(other)) == (1, (300 // 48) * (260 // 64))
        assert not one.scenes
        assert len(other.scenes) == 1
        for seed in range(30):
            assert same(one[Draw(0, seed)], other[Draw(seed % len(other), seed)])

    def test_crops_larger_than_the_scene(self, tmp_path):
        whole, scenes = both(tmp_path, size=(40, 90))
        augment = Augment((64, 64), **(EVERYTHING | {"noise": 0.0, "brightness": 0.0}))
        one, other = (SemanticDataset(dataset, "train", augment=augment) for dataset in (whole, scenes))
        assert len(other) == 1
        for seed in range(20):
            assert same(one[Draw(0, seed)], other[Draw(0, seed)])

    def test_they_depend_on_the_key_alone(self, tmp_path):
        make_scene(tmp_path)
        samples = SemanticDataset(read_dataset(tmp_path), "train", augment=Augment((32, 32), class_aware=0.5))
        sampler = KeyedSampler(len(samples), seed=3, per_epoch=8)
        alone = list(DataLoader(samples, 4, sampler=sampler, collate_fn=collate))
        workers = list(DataLoader(samples, 4, sampler=sampler, collate_fn=collate, num_workers=2))
        for one, other in zip(alone, workers, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.targets, other.targets)
            assert one.names == other.names
        assert not torch.equal(alone[0].images, alone[1].images)

    def test_no_read_is_larger_than_needed(self, tmp_path):
        make_scene(tmp_path, size=SEVERAL)
        samples = SemanticDataset(read_dataset(tmp_path), "train", augment=Augment((32, 32), scale=(0.5, 2.0)))
        samples[Draw(0, 0)]  # what is held once for all crops
        tracemalloc.start()
        try:
            for seed in range(30):
                samples[Draw(0, seed)]
            assert tracemalloc.get_traced_memory()[1] < 500_000  # a crop of 64 x 64; the scene has 3.8 MB
        finally:
            tracemalloc.stop()

    def test_every_option_of_augmentation_is_among_those_tested(self):
        others = {"crop", "scaling", "class_aware", "class_weights", "contrast", "band_brightness", "band_contrast"}
        assert EVERYTHING.keys() | others == {field.name for field in fields(Augment)}

    def test_mixed_with_ordinary_images(self, tmp_path):
        make_scene(tmp_path, size=(128, 128))
        write_map(tmp_path / "small.tif", size=(20, 30))
        write_map(tmp_path / "small_mask.tif", blobs((20, 30))[None])
        text = (tmp_path / "dataset.yaml").read_text()
        text = text.replace(
            "images: scene.tif, labels: mask.tif", "images: [small.tif, scene.tif], labels: [small_mask.tif, mask.tif]"
        )
        (tmp_path / "dataset.yaml").write_text(text)
        dataset = read_dataset(tmp_path)
        samples = SemanticDataset(dataset, "train", augment=Augment((32, 32)), cache=True)
        assert len(samples) == 1 + 16
        assert samples.usual_size == (20, 30)
        names = [samples[i].name.rpartition("/")[2] for i in range(17)]
        assert names[0] == "small.tif"
        assert all(name.startswith("scene.tif (") for name in names[1:])
        assert len(set(names)) > 10
        assert [len(s.image) for s in SemanticDataset(dataset, "train")] == [3, 3]

    def test_bands_are_chosen_and_others_refused(self, tmp_path):
        make_scene(tmp_path, more="bands: [red, green, blue]\nuse_bands: [blue, 1]\n")
        samples = SemanticDataset(read_dataset(tmp_path), "train", augment=Augment((32, 32), mirror=0.0))
        assert samples.bands == ("blue", "red")
        assert samples.usual_size == (SCENE_CROP, SCENE_CROP)
        assert samples[0].image.shape == (2, 32, 32)

    def test_masks_that_do_not_fit(self, tmp_path):
        make_scene(tmp_path)
        moved = PLACE["transform"] @ rasterio.Affine.translation(1, 0)
        write_map(tmp_path / "mask.tif", blobs((300, 260))[None], transform=moved)
        with pytest.raises(DataError, match="another grid than the image, 1 pixels apart"):
            SemanticDataset(read_dataset(tmp_path), "train")
        write_map(tmp_path / "mask.tif", blobs((300, 261))[None])
        with pytest.raises(DataError, match="labels of 261 x 300 pixels for an image of 260 x 300"):
            SemanticDataset(read_dataset(tmp_path), "train")


class TestClassAware:
    """Crops around a class that is drawn first, without reading the whole."""

    def test_the_index_counts_every_pixel(self, tmp_path):
        make_scene(tmp_path, size=(600, 700))
        dataset = read_dataset(tmp_path)
        pair = dataset.pairs("train")[0]
        index = index_scene(dataset, pair, read_header(dataset, pair.image))
        target = read_pair(dataset, pair).target
        assert index.side == 256
        assert index.totals.tolist() == np.bincount(target.ravel(), minlength=3).tolist()
        for n, (row, column, height, width) in enumerate(tiling((600, 700), (256, 256))):
            part = target[row : row + height, column : column + width]
            assert index.counts[n].tolist() == np.bincount(part.ravel(), minlength=3).tolist()

    def test_every_pixel_of_a_class_is_as_likely(self, tmp_path):
        make_scene(tmp_path, size=(600, 700))
        dataset = read_dataset(tmp_path)
        pair = dataset.pairs("train")[0]
        index = index_scene(dataset, pair, read_header(dataset, pair.image))
        draws = (np.arange(2000) + 0.5) / 2000
        found = [index.block(0, float(draw))[:2] for draw in draws]
        share = index.counts[:, 0] / index.counts[:, 0].sum()
        for n, (row, column, _, _) in enumerate(tiling((600, 700), (256, 256))):
            assert abs(found.count((row, column)) / 2000 - share[n]) < 0.002

    @pytest.mark.parametrize("wanted", [0.0, 0.75])
    def test_a_rare_class_is_seen_as_often_as_asked(self, tmp_path, wanted):
        """36 of 78,000 pixels; a crop of 24 x 24 meets them by chance once in a hundred."""
        make_scene(tmp_path)
        augment = Augment((24, 24), class_aware=wanted)
        samples = SemanticDataset(read_dataset(tmp_path), "train", augment=augment)
        seen = np.mean([bool((samples[Draw(0, seed)].target == 2).any()) for seed in range(200)])
        assert abs(seen - wanted / 3) < 0.08  # one of three classes

    def test_nothing_labelled_is_a_plain_crop(self, tmp_path):
        make_scene(tmp_path)
        write_map(tmp_path / "mask.tif", np.full((1, 300, 260), 255, np.uint8))
        samples = SemanticDataset(read_dataset(tmp_path), "train", augment=Augment((24, 24), class_aware=1.0))
        assert (samples[0].target == IGNORE).all()


class TestWindows:
    """Validation of a scene."""

    @settings(max_examples=40, deadline=None)
    @given(height=st.integers(1, 5000), width=st.integers(1, 5000))
    def test_windows_cover_each_pixel_once(self, height, width):
        tiles = tiling((height, width), (1024, 1024))
        assert len(tiles) == window_count((height, width))
        assert [nth_window((height, width), n) for n in range(len(tiles))] == tiles
        assert sum(h * w for _, _, h, w in tiles) == height * width
        for row, column, h, w in tiles:
            top, left, tall, wide = pad_window(Window(row, column, h, w), (height, width))
            assert 0 <= top <= row <= row + h <= top + tall <= height
            assert 0 <= left <= column <= column + w <= left + wide <= width
            assert max(tall, wide) <= 1024 + 128

    def test_every_label_counts_once_and_is_seen_with_its_surroundings(self, tmp_path):
        whole, scenes = both(tmp_path, size=SEVERAL)
        truth = SemanticDataset(whole, "train")[0]
        samples = SemanticDataset(scenes, "train")
        assert len(samples) == 4
        found, seen = torch.full_like(truth.target, IGNORE), torch.zeros_like(truth.target)
        for n, sample in enumerate(samples):
            core = nth_window(SEVERAL, n)
            top, left, height, width = pad_window(core, SEVERAL)
            assert torch.equal(sample.image, truth.image[:, top : top + height, left : left + width])
            counted = sample.target != IGNORE
            seen[top : top + height, left : left + width] += counted
            found[top : top + height, left : left + width][counted] = sample.target[counted]
        assert (seen == 1).all()
        assert torch.equal(found, truth.target)
        assert samples[1].name.endswith("scene.tif (0, 1024)")

    def test_counts_and_scaling_are_those_of_the_whole(self, tmp_path):
        array = noise(2, SEVERAL, 2, np.int16)
        array[0, :40] = -7
        whole, scenes = both(tmp_path, size=SEVERAL, array=array, nodata=-7)
        assert len(image_parts(scenes, scenes.pairs("train"))) == 4
        assert class_counts(scenes) == class_counts(whole)
        for method in ("mean-std", "percentile"):
            (one, dtype), (other, same) = (find_scaling(dataset, method=method) for dataset in (whole, scenes))
            assert dtype == same == "int16"
            tolerance = 1e-9 if method == "mean-std" else 0.02
            assert one.offset == pytest.approx(other.offset, rel=tolerance)
            assert one.scale == pytest.approx(other.scale, rel=tolerance)

    def test_check_says_of_a_scene_what_it_says_of_the_whole(self, tmp_path):
        array = noise(2, SEVERAL).astype(np.float32)
        array[:, 7:9, :30] = np.nan
        one, other = (check(dataset).to_dict() for dataset in both(tmp_path, size=SEVERAL, array=array))
        for report in (one, other):
            assert report.pop("dataset")
            for band in report["bands"]:
                band["mean"], band["std"] = round(band["mean"], 6), round(band["std"], 6)
        assert one == other
        report = check(read_dataset(tmp_path))
        write_sheet(report, tmp_path / "sheet.png")
        assert (tmp_path / "sheet.png").stat().st_size > 10_000

    def test_check_names_a_bad_mask_once_with_the_place_in_the_scene(self, tmp_path):
        make_scene(tmp_path, size=SEVERAL)
        labels = blobs(SEVERAL)
        labels[1050, 130] = labels[1051, 1140] = 9
        write_map(tmp_path / "mask.tif", labels[None])
        (problem,) = check(read_dataset(tmp_path)).problems
        assert problem.file.name == "mask.tif"
        assert "the value 9 in 1 pixel, first at (row, column) (1050, 130)" in problem.line

    def test_scenes_stored_by_rows_are_read_by_rows(self, tmp_path):
        make_scene(tmp_path, size=SEVERAL, tiled=False, blockxsize=None, blockysize=4)
        dataset = read_dataset(tmp_path)
        found = [piece.window for piece in image_parts(dataset, dataset.pairs("train"))]
        assert all(column == 0 and width == 1150 and row % 4 == 0 for row, column, _, width in found)
        assert len(found) > 1
        assert sum(height for _, _, height, _ in found) == 1100


class TestWhichAreScenes:
    """Large TIFFs whose labels can be read by windows; everything else is read whole as ever."""

    def test_size_and_kind(self, tmp_path):
        make_scene(tmp_path)
        dataset = read_dataset(tmp_path)
        (pair,) = dataset.pairs("train")
        assert scene_of(dataset, pair).size == (300, 260)
        scene_yaml(tmp_path, pixels=300 * 260)
        assert scene_of(read_dataset(tmp_path), pair) is None
        write_png(tmp_path / "mask.png", blobs((300, 260)))
        scene_yaml(tmp_path, pixels=100, labels="mask.png")
        dataset = read_dataset(tmp_path)
        assert scene_of(dataset, dataset.pairs("train")[0]) is None  # a PNG can only be read whole
        assert len(SemanticDataset(dataset, "train")) == 1

    @pytest.mark.parametrize("profile", [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}, {"tiled": True}])
    @pytest.mark.parametrize("size", [(3, 70_000), (300, 260)])
    def test_the_size_is_read_off_the_file(self, tmp_path, profile, size):
        write_map(tmp_path / "a.tif", np.zeros((1, *size), np.uint8), **profile)
        assert quick_size(tmp_path / "a.tif") == size

    @settings(max_examples=60, deadline=None)
    @given(data=st.binary(max_size=60), start=st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0"]))
    def test_nonsense_has_no_size(self, tmp_path_factory, data, start):
        path = tmp_path_factory.mktemp("x") / "a.tif"
        path.write_bytes(start + data)
        size = quick_size(path)
        assert size is None or len(size) == 2


def test_boundary_iou_of_a_scene_does_not_depend_on_the_windows(tmp_path):
    """Of four windows, whose seams are no outlines; a task that looks at one pixel at a time."""
    whole, scenes = both(tmp_path, size=SEVERAL)
    task = SimpleNamespace(
        classes=("a", "b", "c"), recipe=SimpleNamespace(colors=()), model=torch.nn.Linear(1, 1),
        normalize=Normalize(Scaling.identity(3)),
        predict=lambda images: [Semantic((images[0][0] > 90).long() + (images[0][1] > 180), images[0][0])],
    )  # fmt: skip
    one, other = (SemanticDataset(dataset, "train") for dataset in (whole, scenes))
    expected, found = evaluate_pixels(task, one), evaluate_pixels(task, iter(list(other)), source=other)
    assert (len(one), len(other)) == (1, 4)
    assert found.confusion.to_dict() == expected.confusion.to_dict()
    assert found.boundary.to_dict() == expected.boundary.to_dict()
    assert evaluate_pixels(task, other).boundary.to_dict() == expected.boundary.to_dict()
