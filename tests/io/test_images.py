"""Reading images: every format, pixel type and band choice, and which pixels count as data."""

import subprocess
import sys

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp

from made_data import picture, write_png, write_tiff
from torchfpn.errors import DataError, RasterError
from torchfpn.io.bands import valid_pixels
from torchfpn.io.images import read_image

DTYPES = ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bands", [1, 2, 5])
def test_tiff_comes_back_in_its_own_type(tmp_path, dtype, bands):
    array = (np.random.default_rng(0).random((bands, 7, 9)) * 120 + 1).astype(dtype)
    read = read_image(write_tiff(tmp_path / "a.tif", array))
    assert read.dtype == dtype
    assert read.array.dtype == dtype
    np.testing.assert_array_equal(read.array, array)
    assert read.valid is None
    assert read.geo is None
    assert len(read.band_names) == bands


def test_bands_by_number_and_by_name_in_the_order_asked(tmp_path):
    array = np.arange(4 * 6).reshape(4, 2, 3).astype("int16")
    path = write_tiff(tmp_path / "a.tif", array, descriptions=("blue", "green", "red", "nir"))
    by_name = read_image(path, bands=["nir", "red"])
    assert by_name.band_names == ("nir", "red")
    np.testing.assert_array_equal(by_name.array, array[[3, 2]])
    np.testing.assert_array_equal(read_image(path, bands=[4, 3]).array, by_name.array)
    renamed = read_image(path, bands=["w"], names=["x", "y", "z", "w"])
    np.testing.assert_array_equal(renamed.array, array[[3]])


@pytest.mark.parametrize(
    ("bands", "said"),
    [([5], "has 4 bands, band 5 is wanted"), ([0], "band 0"), (["nri"], 'did you mean "nir"?')],
)
def test_bands_that_are_not_there(tmp_path, bands, said):
    array = np.ones((4, 2, 3), "int16")
    path = write_tiff(tmp_path / "a.tif", array, descriptions=("blue", "green", "red", "nir"))
    with pytest.raises(DataError, match=r"a\.tif") as caught:
        read_image(path, bands=bands)
    assert said in str(caught.value)


def test_names_of_another_number_of_bands(tmp_path):
    path = write_tiff(tmp_path / "a.tif", np.ones((4, 2, 3), "int16"))
    with pytest.raises(DataError, match=r"has 4 bands .*; expected 3 bands: r, g, b"):
        read_image(path, names=["r", "g", "b"])


def test_geotiff_carries_its_place(tmp_path):
    transform = rasterio.Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5.5e6)
    path = write_tiff(tmp_path / "a.tif", np.ones((1, 4, 5), "uint8"), crs="EPSG:32633", transform=transform)
    geo = read_image(path).geo
    assert geo.transform == tuple(transform)[:6]
    assert rasterio.crs.CRS.from_wkt(geo.crs) == rasterio.crs.CRS.from_epsg(32633)


class TestNodata:
    """NaN, declared values, mask bands and alpha."""

    def test_nan_or_infinity_in_any_band(self, tmp_path):
        array = np.ones((3, 4, 4), "float32")
        array[1, 0, 0], array[2, 1, 1], array[0, 2, 2] = np.nan, np.inf, -np.inf
        valid = read_image(write_tiff(tmp_path / "a.tif", array)).valid
        assert sorted(map(tuple, np.argwhere(~valid).tolist())) == [(0, 0), (1, 1), (2, 2)]

    def test_only_selected_bands_count(self, tmp_path):
        array = np.ones((2, 4, 4), "float32")
        array[1, 0, 0] = np.nan
        assert read_image(write_tiff(tmp_path / "a.tif", array), bands=[1]).valid is None

    @pytest.mark.parametrize(("dtype", "nodata"), [("int16", -9999), ("float32", -3.4028234663852886e38)])
    def test_signed_value_in_any_band(self, tmp_path, dtype, nodata):
        array = np.ones((2, 3, 3), dtype)
        array[0, 0, 0] = nodata
        read = read_image(write_tiff(tmp_path / "a.tif", array, nodata=nodata))
        assert np.argwhere(~read.valid).tolist() == [[0, 0]]
        assert read.nodata == nodata

    def test_unsigned_value_in_all_bands(self, tmp_path):
        array = np.ones((3, 3, 3), "uint8")
        array[0, 0, 0] = 0  # a dark red
        array[:, 1, 2] = 0
        read = read_image(write_tiff(tmp_path / "a.tif", array, nodata=0))
        assert np.argwhere(~read.valid).tolist() == [[1, 2]]

    def test_value_of_the_caller_only_where_the_file_is_silent(self, tmp_path):
        array = np.array([[[-1, -9999, 3]]], "int16")
        silent = read_image(write_tiff(tmp_path / "a.tif", array), nodata=-9999)
        assert silent.valid.tolist() == [[True, False, True]]
        told = read_image(write_tiff(tmp_path / "b.tif", array, nodata=-1), nodata=-9999)
        assert told.valid.tolist() == [[False, True, True]]

    def test_mask_band_of_the_file(self, tmp_path):
        mask = np.full((3, 3), 255, "uint8")
        mask[2, 0] = 0
        read = read_image(write_tiff(tmp_path / "a.tif", np.ones((3, 3, 3), "uint16"), mask=mask))
        assert np.argwhere(~read.valid).tolist() == [[2, 0]]

    @given(st.data())
    @settings(max_examples=30, deadline=None)
    def test_rule_against_a_plain_loop(self, data):
        dtype = data.draw(st.sampled_from(["uint8", "int16", "float32"]))
        values = [0, 1, 7] if dtype == "uint8" else [-5, 0, 7] + ([np.nan, np.inf] if dtype == "float32" else [])
        bands = data.draw(st.integers(1, 3))
        cells = data.draw(st.lists(st.sampled_from(values), min_size=bands * 6, max_size=bands * 6))
        array = np.array(cells, dtype=dtype).reshape(bands, 2, 3)
        nodata = data.draw(st.sampled_from([None, values[0], -9999.0, 0.5, np.inf, np.nan]))
        found = valid_pixels(array, [nodata] * bands)
        for (row, column), pixel in (((r, c), array[:, r, c]) for r in range(2) for c in range(3)):
            finite = all(np.isfinite(float(v)) for v in pixel)
            said = [nodata is not None and v == nodata for v in pixel]
            missing = not finite or (all(said) if dtype == "uint8" else any(said))
            assert (found is None or found[row, column]) == (not missing)


