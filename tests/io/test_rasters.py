"""Label rasters: the grid of the image exactly, values, colours and names kept; VRTs only when asked for."""

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from made_data import write_tiff
from torchfpn.errors import RasterError
from torchfpn.geo.georef import Geo
from torchfpn.io.geotiff import Layout, write_cog, write_label_raster
from torchfpn.io.images import read_image
from torchfpn.io.labels import read_labels, read_legend
from torchfpn.io.rasters import open_raster

UTM = rasterio.crs.CRS.from_epsg(32633).to_wkt()
GRIDS = {
    "north-up": (10.0, 0.0, 499980.0, 0.0, -10.0, 5600040.0),
    "south-up": (10.0, 0.0, 499980.0, 0.0, 10.0, 5600040.0),
    "rotated": (7.1, 2.3, 499980.25, 2.4, -7.2, 5600040.5),
    "mirrored, not square": (-0.1, 0.0, 14.3, 0.0, -0.3, 51.2),
    "degrees": (0.0001796630568239043, 0.0, -118.84100354508068, 0.0, -0.0001796630568239043, 35.47177562402754),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_grid_is_kept_exactly(tmp_path, grid):
    labels = np.array([[1, 2, 0], [0, 2, 1]], "uint8")
    write_label_raster(tmp_path / "a.tif", labels, geo=Geo(UTM, grid))
    read = read_image(tmp_path / "a.tif")
    assert read.geo.transform == grid
    assert rasterio.crs.CRS.from_wkt(read.geo.crs) == rasterio.crs.CRS.from_wkt(UTM)
    again = tmp_path / "b.tif"
    write_label_raster(again, labels, geo=read.geo)
    assert read_image(again).geo == read.geo


finite = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-3)


@given(st.tuples(finite, finite, finite, finite, finite, finite))
@settings(max_examples=25, deadline=None)
def test_any_grid_is_kept(tmp_path_factory, grid):
    if abs(grid[0] * grid[4] - grid[1] * grid[3]) < 1e-3:
        return
    path = tmp_path_factory.mktemp("grids") / "a.tif"
    write_label_raster(path, np.ones((2, 2), "uint8"), geo=Geo(UTM, grid))
    assert Geo(None, grid).distance(read_image(path).geo, 2, 2) < 1e-6
    np.testing.assert_allclose(read_image(path).geo.transform, grid, rtol=1e-12)


def test_colours_names_and_nodata(tmp_path):
    labels = np.array([[1, 4], [255, 1]], "int64")
    write_label_raster(
        tmp_path / "a.tif",
        labels,
        colors={1: (10, 20, 30), 4: (40, 50, 60)},
        names={1: "forêt", 4: "water"},
        nodata=255,
    )
    with open_raster(tmp_path / "a.tif") as source:
        assert source.profile["compress"] == "deflate"
        assert source.dtypes == ("uint8",)
        assert source.nodata == 255
        assert source.colormap(1)[4][:3] == (40, 50, 60)
        assert source.tags(1)["CLASS_1"] == "forêt"
        np.testing.assert_array_equal(source.read(1), labels)
    names, colors = read_legend(tmp_path / "a.tif")
    assert names == {1: "forêt", 4: "water"}
    assert colors[1] == (10, 20, 30)
    assert read_labels(tmp_path / "a.tif").nodata == 255


def test_16_bits_only_where_needed_and_tiles_where_large(tmp_path):
    write_label_raster(tmp_path / "a.tif", np.array([[0, 300]]), names=["x"])
    write_label_raster(tmp_path / "b.tif", np.zeros((600, 700), "uint8"), nodata=0)
    with open_raster(tmp_path / "a.tif") as small, open_raster(tmp_path / "b.tif") as large:
        assert small.dtypes == ("uint16",)
        assert large.profile["tiled"]
        assert large.block_shapes == [(512, 512)]


