"""Which pixels hold data: what GDAL says of the same file, in images and in labels, whole and by windows."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image

from made_data import labels, make_dataset, write_png, write_tiff
from made_maps import PLACE, write_map
from torchfpn.cli.main import main
from torchfpn.data.check import check
from torchfpn.data.config import read_dataset
from torchfpn.data.init import init_dataset
from torchfpn.data.reading import read_target
from torchfpn.data.scaling import find_scaling
from torchfpn.errors import DataError
from torchfpn.io.geotiff import write_label_raster
from torchfpn.io.images import read_image
from torchfpn.io.labels import read_labels
from torchfpn.io.rasters import open_raster
from torchfpn.io.select_bands import fitted
from torchfpn.recipe import Recipe, Scaling
from torchfpn.sources.labels import open_label_map
from torchfpn.sources.raster import grid_of, sampling, thumbnail

LOWEST, NEAR = -3.4028234663852886e38, -3.39999999999999996e38  # of float32; and what many programs declare instead

# dtype, what the file declares, what is in a band of one row
DECLARED = [
    ("float32", NEAR, [LOWEST, NEAR, 1.0, 2.0]),
    ("float32", LOWEST, [LOWEST, NEAR, 1.0, 2.0]),
    ("float32", 0.1, [0.1, 0.10000001, 0.1001, 0.0]),
    ("float64", 0.1, [0.1, np.nextafter(0.1, 1), 0.1001, 0.0]),
    ("float32", np.nan, [np.nan, 1.0, 2.0, 3.0]),
    ("float64", -9999.9, [-9999.9, -9999.0, 1.0, 2.0]),
    ("int32", -2147483648, [-2147483648, -1, 0, 1]),
    ("uint16", 65535, [65535, 0, 1, 2]),
    ("int8", -128, [-128, -1, 0, 1]),
]


def gdal_mask(path):
    with open_raster(path) as source:
        return source.dataset_mask() > 0


@pytest.mark.parametrize(("dtype", "nodata", "row"), DECLARED, ids=str)
def test_declared_values_are_what_gdal_masks(tmp_path, dtype, nodata, row):
    path = write_tiff(tmp_path / "a.tif", np.array([[row]], dtype), nodata=nodata)
    expected = gdal_mask(path)
    assert not expected.all()
    np.testing.assert_array_equal(read_image(path).valid, expected)
    np.testing.assert_array_equal(read_image(path, window=(0, 0, 1, 2)).valid, expected[:, :2])
    seen = thumbnail(path, sampling(grid_of(path), 100))
    np.testing.assert_array_equal(seen.valid, expected)
    silent = write_tiff(tmp_path / "b.tif", np.array([[row]], dtype))  # what the caller says means the same
    np.testing.assert_array_equal(read_image(silent, nodata=nodata).valid, expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_the_mask_beside_a_photograph_counts(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.arange(12, dtype="uint8").reshape(3, 4)).save(path)
    mask = np.where(np.arange(12).reshape(3, 4) % 5, 255, 0).astype("uint8")
    beside = write_tiff(tmp_path / "mask.tif", mask[None], **PLACE)
    with rasterio.open(beside, "r+") as sink:
        sink.update_tags(INTERNAL_MASK_FLAGS_1="2")
    beside.rename(tmp_path / f"a.{suffix}.msk")
    np.testing.assert_array_equal(gdal_mask(path), mask > 0)
    np.testing.assert_array_equal(read_image(path).valid, mask > 0)
    np.testing.assert_array_equal(thumbnail(path, sampling(grid_of(path), 100)).valid, mask > 0)
    if suffix != "jpg":
        np.testing.assert_array_equal(read_labels(path).valid, mask > 0)
        with open_label_map(path) as held:
            np.testing.assert_array_equal(held.read((0, 0, 3, 4)) == held.nodata, mask == 0)
    Image.fromarray(np.zeros((6, 8), "uint8")).save(path)  # of another size than its mask
    with pytest.raises(DataError, match=f"a.{suffix}"):
        read_image(path)


@pytest.mark.parametrize("beside", [False, True], ids=["inside", "side file"])
def test_the_mask_of_a_file_counts_and_its_nodata_value_beside_a_mask_does_not(tmp_path, beside):
    array = np.arange(12, dtype="int16").reshape(1, 3, 4)
    mask = np.where(np.arange(12).reshape(3, 4) % 5, 255, 0).astype("uint8")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=not beside):
        path = write_tiff(tmp_path / "a.tif", array, mask=mask, nodata=7)
    assert (tmp_path / "a.tif.msk").exists() == beside
    np.testing.assert_array_equal(gdal_mask(path), mask > 0)
    np.testing.assert_array_equal(read_image(path).valid, mask > 0)
    np.testing.assert_array_equal(read_image(path, window=(1, 1, 2, 3)).valid, mask[1:, 1:] > 0)
    assert read_labels(path).nodata is None
    np.testing.assert_array_equal(read_labels(path).valid, mask > 0)


def test_a_palette_shows_what_gdal_masks(tmp_path):
    path = tmp_path / "a.tif"
    write_label_raster(path, np.array([[0, 1, 2]]), nodata=2, colors=[(1, 2, 3), (4, 5, 6), (0, 0, 0)])
    expected = [[True, True, False]]
    assert read_image(path).valid.tolist() == thumbnail(path, sampling(grid_of(path), 9)).valid.tolist() == expected


@pytest.fixture
def floats(tmp_path):
    """A dataset of float32 images of 5 and 7, half of each the lowest float, which the tag calls -3.4e38."""
    make_dataset(tmp_path, train=1, val=1, size=(8, 6))
    array = np.full((1, 8, 6), 5, "float32")
    array[0, :, 3:], array[0, :4] = LOWEST, np.where(np.arange(6) < 3, 7, LOWEST)
    for split in ("train", "val"):
        (tmp_path / split / "images" / "a0.png").unlink()
        write_tiff(tmp_path / split / "images" / "a0.tif", array, nodata=NEAR)
    return tmp_path


def test_statistics_never_see_what_is_masked(floats):
    dataset = read_dataset(floats)
    report = check(dataset)
    (band,) = report.bands
    assert (band.low, band.high, band.mean) == (5, 7, 6)
    assert [split.missing for split in report.splits] == [0.5, 0.5]
    for method in ("mean-std", "percentile"):
        scaling, _ = find_scaling(dataset, method=method)
        assert scaling.offset == (6,)


def test_a_value_of_the_model_is_compared_as_in_training(floats):
    """Files that do not say what is missing, and a dataset.yaml that did."""
    recipe = Recipe("semantic", {}, ("a",), ("grey",), Scaling.identity(1), dtype="float32", nodata=NEAR)
    path = write_tiff(floats / "a.tif", np.array([[[LOWEST, 1]]], "float32"))
    assert fitted(read_image(path), recipe, file=path).isnan().tolist() == [[[True, False]]]


class TestLabels:
    """Nothing is labelled where GDAL's mask says so."""

    VALUES = np.array([[0, 1, 2], [1, 2, 0]])

    def target(self, folder, path):
        return read_target(read_dataset(make_dataset(folder / "set")), path)[0].tolist()

    @pytest.mark.parametrize("nodata", [np.nan, LOWEST, -9999.0, 1e20])
    def test_floats_with_a_nodata_value(self, tmp_path, nodata):
        values = self.VALUES.astype("float32")
        values[0, 0] = nodata
        path = write_tiff(tmp_path / "a.tif", values[None], nodata=nodata)
        assert self.target(tmp_path, path) == [[255, 1, 2], [1, 2, 0]]

    def test_the_mask_counts_a_nodata_value_that_is_a_class_does_not(self, tmp_path):
        mask = np.array([[255, 0, 255], [0, 255, 255]], "uint8")
        path = write_tiff(tmp_path / "a.tif", self.VALUES[None].astype("uint8"), mask=mask)
        assert self.target(tmp_path, path) == [[0, 255, 2], [255, 2, 0]]
        path = write_tiff(tmp_path / "b.tif", self.VALUES[None].astype("uint8"), nodata=0)
        assert self.target(tmp_path, path) == self.VALUES.tolist()

    def test_the_transparent_value_of_a_png_is_its_nodata_value(self, tmp_path):
        image = Image.fromarray(np.array([[0, 1, 2], [1, 2, 9]], "uint8"))
        image.putpalette([c for i in range(256) for c in (i, 0, 0)])
        image.save(tmp_path / "a.png", transparency=9)
        with open_raster(tmp_path / "a.png") as source:
            assert source.nodata == 9
        assert self.target(tmp_path, tmp_path / "a.png") == [[0, 1, 2], [1, 2, 255]]

    def test_numbered_objects_have_none_there(self, tmp_path):
        yaml = "task: instance\nclasses: [roof]\nsplits:\n  train: {images: train/images, labels: train/labels}\n"
        make_dataset(tmp_path, train=1, val=0, size=(4, 5), yaml=yaml)
        (tmp_path / "train/labels/a0.png").unlink()
        values = np.zeros((1, 4, 5), "uint16")
        values[0, 1, 1:3], values[0, 3] = 4, 65535
        write_tiff(tmp_path / "train/labels/a0.tif", values, nodata=65535)
        report = check(read_dataset(tmp_path))
        assert report.ok
        assert report.splits[0].objects.objects == (1,)

    @pytest.mark.parametrize("nodata", [np.nan, -9999.0])
    def test_maps_are_scored_without_them(self, tmp_path, capsys, nodata):
        one, other = (np.tile(self.VALUES, (4, 4)).astype("float32") for _ in range(2))
        one[2], other[5] = nodata, nodata
        paths = [
            write_map(tmp_path / f"{name}.tif", array[None], nodata=nodata)
            for name, array in zip("ab", (one, other), strict=True)
        ]
        with open_label_map(paths[0]) as held:
            read = held.read((2, 0, 2, 12))
            assert (read[0] == held.nodata).all()
            assert read[1].tolist() == one[3].tolist()
        assert main(["evaluate", *map(str, paths), "--json", str(tmp_path / "scores.json")]) == 0
        scores = json.loads((tmp_path / "scores.json").read_text())
        assert sum(map(sum, scores["confusion"])) == 12 * 6
        assert "100.00" in capsys.readouterr().out


class TestInit:
    """What --init writes passes the check."""

    @pytest.mark.parametrize(
        ("dtype", "missing", "nodata", "ignored"),
        [
            ("int16", -1, None, (-1,)),
            ("int16", -1, -1, (-1,)),
            ("float32", np.nan, np.nan, (255,)),
            ("float32", LOWEST, NEAR, (255,)),
        ],
    )
    def test_values_that_can_be_no_class(self, tmp_path, dtype, missing, nodata, ignored):
        for i in range(2):
            for kind in ("images", "labels"):
                (tmp_path / kind).mkdir(exist_ok=True)
            values = labels(i).astype(dtype)
            values[0, :5] = missing
            write_png(tmp_path / "images" / f"a{i}.png", np.zeros((24, 32, 3), "uint8") + i)
            write_tiff(tmp_path / "labels" / f"a{i}.tif", values[None], nodata=nodata)
        dataset = init_dataset(tmp_path)
        assert [c.id for c in dataset.classes] == [0, 1, 2]
        assert dataset.ignored == ignored
        report = check(dataset)
        assert report.ok, report.problems
        assert sum(split.counts.ignored for split in report.splits) == 10
