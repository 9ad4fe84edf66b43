"""Several files, or the tiles of a web map, read as one raster; and windows that are blended."""

import json

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.crs import CRS

from made_data import write_png
from made_scenes import HEIGHT, UTM, WIDTH, make_scene, make_task, read
from passes import interrupted_at
from shared import DATA, needs_shared
from torchfpn.cli.main import main
from torchfpn.errors import ConfigError, DataError, RasterError
from torchfpn.geo.georef import Geo
from torchfpn.geo.window import plan_blocks
from torchfpn.inference.tiling import Blender, Seams
from torchfpn.io.geotiff import write_bands
from torchfpn.sources.mosaic import open_mosaic, open_tiles
from torchfpn.sources.raster import ReadOptions


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with scene.tif and model.safetensors, as the current one."""
    monkeypatch.chdir(tmp_path)
    make_scene("scene.tif")
    make_task().save("model.safetensors")
    return tmp_path


def predict(out, *words):
    return main(["predict", "model.safetensors", *words, "--out", out])


def cut(name, row, column, height, width, geo=UTM):
    """A part of scene.tif as a file in its place."""
    array = read("scene.tif")[:, row : row + height, column : column + width]
    a, b, _, d, e, _ = geo.transform
    x, y = geo.world(column, row)
    write_bands(name, array, names=("red", "green", "blue"), geo=Geo(geo.crs, (a, b, x, d, e, y)))


def quarters(rows=60, columns=80):
    cut("a.tif", 0, 0, rows, columns)
    cut("b.tif", 0, columns, rows, WIDTH - columns)
    cut("c.tif", rows, 0, HEIGHT - rows, columns)
    cut("d.tif", rows, columns, HEIGHT - rows, WIDTH - columns)
    return ["a.tif", "b.tif", "c.tif", "d.tif"]


def test_a_file_whose_bands_are_in_another_order_is_read_by_name(tmp_path):
    array = np.arange(3 * 16, dtype=np.uint8).reshape(3, 4, 4)
    a, b, x, d, e, y = UTM.transform
    write_bands(tmp_path / "a.tif", array, names=("B2", "B3", "B4"), geo=UTM)
    write_bands(
        tmp_path / "b.tif", array[::-1], names=("B04", "B03", "B02"), geo=Geo(UTM.crs, (a, b, x + 4 * a, d, e, y))
    )
    write_bands(tmp_path / "c.tif", array, names=("B8", "B3", "B4"), geo=Geo(UTM.crs, (a, b, x + 4 * a, d, e, y)))
    read = open_mosaic(tmp_path, [tmp_path / "a.tif", tmp_path / "b.tif"], ReadOptions()).read((0, 0, 4, 8))
    np.testing.assert_array_equal(read.array, np.concatenate([array, array], axis=2))
    other = open_mosaic(tmp_path, [tmp_path / "a.tif", tmp_path / "c.tif"], ReadOptions())
    for look in (other.header, lambda: other.read((0, 0, 4, 8))):
        with pytest.raises(DataError, match=r"c\.tif: names its bands B8, B3, B4; expected B2, B3, B4 as in a\.tif"):
            look()
    chosen = open_mosaic(tmp_path, [tmp_path / "a.tif", tmp_path / "c.tif"], ReadOptions(bands=(1, 2, 3)))
    np.testing.assert_array_equal(chosen.read((0, 0, 4, 8)).array, read.array)


def test_files_side_by_side_are_predicted_as_the_raster_they_were_cut_from(folder):
    flags = ("--tile-size", "96", "--margin", "exact", "--polygons", "geojson", "--probabilities", "uint8")
    assert predict("one", "scene.tif", *flags) == 0
    assert predict("many", *quarters(), "--mosaic", "scene", *flags) == 0
    for name in ("scene.tif", "scene.probs.tif", "scene.geojson"):
        assert (folder / "many" / name).read_bytes() == (folder / "one" / name).read_bytes()


def test_of_files_that_overlap_the_first_lies_on_top_where_it_has_data(folder):
    below = np.full((1, 20, 20), 7, np.uint8)
    above = np.full((1, 10, 10), 9, np.uint8)
    above[0, :, :4] = 0
    write_bands("below.tif", below, names=("grey",), geo=UTM)
    write_bands(
        "above.tif", above, names=("grey",), geo=Geo(UTM.crs, (0.5, 0, 500_002.5, 0, -0.5, 2_999_997.5)), nodata=0
    )
    mosaic = open_mosaic(folder / "m", [folder / "above.tif", folder / "below.tif"], ReadOptions())
    picture = mosaic.read((0, 0, mosaic.height, mosaic.width))
    wanted = below[0].copy()
    wanted[5:15, 9:15] = 9
    assert picture.size == (20, 20)
    assert picture.valid is None
    np.testing.assert_array_equal(picture.array[0], wanted)


def test_holes_between_files_are_no_data_and_blocks_in_them_are_not_computed(folder, monkeypatch, capsys):
    cut("a.tif", 0, 0, 64, 64)
    cut("d.tif", 60, 110, 70, 80)
    assert predict("out", "a.tif", "d.tif", "--mosaic", "both", "--tile-size", "64", "--polygons", "geojson") == 0
    labels = read("out/both.tif")[0]
    assert labels.shape == (HEIGHT, WIDTH)
    assert (labels[:64, :64] != 255).all()
    assert (labels[60:, 110:] != 255).all()
    assert (labels == 255).sum() == HEIGHT * WIDTH - 64 * 64 - 70 * 80
    assert f"{HEIGHT * WIDTH - 64 * 64 - 70 * 80:,} pixels without data" in capsys.readouterr().out
    features = json.loads((folder / "out/both.geojson").read_text())["features"]
    assert sum(f["properties"]["area"] for f in features) == pytest.approx((64 * 64 + 70 * 80) / 4, rel=3e-3)


@pytest.mark.parametrize(
    "transform", [(0.4, 0.3, 5e5, 0.3, -0.4, 3e6), (0.5, 0, 5e5, 0, 0.5, 3e6), (0.5, 0, 5e5, 0, -2, 3e6)]
)
def test_fault_12_turned_and_south_up_files_find_their_places(folder, transform):
    geo = Geo(UTM.crs, transform)
    make_scene("scene.tif", geo=geo, height=200, width=160)
    cut("b.tif", 100, 50, 60, 70, geo)
    cut("a.tif", 20, 90, 90, 60, geo)
    mosaic = open_mosaic(folder / "m", [folder / "b.tif", folder / "a.tif"], ReadOptions())
    whole = read("scene.tif")[:, 20:160, 50:150]
    picture = mosaic.read((0, 0, 140, 100))
    assert np.abs(np.subtract(mosaic.geo.world(0, 0), geo.world(50, 20))).max() < 1e-6
    assert (picture.array[:, picture.valid] == whole[:, picture.valid]).all()
    assert picture.valid.sum() == 60 * 70 + 90 * 60 - 10 * 30


@pytest.mark.parametrize(
    ("geo", "told"),
    [
        (Geo(UTM.crs, (0.5, 0, 500_000.2, 0, -0.5, 3e6)), "on another grid"),
        (Geo(UTM.crs, (0.6, 0, 5e5, 0, -0.6, 3e6)), "on another grid"),
        (Geo(CRS.from_epsg(32644).to_wkt(), UTM.transform), "on another grid"),
        (None, "no georeference"),
    ],
)
def test_fault_13_files_on_other_grids_are_refused(folder, geo, told):
    make_scene("other.tif", geo=geo, height=20, width=20)
    with pytest.raises(RasterError, match=told) as caught:
        open_mosaic(folder / "m", [folder / "scene.tif", folder / "other.tif"], ReadOptions())
    assert caught.value.file == folder / "other.tif"


def test_fault_07_and_08_files_of_other_bands_or_types_are_named(folder, capsys):
    make_scene("four.tif", bands=4, height=20, width=20)
    make_scene("wide.tif", dtype=np.uint16, height=20, width=20)
    for other, told in (("four.tif", "has 4 bands"), ("wide.tif", "pixels of type uint16")):
        assert predict("out", "scene.tif", other, "--mosaic", "m", "--overwrite") == 2
        error = capsys.readouterr().err
        assert other in error
        assert told in error


def make_tiles(folder, picture, z=18, x=10, y=20, side=64, suffix="png"):
    """Tiles of a picture [H, W, 3], those at its end filled up with black."""
    height, width = picture.shape[:2]
    for row in range(-(-height // side)):
        for column in range(-(-width // side)):
            tile = np.zeros((side, side, 3), np.uint8)
            part = picture[row * side : (row + 1) * side, column * side : (column + 1) * side]
            tile[: part.shape[0], : part.shape[1]] = part
            path = folder / str(z) / str(x + column)
            path.mkdir(parents=True, exist_ok=True)
            write_png(path / f"{y + row}.{suffix}", tile)


def test_a_folder_of_tiles_becomes_a_folder_of_tiles_and_no_polygon_ends_at_their_borders(folder):
    make_scene("scene.tif", height=192, width=256)
    picture = read("scene.tif").transpose(1, 2, 0)
    make_tiles(folder / "town", picture)
    Image.fromarray(picture).save("whole.png")
    assert predict("one", "whole.png") == 0
    assert predict("out", "town", "--tile-size", "96", "--margin", "exact", "--polygons", "geojson") == 0
    whole = np.array(Image.open("one/whole.png"))
    for row in range(3):
        for column in range(4):
            tile = Image.open(f"out/town/18/{10 + column}/{20 + row}.png")
            expected = whole[row * 64 : (row + 1) * 64, column * 64 : (column + 1) * 64]
            np.testing.assert_array_equal(np.array(tile), expected)
            assert tile.getpalette()[:12] == Image.open("one/whole.png").getpalette()[:12]
    assert (
        predict("cog", "town", "--mosaic", "town", "--tile-size", "96", "--margin", "exact", "--polygons", "geojson")
        == 0
    )
    np.testing.assert_array_equal(read("cog/town.tif")[0], whole)
    assert (folder / "cog/town.geojson").read_bytes() == (folder / "out/town.geojson").read_bytes()
    with rasterio.open("cog/town.tif") as source:
        assert source.crs.to_epsg() == 3857
        assert source.transform.a == pytest.approx(2 * 20037508.342789244 / 2**18 / 64)


def test_tiles_far_apart_cost_nothing_between_them(folder, capsys):
    picture = read("scene.tif").transpose(1, 2, 0)[:64, :64]
    make_tiles(folder / "world", picture, x=3, y=5)
    make_tiles(folder / "world", picture, x=2**17, y=2**17)
    flags = ["--tile-size", "64", "--margin", "0", "--polygons", "geojson"]
    assert predict("out", "world", *flags) == 2
    assert "pixels; expected at most 1,048,576 pixels a side; if this is right" in capsys.readouterr().err
    assert predict("out", "world", *flags, "--max-side", str(2**23)) == 0
    one, other = (np.array(Image.open(f"out/world/18/{name}.png")) for name in ("3/5", f"{2**17}/{2**17}"))
    np.testing.assert_array_equal(one, other)
    features = json.loads((folder / "out/world.geojson").read_text())["features"]
    west = sum(min(point[0] for point in f["geometry"]["coordinates"][0]) < -179 for f in features)
    assert west > 0
    assert len(features) == 2 * west


def test_fault_17_tiles_of_two_zooms_twice_one_place_and_broken_ones_are_told(folder, capsys):
    picture = read("scene.tif").transpose(1, 2, 0)[:128, :64]
    make_tiles(folder / "town", picture)
    broken = folder / "town/18/10/21.png"
    broken.write_bytes(broken.read_bytes()[:300])
    assert predict("out", "town") == 2
    assert "21.png: damaged" in capsys.readouterr().err
    assert not (folder / "out/town").exists()
    make_tiles(folder / "town", picture, suffix="jpg")
    with pytest.raises(DataError, match="lies where"):
        open_tiles(folder / "town", ReadOptions())
    make_tiles(folder / "two", picture)
    make_tiles(folder / "two", picture, z=17)
    with pytest.raises(ConfigError, match="zooms 17, 18"):
        open_tiles(folder / "two", ReadOptions())
    assert predict("out", "two") == 2
    assert "zooms 17, 18" in capsys.readouterr().err
    assert predict("out", "town", "--probabilities", "uint8") == 2
    assert "--mosaic NAME" in capsys.readouterr().err


@needs_shared
def test_banepas_tiles_without_georeference_are_one_scene(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_task().save("model.safetensors")
    source = str(DATA / "buildings-banepa" / "unlabelled" / "images")
    flags = (
        "--mosaic",
        "town",
        "--tiles",
        "OAM-{x}-{y}-{z}",
        "--polygons",
        "geojson",
        "--margin",
        "32",
        "--min-pixels",
        "9",
    )
    assert predict("out", source, *flags) == 0
    with rasterio.open("out/town.tif") as labels:
        assert (labels.height, labels.width) == (2048, 2048)
        west, south, east, north = rasterio.warp.transform_bounds(labels.crs, "EPSG:4326", *labels.bounds)
    assert 85.5 < west < east < 85.6
    assert 27.6 < south < north < 27.7


def test_fault_06_a_file_of_one_huge_block_is_refused_before_it_is_decoded(folder, capsys):
    profile = {"driver": "GTiff", "count": 3, "height": 40_000, "width": 40_000, "dtype": "uint8", "sparse_ok": True}
    profile |= {
        "tiled": True,
        "blockxsize": 40_000,
        "blockysize": 40_000,
        "compress": "deflate",
        "interleave": "pixel",
        "crs": UTM.crs,
    }
    with rasterio.open("huge.tif", "w", **profile, transform=rasterio.Affine(*UTM.transform)):
        pass
    assert predict("out", "huge.tif") == 2
    error = capsys.readouterr().err
    assert "blocks of 40000 x 40000 pixels, 4.5 GiB each" in error
    assert "gdal_translate -of COG" in error


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_weights_of_all_windows_add_up_to_one(data):
    side = data.draw(st.integers(2, 12))
    margin = data.draw(st.integers(1, side // 2))
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    seams, total = Seams(side, margin, height, width), np.zeros((height, width))
    for block in plan_blocks(height, width, side=side, margin=margin):
        row, column, rows, columns = block.window
        weights, rim = seams.weights(block), seams.rim(block)
        total[row : row + rows, column : column + columns] += weights
        assert (weights[~rim] == 1).all()
        assert (weights[block.inside] > 0).all()
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_blending_mixes_what_windows_say_by_the_weights():
    seams = Seams(4, 2, 4, 8)
    blocks = plan_blocks(4, 8, side=4, margin=2)
    left, right = np.zeros((2, 4, 6)), np.zeros((2, 4, 6))
    left[0], right[1] = 1, 1  # sure of one class each
    arrays = []
    for block, shares in zip(blocks, (left, right), strict=True):
        labels = shares[:, *block.inside].argmax(0).astype(np.uint8)
        rim = shares[:, seams.rim(block)].astype(np.float16)
        arrays.append({"labels": labels, "rim": rim, "probabilities": shares[:, *block.inside].astype(np.float32)})
    blender = Blender(blocks, seams, arrays.__getitem__, values=np.array([0, 1], np.uint8), nodata=255)
    mixed = np.concatenate([blender.block(i)["probabilities"] for i in (0, 1)], axis=2)
    np.testing.assert_allclose(mixed[0, 0], [1, 1, 0.875, 0.625, 0.375, 0.125, 0, 0], atol=1e-6)
    np.testing.assert_allclose(mixed.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(blender.block(0)["labels"][0], [0, 0, 0, 0])


def test_blended_windows_show_no_seams_and_go_on_after_a_kill(folder):
    jumps = {}
    for flags in ((), ("--blend",)):
        out = "out" + "".join(flags)
        assert (
            predict(out, "scene.tif", "--tile-size", "64", "--margin", "32", "--probabilities", "float32", *flags) == 0
        )
        shares = read(f"{out}/scene.probs.tif")
        np.testing.assert_allclose(shares.sum(0), 1, atol=2e-3)
        np.testing.assert_array_equal(shares.argmax(0) == read(f"{out}/scene.tif")[0], True)
        steps = np.abs(np.diff(shares, axis=2)).mean((0, 1))
        jumps[flags] = steps[63::64].mean() / steps.mean()
    assert jumps[()] > 1.3
    assert jumps["--blend",] < 1.15

    flags = ("--tile-size", "64", "--margin", "32", "--probabilities", "float32", "--blend")
    with interrupted_at(2):
        assert predict("killed", "scene.tif", *flags) == 130
    assert list((folder / "killed").glob(".fpn-scene.tif.blocks/*.block"))  # something is done
    assert not (folder / "killed/scene.tif").exists()
    assert predict("killed", "scene.tif", *flags, "--resume") == 0
    for name in ("scene.tif", "scene.probs.tif"):
        assert (folder / "killed" / name).read_bytes() == (folder / "out--blend" / name).read_bytes()


def test_blending_needs_a_margin_of_at_most_half_a_block(folder, capsys):
    for margin in ("0", "64"):
        assert predict("out", "scene.tif", "--tile-size", "64", "--margin", margin, "--blend") == 2
        assert "1 to 32, half a tile" in capsys.readouterr().err


def test_missing_pixels_stay_missing_when_windows_are_blended(folder):
    array = read("scene.tif").astype(np.float32)
    array[:, 60:70, 20:200] = np.nan
    write_bands("holes.tif", array, names=("red", "green", "blue"), geo=UTM)
    flags = ("--tile-size", "64", "--margin", "32", "--blend", "--accept-dtype", "--probabilities", "float32")
    assert predict("out", "holes.tif", *flags) == 0
    np.testing.assert_array_equal(read("out/holes.tif")[0] == 255, np.isnan(array[0]))
    np.testing.assert_array_equal(np.isnan(read("out/holes.probs.tif")[0]), np.isnan(array[0]))


def test_windows_in_batches_give_the_same_map(folder):
    assert predict("one", "scene.tif", "--tile-size", "64", "--probabilities", "float32") == 0
    assert predict("many", "scene.tif", "--tile-size", "64", "--probabilities", "float32", "--batch-size", "3") == 0
    np.testing.assert_array_equal(read("many/scene.tif"), read("one/scene.tif"))
    np.testing.assert_allclose(read("many/scene.probs.tif"), read("one/scene.probs.tif"), atol=1e-5)
