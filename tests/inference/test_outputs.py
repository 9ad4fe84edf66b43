"""Labels and probabilities as files, in the values of the training data."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rasterio.crs import CRS

from torchfpn.geo.georef import Geo
from torchfpn.inference.outputs import file_values, nodata_value, write_labels, write_probabilities
from torchfpn.io.geotiff import write_bands
from torchfpn.io.images import read_image
from torchfpn.io.labels import read_legend
from torchfpn.recipe import Recipe, Scaling
from torchfpn.sources.labels import open_label_map

GEO = Geo(CRS.from_epsg(32633).to_wkt(), (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0))
COLORS = ((20, 160, 40), (200, 60, 30))


def recipe(ids=(1, 7), ignore=0, names=("grass", "Dach")):
    return Recipe("semantic", {}, names, ("red",), Scaling.identity(1), ids, COLORS, ignore_index=ignore)


def test_values_are_those_of_the_label_files():
    labels = np.array([[0, 1, 255]])
    assert file_values(labels, recipe()).tolist() == [[1, 7, 0]]
    assert file_values(labels, recipe(ignore=9)).tolist() == [[1, 7, 9]]


@pytest.mark.parametrize(
    ("ids", "ignore", "nodata"),
    [((1, 2), 0, 0), ((0, 1), 255, 255), ((0, 255), 255, 65535), ((0, 1), -1, 255), ((0, 255), 0, 65535)],
)
def test_no_data_has_a_value_that_is_no_class(ids, ignore, nodata):
    assert nodata_value(recipe(ids, ignore)) == nodata


def test_a_png_has_values_colours_and_transparency(tmp_path):
    write_labels(tmp_path / "a.png", file_values(np.array([[0, 1, 255]]), recipe()), recipe(), None)
    picture = Image.open(tmp_path / "a.png")
    assert picture.mode == "P"
    assert np.asarray(picture).tolist() == [[1, 7, 0]]
    assert np.asarray(picture.convert("RGBA")).tolist() == [[[20, 160, 40, 255], [200, 60, 30, 255], [0, 0, 0, 0]]]


def test_large_values_become_sixteen_bits(tmp_path):
    wide = recipe((300, 40_000))
    values = file_values(np.array([[0, 1, 255]]), wide)
    write_labels(tmp_path / "a.png", values, wide, None)
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[300, 40_000, 0]]
    write_labels(tmp_path / "a.tif", values, wide, GEO)
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.read(1).tolist() == [[300, 40_000, 0]]


def test_a_tiff_keeps_its_place_and_names_its_classes(tmp_path):
    write_labels(tmp_path / "a.tif", file_values(np.array([[0, 1, 255]]), recipe()), recipe(), GEO)
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.crs == CRS.from_epsg(32633)
        assert tuple(source.transform)[:6] == GEO.transform
        assert source.nodata == 0
        assert source.dtypes == ("uint8",)
        assert source.colormap(1)[7][:3] == (200, 60, 30)
        assert json.loads(source.tags()["CLASSES"]) == {"1": "grass", "7": "Dach"}


def test_probabilities_as_tiff_and_npz(tmp_path):
    shares = np.array([[[0.25, np.nan]], [[0.75, np.nan]]], np.float32)
    write_probabilities(tmp_path / "a.probs.tif", shares, recipe(), GEO)
    with rasterio.open(tmp_path / "a.probs.tif") as source:
        assert np.array_equal(source.read(), shares, equal_nan=True)
        assert source.descriptions == ("grass", "Dach")
        assert np.isnan(source.nodata)
        assert tuple(source.transform)[:6] == GEO.transform
    write_probabilities(tmp_path / "a.probs.npz", shares, recipe(), None)
    with np.load(tmp_path / "a.probs.npz") as held:
        assert np.array_equal(held["probabilities"], shares, equal_nan=True)
        assert held["classes"].tolist() == ["grass", "Dach"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 3, 4, 7])
def test_bands_come_back_as_they_were(tmp_path, dtype, bands):
    array = np.random.default_rng(0).integers(1, 120, (bands, 5, 6)).astype(dtype)
    names = ["red", "green", "blue", "nir", "swir", "x", "y"][:bands]
    write_bands(tmp_path / "a.tif", array, names=names, geo=GEO)
    picture = read_image(tmp_path / "a.tif")
    assert np.array_equal(picture.array, array)
    assert list(picture.band_names) == names
    assert picture.valid is None
    assert picture.alpha is None
    assert picture.geo.transform == GEO.transform
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("ids", [(1, 7), (300, 40_000)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_label_files_carry_their_classes(tmp_path, ids, suffix):
    """Names, colours and the value of no data, whatever the type of the file and of its pixels."""
    written = recipe(ids, ignore=9, names=("grass", 'Dach "süd"'))
    path = tmp_path / f"a{suffix}"
    write_labels(path, file_values(np.array([[0, 1, 255]]), written), written, None)
    names, colors = read_legend(path)
    assert names == dict(zip(ids, written.classes, strict=True))
    if suffix == ".png" or max(ids) < 256:
        assert {value: colors[value] for value in ids} == dict(zip(ids, COLORS, strict=True))
    with open_label_map(path) as held:
        assert (held.nodata, held.ignored) == (9, {9})


def test_text_chunks_of_other_programs_say_nothing(tmp_path):
    for number, text in enumerate(("[]", "{", "[[" * 5000, '{"x": 1}', '{"0": {"a": 1}}')):
        notes = PngInfo()
        for key in ("CLASSES", "COLORS", "IGNORE"):
            notes.add_text(key, text)
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path, pnginfo=notes)
        names, colors = read_legend(path)
        assert (set(names) <= {0}, colors) == (True, {})
        with open_label_map(path) as held:
            assert held.nodata is None
