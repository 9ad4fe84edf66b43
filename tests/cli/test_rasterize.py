"""fpn rasterize: polygons in, label files out, as a user runs it."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from PIL import Image

from made_data import declare_size, picture, write_png, write_tiff
from shared import DATA, needs_shared
from torchfpn.cli.main import main

FPN = Path(sys.executable).with_name("fpn")
WEST, NORTH = 500_000, 5_800_000
UTM = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}


def image(path, *, west=WEST, size=(40, 50)):
    """A GeoTIFF of half-metre pixels."""
    path.parent.mkdir(exist_ok=True, parents=True)
    place = rasterio.Affine(0.5, 0, west, 0, -0.5, NORTH)
    return write_tiff(path, np.ones((3, *size), np.uint8), crs="EPSG:32633", transform=place, photometric="RGB")


def labels(path, *boxes, crs=UTM, **properties):
    """GeoJSON of boxes (left, top, right, bottom), in metres from the corner of the first image."""
    path.parent.mkdir(exist_ok=True, parents=True)
    features = []
    for i, (left, top, right, bottom) in enumerate(boxes):
        shape = shapely.box(WEST + left, NORTH - bottom, WEST + right, NORTH - top)
        held = {key: values[i] for key, values in properties.items()}
        features.append({"type": "Feature", "properties": held, "geometry": shapely.geometry.mapping(shape)})
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    return path


def run(*words):
    return main(["rasterize", *map(str, words)])


def read(path):
    with rasterio.open(path) as source:
        return source.read(1)


def test_one_file_of_labels_for_a_folder_of_images(tmp_path, capsys):
    image(tmp_path / "in" / "a.tif")
    image(tmp_path / "in" / "b.tif", west=WEST + 25)
    held = labels(tmp_path / "roofs.geojson", (2, 2, 12, 7), (20, 10, 30, 20), (900, 0, 910, 9))
    out = tmp_path / "out"
    assert run(held, tmp_path / "in", "--out", out, "--classes", "background,building") == 0
    with rasterio.open(out / "a.tif") as mask, rasterio.open(tmp_path / "in" / "a.tif") as source:
        assert (mask.shape, mask.transform, mask.crs) == (source.shape, source.transform, source.crs)
        assert json.loads(mask.tags()["CLASSES"]) == {"0": "background", "1": "building"}
        assert mask.tags(1)["CLASS_1"] == "building"
        assert mask.colormap(1)[1][:3] == (206, 68, 58)
        assert mask.nodata is None
        drawn = mask.read(1)
    assert drawn[4:14, 4:24].all()
    assert drawn[20:40, 40:50].all()
    assert drawn.sum() == 200 + 200
    assert read(out / "b.tif").sum() == 200
    shown = capsys.readouterr()
    assert shown.err == ""
    assert f"{held}  3 features" in shown.out
    assert f"{out / 'a.tif'}  50 x 40, 2 features" in shown.out
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in shown.out.splitlines() if row.startswith("│")]
    assert rows == [["background", "0", "0", "3,400"], ["building", "1", "2", "600"]]
    assert shown.out.splitlines()[-1] == "2 rasterized, 0 failed"


def test_a_folder_of_label_files_by_name(tmp_path, capsys):
    for name in "abc":
        image(tmp_path / "in" / f"{name}.tif")
    labels(tmp_path / "polygons" / "a.geojson", (0, 0, 5, 5), kind=["road"])
    labels(tmp_path / "polygons" / "b.geojson", (0, 0, 5, 5), (10, 10, 12, 12), kind=["field", "road"])
    labels(tmp_path / "polygons" / "z.geojson", (0, 0, 5, 5), kind=["wood"])
    words = (tmp_path / "polygons", tmp_path / "in" / "*.tif", "--out", tmp_path / "out", "--field", "kind")
    assert run(*words) == 1
    shown = capsys.readouterr()
    failed, unmet = shown.err.splitlines()
    assert failed == f"fpn: {tmp_path}/in/c.tif: no labels for it in {tmp_path}/polygons"
    assert unmet.startswith(f"fpn: {tmp_path}/polygons/z.geojson: its features overlap no image; check its coordinate")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif"]
    assert np.unique(read(tmp_path / "out" / "a.tif")).tolist() == [0, 2]  # the words of all files have their numbers
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in shown.out.splitlines() if row.startswith("│")]
    assert rows[1:] == [
        ["field", "field", "1", "1", "100"],
        ["road", "road", "2", "2", "116"],
        ["wood", "wood", "3", "0", "0"],
    ]
    assert shown.out.splitlines()[-1] == "2 rasterized, 1 failed"


def test_one_bad_label_file_among_others(tmp_path, capsys):
    for name in "ab":
        image(tmp_path / "in" / f"{name}.tif")
    labels(tmp_path / "polygons" / "a.geojson", (0, 0, 5, 5))
    (tmp_path / "polygons" / "b.geojson").write_text("{")
    assert run(tmp_path / "polygons", tmp_path / "in", "--out", tmp_path / "out") == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"fpn: {tmp_path}/polygons/b.geojson: damaged or not readable")
    assert run(tmp_path / "in", tmp_path / "in", "--out", tmp_path / "new") == 2
    assert "no label file found" in capsys.readouterr().err


def test_a_bad_image_is_named_and_the_others_go_on(tmp_path, capsys):
    image(tmp_path / "in" / "a.tif")
    (tmp_path / "in" / "b.tif").write_text("this is no image")
    held = labels(tmp_path / "l.geojson", (0, 0, 5, 5))
    assert run(held, tmp_path / "in", "--out", tmp_path / "out") == 1
    shown = capsys.readouterr()
    assert "in/b.tif: not an image this program reads" in shown.err
    assert "1 rasterized, 1 failed" in shown.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.tif"]


def test_values_that_are_burned(tmp_path, capsys):
    image(tmp_path / "a.tif")
    held = labels(tmp_path / "l.geojson", (0, 0, 5, 5), n=[7])
    words = (held, tmp_path / "a.tif", "--out", tmp_path / "out", "--overwrite")
    for extra, values in (
        ((), [0, 1]),
        (("--burn", 255), [0, 255]),
        (("--field", "n"), [0, 7]),
        (("--burn", 999), [0, 999]),
    ):
        assert run(*words, *extra) == 0
        assert np.unique(read(tmp_path / "out" / "a.tif")).tolist() == values
    assert run(*words, "--ignore-border", 1) == 0
    with rasterio.open(tmp_path / "out" / "a.tif") as source:
        assert source.nodata == 255
        assert np.unique(source.read(1)).tolist() == [0, 1, 255]
    assert "not labelled" in capsys.readouterr().out
    for extra in (
        ("--burn", 1, "--field", "n"),
        ("--burn", 0),
        ("--buffer", -1),
        ("--ignore-border", "nan"),
        ("--tiles", "x"),
    ):
        assert run(*words, *extra) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_touched_pixels(tmp_path):
    image(tmp_path / "a.tif")
    held = labels(tmp_path / "l.geojson", (5.3, 5.3, 5.7, 7.7))
    assert run(held, tmp_path / "a.tif", "--out", tmp_path / "out") == 0
    assert read(tmp_path / "out" / "a.tif").sum() == 0
    assert run(held, tmp_path / "a.tif", "--out", tmp_path / "out", "--overwrite", "--all-touched") == 0
    assert read(tmp_path / "out" / "a.tif").sum() == 2 * 6


def test_nothing_is_overwritten_unasked_and_no_image_ever(tmp_path, capsys):
    image(tmp_path / "a.tif")
    held = labels(tmp_path / "l.geojson", (0, 0, 5, 5))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.tif").write_text("mine")
    assert run(held, tmp_path / "a.tif", "--out", tmp_path / "out") == 2
    assert "already exist" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.tif").read_text() == "mine"
    before = (tmp_path / "a.tif").read_bytes()
    assert run(held, tmp_path / "a.tif", "--out", tmp_path, "--overwrite") == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "a.tif").read_bytes() == before


def test_tiles_of_a_web_map(tmp_path):
    for row in (5, 6):
        tile = tmp_path / "map" / "4" / "8" / f"{row}.png"
        tile.parent.mkdir(parents=True, exist_ok=True)
        write_png(tile, picture(row, (64, 64)))
    box = {
        "type": "Polygon",
        "coordinates": [[[0, 40], [22.5, 40], [22.5, 66.51326044311186], [0, 66.51326044311186], [0, 40]]],
    }
    (tmp_path / "l.geojson").write_text(json.dumps(box))
    words = (tmp_path / "l.geojson", tmp_path / "map" / "**" / "*.png", "--out", tmp_path / "out")
    assert run(*words) == 2
    assert run(*words, "--tiles", "{z}/{x}/{y}") == 0
    upper, lower = (read(tmp_path / "out" / f"{row}.tif") for row in (5, 6))
    with rasterio.open(tmp_path / "out" / "5.tif") as source:
        bounds = rasterio.warp.transform_bounds(source.crs, "EPSG:4326", *source.bounds)
    assert bounds == pytest.approx((0, 40.97989806962013, 22.5, 55.77657301866769))
    assert upper.all()
    assert lower[0].all()
    assert not lower[-1].any()


def test_the_masks_make_a_data_set(tmp_path, capsys):
    for name in "ab":
        image(tmp_path / "train" / "images" / f"{name}.tif")
    held = labels(tmp_path / "l.geojson", (0, 0, 5, 5))
    words = (held, tmp_path / "train" / "images", "--out", tmp_path / "train" / "labels")
    assert run(*words, "--classes", "background,building", "--ignore-border", 1) == 0
    (tmp_path / "dataset.yaml").write_text(
        "classes: [background, building]\nsplits:\n  train: {images: train/images, labels: train/labels}\n"
    )
    assert main(["check", str(tmp_path)]) == 0, capsys.readouterr()


def test_as_a_program(tmp_path):
    image(tmp_path / "a.tif")
    held = labels(tmp_path / "l.geojson", (0, 0, 5, 5))
    words = [FPN, "rasterize", held, tmp_path / "a.tif", "--out", tmp_path / "out", "-q"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 rasterized, 0 failed" in done.stdout
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert len(again.stderr.splitlines()) == 1


@needs_shared
def test_real_buildings(tmp_path, capsys):
    folder = DATA / "spacenet-atlanta-sample"
    words = (folder / "buildings.geojson", folder / "image.tif", "--out", tmp_path, "--field", "building")
    assert run(*words) == 0
    assert "43 features" in capsys.readouterr().out
    assert read(tmp_path / "image.tif").sum() == 33_818
    tiles = DATA / "buildings-banepa" / "val"
    words = (tiles / "buildings.geojson", tiles / "images", "--out", tmp_path, "--tiles", "OAM-{x}-{y}-{z}")
    assert run(*words) == 0
    assert "8 rasterized, 0 failed" in capsys.readouterr().out


class TestCrossings:
    """A ring of n random vertices crosses itself about 0.11 n^2 times; mending it takes time that grows with that."""

    @staticmethod
    def write(path, vertices, hole=False):
        points = 20 * np.random.default_rng(0).random((vertices, 2)) + (WEST, NORTH - 20)
        ring = [*points.tolist(), points[0].tolist()]
        outer = [[WEST - 5, NORTH - 25], [WEST + 25, NORTH - 25], [WEST + 25, NORTH + 5], [WEST - 5, NORTH + 5]]
        rings = [[*outer, outer[0]], ring] if hole else [ring]
        shape = {"type": "Polygon", "coordinates": rings}
        features = [{"type": "Feature", "properties": {}, "geometry": shape}]
        path.write_text(json.dumps({"type": "FeatureCollection", "crs": UTM, "features": features}))
        return path

    @pytest.mark.parametrize("hole", [False, True])
    def test_too_many_are_told_in_seconds(self, tmp_path, capsys, hole):
        image(tmp_path / "a.tif")
        held = self.write(tmp_path / "b.geojson", 2000, hole)
        start = time.process_time()
        assert run(held, tmp_path / "a.tif", "--out", tmp_path / "out") == 2
        assert time.process_time() - start < 10
        assert capsys.readouterr().err.splitlines() == [
            f"fpn: {held}: feature 1: its rings cross more than 20,000 times; expected up to 20,000 crossings in a"
            ' polygon; repair it first ("Fix geometries" of QGIS), or allow more with --max-crossings N'
        ]

    def test_the_limit_is_adjustable_and_exact(self, tmp_path, capsys):
        image(tmp_path / "a.tif")
        held = self.write(tmp_path / "b.geojson", 60)
        ring = shapely.from_geojson(held.read_text()).geoms[0].exterior
        edges = [shapely.LineString(pair) for pair in itertools.pairwise(ring.coords)]
        count = sum(one.crosses(other) for one, other in itertools.combinations(edges, 2))
        assert count > 100
        assert run(held, tmp_path / "a.tif", "--out", tmp_path / "out", "--max-crossings", count - 1) == 2
        assert f"more than {count - 1:,} times" in capsys.readouterr().err
        assert run(held, tmp_path / "a.tif", "--out", tmp_path / "out", "--max-crossings", count) == 0
        assert "1 with invalid rings, repaired" in capsys.readouterr().out

    def test_crossings_of_other_polygons_do_not_count(self, tmp_path):
        image(tmp_path / "a.tif")
        bow = np.array([[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]) + np.array([WEST, NORTH - 1])
        shapes = [{"type": "Polygon", "coordinates": [(bow - (0, i)).tolist()]} for i in range(3)]
        features = [{"type": "Feature", "properties": {}, "geometry": shape} for shape in shapes]
        (tmp_path / "b.geojson").write_text(json.dumps({"type": "FeatureCollection", "crs": UTM, "features": features}))
        words = (tmp_path / "b.geojson", tmp_path / "a.tif", "--out", tmp_path / "out")
        assert run(*words, "--max-crossings", 1) == 0
        assert run(*words, "--max-crossings", 0, "--overwrite") == 2


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 40), (50, 2**31 - 1)])
def test_an_image_of_an_impossible_size_is_told_before_memory_is_asked_for(tmp_path, capsys, width, height):
    declare_size(image(tmp_path / "a.tif"), width, height)
    held = labels(tmp_path / "b.geojson", (0, 0, 5, 5))
    assert run(held, tmp_path / "a.tif", "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err.splitlines() == [
        f"fpn: {tmp_path / 'a.tif'}: {width:,} x {height:,} pixels; expected at most 1,048,576 pixels a side;"
        " if this is right, allow more with --max-side N"
    ]
    image(tmp_path / "b.tif")
    assert run(held, tmp_path / "b.tif", "--out", tmp_path / "out", "--max-side", "49") == 2
    assert run(held, tmp_path / "b.tif", "--out", tmp_path / "out", "--max-side", "50") == 0


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_its_exif_turns_and_a_world_file_places_is_refused(tmp_path, capsys, suffix):
    """GDAL would give the grid as stored, on which the mask lies across the picture that everybody sees."""
    turned = Image.Exif()
    turned[0x0112] = 6
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(path, exif=turned)
    path.with_suffix(".wld").write_text(f"0.5\n0\n0\n-0.5\n{WEST}\n{NORTH}\n")
    held = labels(tmp_path / "b.geojson", (0, 0, 5, 5))
    assert run(held, path, "--out", tmp_path / "out", "--assume-crs", "EPSG:32633") == 2
    assert (
        f"a{suffix}: turned by its EXIF orientation, and placed by a.wld; save the picture" in capsys.readouterr().err
    )
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(path)
    assert run(held, path, "--out", tmp_path / "out", "--assume-crs", "EPSG:32633") == 0
