"""The scaling of the bands: what is chosen when, and that the numbers are right."""

from pathlib import Path

import numpy as np
import pytest

from made_data import YAML, make_dataset, picture, write_png, write_tiff
from shared import needs_shared
from torchfpn.data.config import read_dataset
from torchfpn.data.scaling import find_scaling
from torchfpn.errors import ConfigError, DataError
from torchfpn.io.images import read_image
from torchfpn.recipe import Scaling
from torchfpn.report.images import to_rgb

CONFIGS = Path(__file__).parents[2] / "configs" / "datasets"


def multiband(tmp_path, text="", dtype="int16"):
    make_dataset(tmp_path, train=3, val=0, yaml=YAML + text)
    rng = np.random.default_rng(0)
    arrays = []
    for i in range(3):
        (tmp_path / "train" / "images" / f"a{i}.png").unlink()
        array = np.stack([rng.normal(500, 30, (24, 32)), rng.normal(-3, 900, (24, 32)), np.full((24, 32), 5)])
        arrays.append(array.astype(dtype))
        arrays[-1][:, :2, :] = -9999
        write_tiff(tmp_path / "train" / "images" / f"a{i}.tif", arrays[-1], nodata=-9999)
    return read_dataset(tmp_path), np.concatenate([a[:, 2:].reshape(3, -1) for a in arrays], 1).astype("float64")


def test_bytes_of_a_pretrained_backbone_get_the_imagenet_constants(tmp_path):
    dataset = read_dataset(make_dataset(tmp_path))
    assert find_scaling(dataset, pretrained=True) == (Scaling.imagenet(), "uint8")
    assert find_scaling(dataset, pretrained=False)[0].method == "mean-std"
    assert find_scaling(dataset, method="imagenet")[0] == Scaling.imagenet()


def test_imagenets_constants_follow_the_names_of_the_bands_and_are_of_bytes(tmp_path):
    plain = Scaling.imagenet()
    make_dataset(tmp_path, yaml=YAML + "bands: [red, green, blue]\nuse_bands: [blue, green, red]\n")
    found, _ = find_scaling(read_dataset(tmp_path), method="imagenet")
    assert (found.offset, found.scale) == (plain.offset[::-1], plain.scale[::-1])
    (tmp_path / "dataset.yaml").write_text(YAML + "bands: [nir, red, green]\n")
    with pytest.raises(
        ConfigError, match="scaling: imagenet for uint8 nir, red, green; expected uint8 red, green, blue"
    ):
        find_scaling(read_dataset(tmp_path), method="imagenet")
    dataset, _ = multiband(tmp_path / "deep", dtype="int16")
    with pytest.raises(ConfigError, match="scaling: imagenet for int16 band1"):
        find_scaling(dataset, method="imagenet")


def test_a_backbone_of_other_constants_brings_its_own(tmp_path):
    half = Scaling((127.5,) * 3, (127.5,) * 3, "pretrained")
    assert find_scaling(read_dataset(make_dataset(tmp_path)), pretrained=half) == (half, "uint8")


def test_other_bands_get_their_own_mean_and_deviation(tmp_path):
    dataset, values = multiband(tmp_path)
    scaling, dtype = find_scaling(dataset, pretrained=True)
    assert (dtype, scaling.method) == ("int16", "mean-std")
    np.testing.assert_allclose(scaling.offset, values.mean(1), rtol=1e-12)
    np.testing.assert_allclose(scaling.scale[:2], values.std(1)[:2], rtol=1e-12)
    assert scaling.scale[2] == 1  # constant


def test_percentiles(tmp_path):
    dataset, values = multiband(tmp_path)
    scaling, _ = find_scaling(dataset, method="percentile")
    low, high = np.percentile(values, [2, 98], axis=1)
    np.testing.assert_allclose(scaling.offset, (low + high) / 2)
    np.testing.assert_allclose(scaling.scale[:2], ((high - low) / 4)[:2])
    assert scaling.scale[2] == 1


def bytes_of(tmp_path, images):
    """A dataset of grey images [H, W] that are given."""
    make_dataset(tmp_path, train=len(images), val=0)
    for i, image in enumerate(images):
        write_png(tmp_path / "train" / "images" / f"a{i}.png", image)
        write_png(tmp_path / "train" / "labels" / f"a{i}.png", np.zeros(image.shape, "uint8"))
    return read_dataset(tmp_path)


def test_percentiles_of_images_with_a_pattern_of_columns(tmp_path):
    """Every second column is dark, and every second pixel was looked at."""
    image = np.full((1030, 2048), 209, "uint8")
    image[:, ::2] = np.linspace(0, 109, 1024).astype("uint8")
    scaling, _ = find_scaling(bytes_of(tmp_path, [image]), method="percentile")
    low, high = np.percentile(image, [2, 98])
    assert scaling.offset[0] == pytest.approx((low + high) / 2, abs=0.6)
    again, _ = find_scaling(read_dataset(tmp_path), method="percentile")
    assert again == scaling


def test_percentiles_weigh_images_by_their_pixels(tmp_path):
    """A small bright image is 1.5 % of the pixels: it does not reach the 98th percentile."""
    dataset = bytes_of(tmp_path, [np.full((2048, 2048), 100, "uint8"), np.full((250, 250), 244, "uint8")])
    assert find_scaling(dataset, method="percentile")[0].offset == (100,)


def test_pictures_with_a_pattern_of_columns_are_stretched_alike(tmp_path):
    image = np.full((1, 1030, 2048), 2090, "uint16")
    image[:, :, ::2] = 0
    assert to_rgb(image)[0, :2, 0].tolist() == [0, 255]