@pytest.mark.parametrize("labels", [np.ones((2, 2)), np.array([[-1]]), np.array([[70000]]), np.ones((1, 2, 2), int)])
def test_what_is_no_label_map_leaves_the_old_file(tmp_path, labels):
    write_label_raster(tmp_path / "a.tif", np.ones((2, 2), "uint8"))
    before = (tmp_path / "a.tif").read_bytes()
    with pytest.raises(RasterError, match=r"0\.\.65535"):
        write_label_raster(tmp_path / "a.tif", labels)
    assert (tmp_path / "a.tif").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


VRT = (
    '<VRTDataset rasterXSize="4" rasterYSize="3"><VRTRasterBand dataType="Byte" band="1">{}</VRTRasterBand>'
    "</VRTDataset>"
)
SOURCE = '<SimpleSource><SourceFilename relativeToVRT="{}">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'


class TestVrt:
    """A VRT can read any file; what passes is a mosaic of images below the root."""

    @pytest.fixture
    def folder(self, tmp_path):
        root = tmp_path / "root"
        root.mkdir()
        write_tiff(root / "a.tif", np.arange(12, dtype="uint8").reshape(1, 3, 4))
        write_tiff(tmp_path / "out.tif", np.ones((1, 3, 4), "uint8"))
        return root

    def test_plain_mosaic_when_allowed(self, folder):
        (folder / "a.vrt").write_text(VRT.format(SOURCE.format(1, "a.tif")))
        assert read_image(folder / "a.vrt", allow_vrt=True).array[0, 2, 3] == 11
        with pytest.raises(RasterError, match="--allow-vrt"):
            read_image(folder / "a.vrt")

    @pytest.mark.parametrize(
        "inside",
        [
            SOURCE.format(1, "../out.tif"),
            SOURCE.format(0, "/etc/passwd"),
            SOURCE.format(0, "a.tif"),
            SOURCE.format(0, "/vsicurl/example.org/a.tif"),
            SOURCE.format(1, "b.vrt"),
            SOURCE.format(1, "notes.txt"),
            "<PixelFunctionType>mean</PixelFunctionType>" + SOURCE.format(1, "a.tif"),
            SOURCE.format(1, "a.tif").replace("SimpleSource", "KernelFilteredSource"),
        ],
        ids=["above", "passwd", "unrooted", "network", "nested", "text", "function", "other source"],
    )
    def test_the_rest_is_refused_even_when_allowed(self, folder, inside):
        (folder / "b.vrt").write_text(VRT.format(SOURCE.format(1, "a.tif")))
        (folder / "notes.txt").write_text("secret")
        (folder / "a.vrt").write_text(VRT.format(inside))
        with pytest.raises(Exception, match=r"a\.vrt|notes\.txt") as caught:
            read_image(folder / "a.vrt", allow_vrt=True)
        assert "secret" not in str(caught.value)

    def test_entities_are_refused(self, folder):
        bomb = '<!DOCTYPE a [<!ENTITY x "y">]>' + VRT.format(SOURCE.format(1, "a.tif"))
        (folder / "a.vrt").write_text(bomb)
        with pytest.raises(RasterError, match="document type"):
            read_image(folder / "a.vrt", allow_vrt=True)


def test_a_raster_too_large_for_memory_is_written_to_the_disk(tmp_path):
    side, row, geo = 5800, (np.arange(5800) % 256).astype(np.uint8)[None, None], Geo(UTM, GRIDS["north-up"])
    write_cog(tmp_path / "a.tif", Layout(side, side, "uint8", ("class",), geo), [(side - 1, 0, row)])
    write_label_raster(tmp_path / "b.tif", np.broadcast_to(row[0], (side, side)), geo=geo)
    for name, band in (("a.tif", "class"), ("b.tif", None)):
        with rasterio.open(tmp_path / name) as source:
            assert source.descriptions == (band,)
            assert np.array_equal(source.read(1, window=((side - 1, side), (0, side))), row[0])