class TestAlpha:
    """GDAL takes the fourth band of any 8-bit file for alpha unless it is told otherwise."""

    ALPHA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)

    def test_masks_and_is_no_band(self, tmp_path):
        array = np.full((4, 3, 3), 9, "uint8")
        array[3] = 255
        array[3, 0, 1] = 0
        read = read_image(write_tiff(tmp_path / "a.tif", array, colorinterp=self.ALPHA))
        assert read.band_names == ("red", "green", "blue")
        assert read.alpha == 4
        assert np.argwhere(~read.valid).tolist() == [[0, 1]]

    @pytest.mark.parametrize(
        "options", [{"names": ["r", "g", "b", "nir"]}, {"bands": [1, 4]}, {"bands": [4, 3, 2]}], ids=str
    )
    def test_is_data_for_who_names_or_chooses_it(self, tmp_path, options):
        array = picture(1, (3, 3), 4).transpose(2, 0, 1)
        array[3, 0, 0] = 0
        read = read_image(write_tiff(tmp_path / "a.tif", array), **options)
        assert read.valid is None
        np.testing.assert_array_equal(read.array, array[[n - 1 for n in options.get("bands", (1, 2, 3, 4))]])

    def test_is_data_if_the_file_describes_it(self, tmp_path):
        array = picture(1, (3, 3), 4).transpose(2, 0, 1)
        array[3, 0, 0] = 0
        path = write_tiff(tmp_path / "a.tif", array, descriptions=("red", "green", "blue", "nir"))
        assert read_image(path).band_names == ("red", "green", "blue", "nir")
        assert read_image(path).valid is None


class TestOpening:
    """What is refused before a pixel is read."""

    @pytest.mark.parametrize("kind", ["png", "tif"])
    def test_more_pixels_than_allowed(self, tmp_path, kind):
        write_png(tmp_path / "a.png", picture(0, (20, 30)))
        write_tiff(tmp_path / "a.tif", np.ones((1, 20, 30), "uint8"))
        path = tmp_path / f"a.{kind}"
        with pytest.raises(DataError, match=r"30 x 20 = 600 pixels; expected at most 599; .*--max-pixels"):
            read_image(path, max_pixels=599)
        assert read_image(path, max_pixels=600).size == (20, 30)

    def test_more_bytes_than_allowed(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", np.ones((30, 10, 10), "float32"))
        with pytest.raises(DataError, match="30 bands of 10 x 10"):
            read_image(path, max_pixels=100)
        assert read_image(path, bands=[1, 2, 3, 4], max_pixels=100).array.shape == (4, 10, 10)

    def test_complex_numbers(self, tmp_path):
        with pytest.raises(DataError, match="pixels of type complex64"):
            read_image(write_tiff(tmp_path / "a.tif", np.ones((1, 2, 2), "complex64")))

    def test_killed_writer_is_told_from_zeros(self, tmp_path):
        zeros = write_tiff(tmp_path / "zeros.tif", np.zeros((1, 64, 64), "uint8"), compress="deflate")
        assert not read_image(zeros).array.any()
        with rasterio.open(
            tmp_path / "killed.tif",
            "w",
            driver="GTiff",
            count=1,
            height=64,
            width=64,
            dtype="uint8",
            sparse_ok=True,
            transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
        ):
            pass  # the header, and no block
        with pytest.raises(DataError, match=r"killed\.tif: no pixel was ever written"):
            read_image(tmp_path / "killed.tif")

    def test_without_rasterio(self, tmp_path, monkeypatch):
        path = write_tiff(tmp_path / "a.tif", np.ones((1, 2, 2), "uint8"))
        png = write_png(tmp_path / "a.png", picture(0))
        monkeypatch.setitem(sys.modules, "rasterio", None)
        assert read_image(png).dtype == "uint8"
        with pytest.raises(RasterError, match=r"pip install torchfpn\[raster\]"):
            read_image(path)

    def test_big_pictures_need_no_change_of_pillow(self, tmp_path, monkeypatch):
        """A picture above Pillow's own limit and below ours is read, and Pillow's limit stays."""
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert read_image(write_png(tmp_path / "a.png", picture(0, (30, 30)))).size == (30, 30)
        assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_read_without_georeference_and_without_warnings(tmp_path):
    """Opening such files in threads lets no warning out, however the threads meet. In a process of its own."""
    write_tiff(tmp_path / "a.tif", np.ones((2, 50, 50), "uint8"))
    code = (
        "import warnings\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from torchfpn.io.images import read_image\n"
        f"read = lambda _: read_image({str(tmp_path / 'a.tif')!r})\n"
        "read(0)\n"
        "warnings.simplefilter('error'); before = list(warnings.filters)\n"
        "list(ThreadPoolExecutor(8).map(read, range(200)))\n"
        "assert warnings.filters == before, warnings.filters"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