@pytest.mark.parametrize("method", ["mean-std", "percentile"])
def test_images_of_one_and_of_three_bands_have_no_scaling_in_common(tmp_path, method):
    dataset = bytes_of(tmp_path, [np.zeros((8, 8), "uint8"), np.zeros((8, 8), "uint8")])
    write_png(tmp_path / "train" / "images" / "a1.png", np.zeros((8, 8, 3), "uint8"))
    with pytest.raises(DataError, match=r"a1\.png: 3 bands; expected as many as the other images of this split: 1"):
        find_scaling(dataset, method=method)


def test_the_yaml_has_the_word(tmp_path):
    dataset, _ = multiband(tmp_path, "scaling: percentile\n")
    assert find_scaling(dataset)[0].method == "percentile"
    dataset, _ = multiband(tmp_path, "scaling: {offset: [1, 2, 3], scale: [4, 5, 6]}\n")
    assert find_scaling(dataset, pretrained=True) == (Scaling((1, 2, 3), (4, 5, 6), "given"), "int16")
    assert find_scaling(dataset, method="mean-std")[0].method == "mean-std"


def test_numbers_that_do_not_fit_the_bands(tmp_path):
    dataset, _ = multiband(tmp_path, "scaling: {offset: [1, 2], scale: [4, 5]}\n")
    with pytest.raises(ConfigError, match=r"2 offsets .* for 3 bands"):
        find_scaling(dataset)
    dataset, _ = multiband(tmp_path, "use_bands: [1, 2]\n")
    with pytest.raises(ConfigError, match=r"3 offsets \(imagenet\) for 2 bands"):
        find_scaling(dataset, method="imagenet")


@pytest.mark.parametrize("method", ["mean-std", "percentile", "imagenet"])
def test_bands_that_files_name_in_another_order_are_refused(tmp_path, method):
    dataset = read_dataset(make_dataset(tmp_path))
    for i, path in enumerate(sorted(tmp_path.glob("train/images/*.png"))):
        names = ("B2", "B3", "B4") if i < 2 else ("B04_10m", "B03_10m", "B02_10m")
        write_tiff(path.with_suffix(".tif"), np.ones((3, 24, 32), "uint8"), descriptions=names)
        path.unlink()
    with pytest.raises(DataError, match=r"a2.tif: names its bands B04_10m, .*the order of a0.tif: B2, B3, B4"):
        find_scaling(dataset, method=method)


def test_several_pixel_types(tmp_path):
    dataset = read_dataset(make_dataset(tmp_path))
    (tmp_path / "train" / "images" / "a2.png").unlink()
    write_tiff(tmp_path / "train" / "images" / "a2.tif", picture(2).transpose(2, 0, 1).astype("uint16"))
    for method in ("auto", "percentile", "imagenet"):
        with pytest.raises(DataError, match=r"a2\.tif: pixels of type uint16, others of this split are uint8"):
            find_scaling(dataset, method=method, pretrained=True)


@pytest.mark.parametrize("method", ["mean-std", "percentile"])
@pytest.mark.parametrize(("value", "dtype"), [(3e38, "float32"), (-1e300, "float64")])
def test_values_beyond_what_models_see_do_not_count(tmp_path, method, value, dtype):
    """They are a twentieth of an image, so that percentiles meet them as well."""
    make_dataset(tmp_path, train=1, val=0, yaml=YAML.split("  val")[0])
    (tmp_path / "train" / "images" / "a0.png").unlink()
    array = np.random.default_rng(0).normal(7, 2, (2, 20, 20)).astype(dtype)
    array[1, 4] = value
    write_tiff(tmp_path / "train" / "images" / "a0.tif", array)
    scaling, _ = find_scaling(read_dataset(tmp_path), method=method)
    seen = np.delete(array, 4, axis=1).reshape(2, -1).astype("float64")
    low, high = np.percentile(seen, [2, 98], axis=1)
    is_mean = method == "mean-std"
    np.testing.assert_allclose(scaling.offset, seen.mean(1) if is_mean else (low + high) / 2, rtol=1e-9)
    np.testing.assert_allclose(scaling.scale, seen.std(1) if is_mean else (high - low) / 4, rtol=1e-9)
    array[0] = value
    write_tiff(tmp_path / "train" / "images" / "a0.tif", array)
    with pytest.raises(DataError, match="no valid pixel"):
        find_scaling(read_dataset(tmp_path), method=method)


def test_nothing_valid(tmp_path):
    dataset = read_dataset(make_dataset(tmp_path, train=1, val=0))
    image = np.zeros((24, 32, 4), "uint8")
    write_png(tmp_path / "train" / "images" / "a0.png", image)
    for method in ("mean-std", "percentile"):
        with pytest.raises(DataError, match="no valid pixel"):
            find_scaling(dataset, method=method)
    with pytest.raises(ConfigError, match='did you mean "mean-std"'):
        find_scaling(dataset, method="meanstd")


@needs_shared
def test_burned_area_against_numpy_over_everything():
    dataset = read_dataset(CONFIGS / "burned-area.yaml")
    scaling, dtype = find_scaling(dataset)
    pixels = np.concatenate([read_image(pair.image).array.reshape(5, -1) for pair in dataset.pairs("train")], 1)
    pixels = pixels[:, np.isfinite(pixels).all(0)].astype("float64")
    np.testing.assert_allclose(scaling.offset, pixels.mean(1), rtol=1e-10)
    np.testing.assert_allclose(scaling.scale, pixels.std(1), rtol=1e-10)
    assert dtype == "float32"
