"""fpn evaluate of a predicted map: polygons and label files against polygons and label files."""

import json

import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from PIL import Image

import torchfpn
from made_data import write_png, write_tiff
from shared import DATA, needs_shared
from torchfpn.cli.main import main
from torchfpn.geo.crs import crs_wkt
from torchfpn.geo.georef import Geo
from torchfpn.io.geotiff import write_label_raster
from torchfpn.metrics.confusion import ConfusionMatrix

WEST, NORTH = 500_000, 5_800_000
PLACE = rasterio.Affine(0.5, 0, WEST, 0, -0.5, NORTH)
UTM = "urn:ogc:def:crs:EPSG::32633"


def layer(path, *boxes, crs=UTM, **properties):
    """GeoJSON of boxes (left, top, right, bottom), in metres from the corner."""
    features = []
    for i, (left, top, right, bottom) in enumerate(boxes):
        shape = shapely.box(WEST + left, NORTH - bottom, WEST + right, NORTH - top)
        held = {key: values[i] for key, values in properties.items()}
        features.append({"type": "Feature", "properties": held, "geometry": shapely.geometry.mapping(shape)})
    member = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", **member, "features": features}))
    return path


def run(*words):
    return main(["evaluate", *map(str, words)])


def numbers(tmp_path, *words):
    """What the verb writes, which `torchfpn.evaluate` returns too."""
    file = tmp_path / "numbers.json"
    assert run(*words, "--json", file, "--overwrite", "-q") == 0
    scores = json.loads(file.read_text())
    assert torchfpn.evaluate(*words[:2], **options(*words[2:])) == scores
    return scores


def options(*words):
    """Flags of the command line as keyword arguments in Python."""
    found = {
        flag.removeprefix("--").replace("-", "_"): value for flag, value in zip(words[::2], words[1::2], strict=True)
    }
    if "classes" in found:
        pairs = [word.split("=") for word in found["classes"].split(",")]
        found["classes"] = {int(a): b for a, b in pairs} if "=" in found["classes"] else [name for (name,) in pairs]
    if "ignore" in found:
        found["ignore"] = [int(value) for value in found["ignore"].split(",")]
    if found.pop("without_class", None) == "skip":
        found["skip_unclassed"] = True
    return found


def fails(capsys, *words):
    assert run(*words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("fpn: ")
    assert shown.err.count("\n") == 1
    return shown.err


# -- polygons against polygons


def test_polygons_against_polygons(tmp_path, capsys):
    truth = layer(tmp_path / "t.geojson", (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))
    found = layer(tmp_path / "p.geojson", (1, 0, 11, 10), (26, 0, 36, 10))
    assert run(found, truth) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][-2:] == ["2", "features"]
    assert lines[2] == ["objects", "precision", "recall", "F1", "matched", "predicted", "truth"]
    assert lines[3] == ["object", "50.00", "33.33", "40.00", "1", "2", "3"]
    scores = numbers(tmp_path, found, truth, "--iou", 0.25)
    assert scores["objects"]["all"]["matched"] == 2
    assert scores["objects"]["iou"] == 0.25


def test_layers_that_do_not_meet_are_told(tmp_path, capsys, caplog):
    told = "the two layers do not overlap; check their coordinate systems"
    truth = layer(tmp_path / "t.geojson", (0, 0, 10, 10), (20, 0, 30, 10))
    away = layer(tmp_path / "a.geojson", (0, 0, 10, 10), (20, 0, 30, 10), crs="urn:ogc:def:crs:EPSG::32634")
    touches = layer(tmp_path / "s.geojson", (9, 9, 19, 19))
    assert run(away, truth) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[2] == told
    assert shown.err == ""
    for found in (touches, layer(tmp_path / "n.geojson")):
        assert run(found, truth) == 0
        assert told not in capsys.readouterr().out
    with caplog.at_level("WARNING"):
        assert told not in str(numbers(tmp_path, away, truth))
    assert caplog.messages == [told]


def test_classes_in_attributes(tmp_path, capsys):
    boxes = [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)]
    truth = layer(tmp_path / "t.geojson", *boxes, **{"class": ["roof", "road", "roof"], "kind": [1, 2, 2]})
    found = layer(tmp_path / "p.geojson", *boxes, **{"class": ["roof", "roof", "roof"], "score": [0.5, 0.25, 1]})
    scores = numbers(tmp_path, found, truth)["objects"]
    assert (scores["classes"], scores["matched"]) == (["road", "roof"], [0, 2])
    assert (scores["precision"][0], scores["recall"][0], scores["f1"][0]) == (None, 0.0, 0.0)
    capsys.readouterr()
    assert run(found, truth) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[3:6]] == ["road", "roof", "all"]
    assert "-: nothing to measure" in " ".join(out.split())
    assert numbers(tmp_path, found, truth, "--field", "")["objects"]["matched"] == [3]
    assert numbers(tmp_path, found, truth, "--truth-field", "kind", "--classes", "roof")["objects"]["truth"] == [0]
    scores = numbers(tmp_path, found, truth, "--classes", "roof")
    assert scores["left_out"]["of_other_classes"] == {"predicted": 0, "truth": 1}
    with pytest.raises(torchfpn.ConfigError, match="ignore: has no effect on polygons against polygons; leave it out"):
        torchfpn.evaluate(found, truth, ignore=[0])
    assert 'no field "clas"' in fails(capsys, found, truth, "--field", "clas")
    assert "did you mean" in fails(capsys, found, truth, "--classes", "rof")
    assert "no number" in fails(capsys, found, truth, "--score-field", "class")


def test_an_area_of_polygons_or_of_rasters(tmp_path):
    boxes = [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)]
    truth, found = layer(tmp_path / "t.geojson", *boxes), layer(tmp_path / "p.geojson", *boxes, (60, 0, 70, 10))
    area = layer(tmp_path / "area.geojson", (-5, -5, 26, 15))
    assert numbers(tmp_path, found, truth)["objects"]["predicted"] == [4]
    scores = numbers(tmp_path, found, truth, "--within", area)
    assert (scores["objects"]["predicted"], scores["objects"]["truth"]) == ([2], [2])
    assert scores["left_out"]["outside_or_small"] == {"predicted": 2, "truth": 1}
    assert numbers(tmp_path, found, truth, "--within", area, "--min-area", 70)["objects"]["truth"] == [1]
    (tmp_path / "images").mkdir()
    write_tiff(tmp_path / "images" / "a.tif", np.ones((3, 20, 40), np.uint8), crs="EPSG:32633", transform=PLACE)
    east = PLACE @ rasterio.Affine.translation(40, 0)
    write_tiff(tmp_path / "images" / "b.tif", np.ones((3, 20, 50), np.uint8), crs="EPSG:32633", transform=east)
    for within, count in ((tmp_path / "images" / "a.tif", 1), (tmp_path / "images", 3)):
        scores = numbers(tmp_path, found, truth, "--within", within)["objects"]
        assert scores["all"] == dict.fromkeys(("precision", "recall", "f1"), 1.0) | dict.fromkeys(
            ("matched", "predicted", "truth"), count
        )


def test_empty_layers(tmp_path):
    truth, empty = layer(tmp_path / "t.geojson", (0, 0, 1, 1)), layer(tmp_path / "e.geojson")
    assert numbers(tmp_path, empty, truth)["objects"]["all"]["recall"] == 0
    assert numbers(tmp_path, truth, empty)["objects"]["all"]["precision"] == 0
    assert numbers(tmp_path, empty, empty)["objects"]["all"]["f1"] is None


@needs_shared
def test_our_own_outlines_are_found_again(tmp_path):
    sample = DATA / "spacenet-atlanta-sample"
    assert (
        main(["rasterize", str(sample / "buildings.geojson"), str(sample / "image.tif"), "--out", str(tmp_path)]) == 0
    )
    mask = tmp_path / "image.tif"
    scores = numbers(tmp_path, mask, sample / "buildings.geojson")
    assert scores["miou"] == 1.0
    assert scores["objects"]["all"]["recall"] > 0.9
    itself = numbers(tmp_path, sample / "buildings.geojson", sample / "buildings.geojson", "--iou", 0.999)["objects"]
    assert itself["all"]["f1"] == 1.0


# -- label files against label files


def test_label_files_like_a_count_by_numpy(tmp_path, capsys):
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 3, (2, 700, 1300)).astype(np.uint8)  # several windows
    truth[:50] = 255
    for name, labels in (("t", truth), ("p", found)):
        write_label_raster(tmp_path / f"{name}.tif", labels, names=["land", "water", "ice", "sand"])
    scores = numbers(tmp_path, tmp_path / "p.tif", tmp_path / "t.tif")
    matrix = ConfusionMatrix(4)
    matrix.update(found, truth)
    assert scores["confusion"] == matrix.matrix.tolist()
    assert scores["miou"] == matrix.miou()
    assert scores["iou"][3] is None
    assert (scores["classes"], scores["label_values"]) == (["land", "water", "ice", "sand"], [0, 1, 2, 3])
    assert scores["unlabelled"] == 50 * 1300
    assert run(tmp_path / "p.tif", tmp_path / "t.tif", "--out", tmp_path / "report") == 0
    assert "65,000 pixels are not labelled" in capsys.readouterr().out
    assert (tmp_path / "report" / "report.html").is_file()


def test_folders_of_label_files(tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "p").mkdir()
    (tmp_path / "t").mkdir()
    matrix = ConfusionMatrix(2)
    for stem in "abc":
        truth, found = rng.integers(0, 2, (2, 20, 30)).astype(np.uint8)
        matrix.update(found, truth)
        write_png(tmp_path / "p" / f"{stem}.png", found)
        write_tiff(tmp_path / "t" / f"{stem}.tif", truth[None].astype(np.uint16))
    write_png(tmp_path / "p" / "a.overlay.png", np.zeros((20, 30, 3), np.uint8))
    write_png(tmp_path / "p" / "d.png", found)
    assert run(tmp_path / "p", tmp_path / "t") == 0
    assert "3 label files\n1 prediction without a truth, left out\n" in capsys.readouterr().out
    scores = numbers(tmp_path, tmp_path / "p", tmp_path / "t", "--classes", "land,water")
    assert (scores["classes"], scores["confusion"], scores["images"]) == (["land", "water"], matrix.matrix.tolist(), 3)
    assert scores["left_out"] == {"files_without_truth": 1}
    (tmp_path / "p" / "b.png").unlink()
    assert "has no file for 1 of 3, the first is b.tif" in fails(capsys, tmp_path / "p", tmp_path / "t")
    assert "a folder against a file" in fails(capsys, tmp_path / "p", tmp_path / "t" / "a.tif")


def test_what_is_not_labelled(tmp_path, capsys):
    truth, found = np.array([[0, 0, 255, 255, 7, 7]], np.uint8), np.array([[0, 255, 255, 0, 7, 9]], np.uint8)

    def score(t, p, *words, nodata=None):
        write_tiff(tmp_path / "t.tif", t[None], nodata=nodata)
        write_tiff(tmp_path / "p.tif", p[None])
        return numbers(tmp_path, tmp_path / "p.tif", tmp_path / "t.tif", *words)

    scores = score(truth, found)
    assert (scores["classes"], scores["unlabelled"], scores["unanswered"]) == (["0", "7", "9"], 2, 1)
    scores = score(truth, found, "--ignore", "0,9")
    assert (scores["classes"], scores["unlabelled"], scores["unanswered"]) == (["7", "255"], 2, 2)
    scores = score(truth[:, :4], found[:, :4])  # black and white: 255 is a class
    assert (scores["classes"], scores["confusion"]) == (["0", "255"], [[1, 1], [1, 1]])
    assert score(truth, found, nodata=7)["unlabelled"] == 4
    assert score(truth[:, :2], found[:, :1].repeat(2, 1), "--classes", "a,b", nodata=0)["confusion"] == [[2, 0], [0, 0]]
    write_tiff(tmp_path / "p.tif", found[None])
    write_tiff(tmp_path / "t.tif", truth[None])
    line = fails(capsys, tmp_path / "p.tif", tmp_path / "t.tif", "--classes", "a,b")
    assert "the value 7 in 2 pixels; expected 0 a, 1 b; name it with --classes, or leave it out with --ignore 7" in line
    assert "whole numbers" in fails(capsys, tmp_path / "p.tif", tmp_path / "t.tif", "--ignore", "none")
    everything = "0,7,9,255"
    assert "no pixel has a truth" in fails(capsys, tmp_path / "p.tif", tmp_path / "t.tif", "--ignore", everything)


def test_label_files_of_two_grids_or_two_meanings_are_refused(tmp_path, capsys):
    labels, geo = np.zeros((8, 8), np.uint8), Geo(crs_wkt("EPSG:32633"), tuple(PLACE)[:6])
    moved = Geo(geo.crs, (0.5, 0, WEST + 1, 0, -0.5, NORTH))
    write_label_raster(tmp_path / "a.tif", labels, geo=geo, names=["land", "water"])
    for name, other, options in (
        ("size", np.zeros((8, 9), np.uint8), {}),
        ("grid", labels, {"geo": moved}),
        ("crs", labels, {"geo": Geo(crs_wkt("EPSG:32634"), geo.transform)}),
        ("names", labels, {"names": ["water", "land"]}),
    ):
        write_label_raster(tmp_path / f"{name}.tif", other, **options)
    a = tmp_path / "a.tif"
    assert "9 x 8 pixels, and 8 x 8 in a.tif" in fails(capsys, tmp_path / "size.tif", a)
    assert "another grid than a.tif, 2 pixels apart" in fails(capsys, tmp_path / "grid.tif", a)
    assert "another coordinate system" in fails(capsys, tmp_path / "crs.tif", a)
    assert 'the value 0 is called "water" here and "land" elsewhere' in fails(capsys, tmp_path / "names.tif", a)
    write_tiff(tmp_path / "rgb.tif", np.zeros((3, 8, 8), np.uint8))
    assert "3 bands; expected one band of class values" in fails(capsys, tmp_path / "rgb.tif", a)


# -- label files against polygons


def test_label_files_against_polygons(tmp_path, capsys):
    labels = np.zeros((600, 700), np.uint8)
    labels[10:30, 10:30] = 2
    labels[505:525, 100:140] = 2
    labels[10:30, 500:540] = 5  # a road that is there
    labels[300:310, 300:310] = 2  # a roof that is not
    geo = Geo(crs_wkt("EPSG:32633"), tuple(PLACE)[:6])
    write_label_raster(tmp_path / "p.tif", labels, geo=geo, names={0: "land", 2: "roof", 5: "road"})
    boxes = [(5, 5, 15, 15), (50, 252.5, 70, 262.5), (250, 5, 270, 15), (900, 0, 910, 10), (345, 290, 400, 350)]
    kinds = ["roof", "roof", "road", "roof", "road"]
    truth = layer(tmp_path / "t.geojson", *boxes, kind=kinds)
    scores = numbers(tmp_path, tmp_path / "p.tif", truth, "--field", "kind")
    objects = scores["objects"]
    assert (objects["classes"], objects["matched"]) == (["road", "roof"], [1, 2])
    assert (objects["predicted"], objects["truth"]) == ([1, 3], [2, 2])
    expected = np.zeros_like(labels)
    for (left, top, right, bottom), value in zip(boxes, (2, 2, 1, 2, 1), strict=True):
        expected[int(2 * top) : int(2 * bottom), int(2 * left) : int(2 * right)] = value
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([0, 0, 2, 0, 0, 1])[labels], expected)
    assert scores["confusion"] == matrix.matrix.tolist()
    assert (scores["classes"], scores["label_values"]) == (["background", "road", "roof"], [None, 5, 2])
    one = layer(tmp_path / "one.geojson", *boxes[:2])
    assert "has the classes land, roof, road, and the polygons have none" in fails(capsys, tmp_path / "p.tif", one)
    scores = numbers(tmp_path, tmp_path / "p.tif", one, "--classes", "roof")
    assert scores["objects"]["matched"] == [2]
    assert run(tmp_path / "p.tif", one, "--classes", "2", "--out", tmp_path / "report") == 0
    assert json.loads((tmp_path / "report" / "validation.json").read_text())["objects"]["classes"] == ["roof"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<h2>Objects</h2>" in page
    assert "<th>roof</th><td>66.7</td><td>100.0</td><td>80.0</td><td>2</td><td>3</td><td>2</td>" in page
    out = capsys.readouterr().out
    assert "precision" in out
    assert "F1" in out


def unnamed(path, *rows):
    """A label file that has no effect on its values: squares of 4 m of (value, left in metres), at the top."""
    labels = np.zeros((1, 20, 100), np.uint8)
    for value, left in rows:
        labels[0, 4:12, 2 * left : 2 * left + 8] = value
    return write_tiff(path, labels, crs="EPSG:32633", transform=PLACE)


def squares(*lefts):
    return [(left, 2, left + 4, 6) for left in lefts]


@pytest.mark.parametrize(
    ("values", "words", "counted", "unanswered"),
    [
        ((255, 255), [], 255, 0),  # a mask of black and white
        ((5, 5), [], 5, 0),
        ((5, 255), [], 5, 64),  # beside a class, 255 is not labelled
        ((1, 2), ["--classes", "2"], 2, 0),
        ((1, 2), ["--ignore", "1"], 2, 64),
        ((255, 255), ["--classes", "roof"], 255, 0),
        ((7, 255), ["--ignore", "7"], 255, 64),
    ],
)
def test_polygons_without_classes_are_of_the_only_value(tmp_path, values, words, counted, unanswered):
    """One map finds its truth again, whatever value its mask has."""
    found = unnamed(tmp_path / "p.tif", (values[0], 2), (values[1], 20))
    truth = layer(
        tmp_path / "t.geojson", *squares(*(left for v, left in zip(values, (2, 20), strict=True) if v == counted))
    )
    scores = numbers(tmp_path, found, truth, *words)
    assert (scores["label_values"], scores["miou"]) == ([None, counted], 1)
    assert scores["objects"]["all"]["f1"] == 1
    assert scores["unanswered"] == unanswered


def test_several_values_without_names_are_asked_for(tmp_path, capsys):
    found, truth = unnamed(tmp_path / "p.tif", (1, 2), (2, 20)), layer(tmp_path / "t.geojson", *squares(20))
    assert "has the values 1, 2, and the polygons have no classes; choose one with --classes 1" in fails(
        capsys, found, truth
    )
    line = fails(capsys, unnamed(tmp_path / "q.tif", (1, 2), (255, 20)), truth, "--classes", "1", "--ignore", "7")
    assert "the value 255 in 64 pixels, and --ignore has other values; add it to --ignore, or name it" in line
    assert "ignore: 1, which is the class 1" in fails(capsys, found, truth, "--classes", "1", "--ignore", "1")


def test_words_of_polygons_against_values_without_names(tmp_path, capsys):
    found = unnamed(tmp_path / "p.tif", (1, 2), (2, 20), (3, 40))
    truth = layer(tmp_path / "t.geojson", *squares(2, 20, 30), **{"class": ["roof", "road", "pond"]})
    assert "name them, --classes 0=background,1=pond,2=road,3=roof" in fails(capsys, found, truth)
    line = fails(capsys, found, truth, "--classes", "1,2")
    assert "no polygon is of the class 1 or 2; expected pond, road, roof; give --classes 0=background,1=" in line
    assert "no polygon is of the class bg or lane" in fails(capsys, found, truth, "--classes", "0=bg,1=lane")
    scores = numbers(tmp_path, found, truth, "--classes", "0=bg,1=roof,2=road,3=lane")
    assert (scores["objects"]["classes"], scores["objects"]["matched"]) == (["roof", "road"], [1, 1])
    assert scores["objects"]["all"]["truth"] == 2
    assert scores["left_out"]["of_other_classes"] == {"predicted": None, "truth": 1}
    assert run(found, truth, "--classes", "0=bg,1=roof,2=road,3=lane") == 0
    out = capsys.readouterr().out
    assert "t.geojson  3 features; left out: 1 of other classes\n" in out
    assert "no polygon is of the class lane; its pixels count as background\n" in out
    assert run(found, truth, "--classes", "0=bg,1=roof,2=road,3=lane", "--ignore", "2,3") == 0
    assert "no polygon is of" not in capsys.readouterr().out  # there is one, and pixels of both are left out
    scores = numbers(tmp_path, found, truth, "--classes", "0=bg,1=roof,2=road", "--ignore", "2,255")
    assert (scores["objects"]["classes"], scores["unanswered"]) == (["roof"], 64)


def test_what_does_not_count_is_told_of_label_files_too(tmp_path, capsys):
    """As of polygons: in the lines and in the numbers. Squares of 16 m2, and one of 4 m2 on each side."""
    found = unnamed(tmp_path / "p.tif", (1, 2), (1, 20))
    with rasterio.open(found, "r+") as raster:
        raster.write(np.ones((4, 4), np.uint8), 1, window=((4, 8), (60, 64)))
    truth = layer(tmp_path / "t.geojson", *squares(2, 20), (40, 2, 42, 4), (900, 2, 910, 9))
    words = (found, truth, "--min-area", 10)
    scores = numbers(tmp_path, *words)
    assert scores["objects"]["all"]["f1"] == 1
    assert scores["left_out"]["outside_or_small"] == {"predicted": 1, "truth": 2}
    assert run(*words) == 0
    out = capsys.readouterr().out
    assert "1 label file; left out: 1 too small\n" in out
    assert "t.geojson  4 features; left out: 1 on no label file, 1 too small\n" in out


def test_square_metres_are_those_of_the_place(tmp_path):
    """Sides of 0.4 degrees: 1,980 km2 at the equator, 760 km2 at 68 N; of the middle of the map, 1,620 km2 both."""
    labels = np.zeros((1, 700, 20), np.uint8)
    labels[0, 20:24, 2:6] = labels[0, 690:694, 2:6] = 1
    place = rasterio.Affine(0.1, 0, 10, 0, -0.1, 70)
    found = write_tiff(tmp_path / "p.tif", labels, crs="EPSG:4326", transform=place)
    boxes = [shapely.box(10.2, top - 0.4, 10.6, top) for top in (68.0, 1.0)]
    features = [{"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(box)} for box in boxes]
    (tmp_path / "t.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    for least, count in ((700e6, 2), (1200e6, 1), (1700e6, 1), (2100e6, 0)):
        counts = numbers(tmp_path, found, tmp_path / "t.geojson", "--min-area", least)["objects"]["all"]
        assert [counts[name] for name in ("matched", "predicted", "truth")] == [count] * 3


BEYOND = {  # grids that go on where the world of their coordinate system begins again: transform, columns
    "0 to 360": ("EPSG:4326", (1.0, 0.0, 0.0, 0.0, -1.0, 20.0), 360),
    "a little beyond 180": ("EPSG:4326", (0.1, 0.0, 177.2, 0.0, -0.1, 3.0), 30),
    "Mercator beyond 180": ("EPSG:3857", (1e4, 0.0, 19_900_000.0, 0.0, -1e4, 2e5), 40),
    "beyond -180 in the west": ("EPSG:4087", (1e4, 0.0, -20_200_000.0, 0.0, -1e4, 2e5), 40),
    "another meridian": ("EPSG:4807", (0.2, 0.0, 195.0, 0.0, -0.2, 5.0), 60),  # Paris, in grads
}


@pytest.mark.parametrize("grid", BEYOND)
def test_a_map_beyond_180_is_what_its_own_polygons_say(tmp_path, grid):
    """Its GeoJSON lies within -180..180: every pixel and every object is found again, one across 180 too."""
    crs, transform, width = BEYOND[grid]
    labels = np.zeros((40, width), np.uint8)
    labels[5:15, width // 2 - 4 : width // 2 + 7] = labels[20:30, width - 9 : width - 2] = labels[20:30, 2:5] = 1
    found = write_tiff(tmp_path / "p.tif", labels[None], crs=crs, transform=rasterio.Affine(*transform))
    assert main(["polygons", str(found), str(tmp_path / "t.geojson")]) == 0
    points = shapely.get_coordinates(shapely.from_geojson((tmp_path / "t.geojson").read_text()))
    assert np.abs(points[:, 0]).max() <= 180
    scores = numbers(tmp_path, found, tmp_path / "t.geojson", "--field", "")
    assert scores["confusion"] == [[int((labels == 0).sum()), 0], [0, int(labels.sum())]]
    assert scores["objects"]["all"]["f1"] == 1
    assert scores["objects"]["all"]["matched"] == 3
    out = ["--out", str(tmp_path / "out"), "--overwrite"]
    assert main(["compare", str(found), "--truth", str(tmp_path / "t.geojson"), "--field", "",
                 "--prediction", str(found), *out]) == 0  # fmt: skip
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["over_all"]["miou"] == 1
    assert main(["rasterize", str(tmp_path / "t.geojson"), str(found), *out]) == 0
    with rasterio.open(tmp_path / "out" / "p.tif") as drawn:
        assert np.array_equal(drawn.read(1), labels)


def test_one_place_has_many_longitudes(tmp_path):
    """Brazil at -55 and at 305: as polygons against polygons, and within a raster from 0 to 360."""
    crs = "urn:ogc:def:crs:OGC::CRS84"
    features = {
        name: [
            {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shapely.box(x, -9, x + 5, -5))}
        ]
        for name, x in (("west", -55), ("east", 305))
    }
    for name, held in features.items():
        member = {"crs": {"type": "name", "properties": {"name": crs}}}
        (tmp_path / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", **member, "features": held}))
    west, east = tmp_path / "west.geojson", tmp_path / "east.geojson"
    grid = rasterio.Affine(1.0, 0.0, 0.0, 0.0, -1.0, 20.0)
    image = write_tiff(tmp_path / "i.tif", np.zeros((1, 40, 360), np.uint8), crs="EPSG:4326", transform=grid)
    for words in ([west, east], [east, west], [west, east, "--within", image]):
        assert numbers(tmp_path, *words)["objects"]["all"]["matched"] == 1


def test_a_folder_of_label_files_against_polygons(tmp_path, capsys):
    (tmp_path / "p").mkdir()
    (tmp_path / "t").mkdir()
    for stem, west in (("a", 0), ("b", 40)):
        labels = np.zeros((1, 20, 40), np.uint8)
        labels[0, 4:12, 4:12] = 1
        transform = PLACE @ rasterio.Affine.translation(west, 0)
        write_tiff(tmp_path / "p" / f"{stem}.tif", labels, crs="EPSG:32633", transform=transform)
        layer(tmp_path / "t" / f"{stem}.geojson", (west / 2 + 2, 2, west / 2 + 6, 6))
    together = layer(tmp_path / "all.geojson", (2, 2, 6, 6), (22, 2, 26, 6), (14, 1, 24, 3))  # the last across both
    assert numbers(tmp_path, tmp_path / "p", tmp_path / "t")["objects"]["all"]["f1"] == 1.0
    scores = numbers(tmp_path, tmp_path / "p", together)["objects"]
    assert (scores["matched"], scores["truth"]) == ([2], [4])
    words = ("--classes", "0=bg,1=roof,2=road")
    layer(tmp_path / "t" / "a.geojson", (2, 2, 6, 6), (8, 2, 9, 3), **{"class": ["roof", "road"]})
    assert "b.geojson: no classes, beside polygons of roof, road" in fails(
        capsys, tmp_path / "p", tmp_path / "t", *words
    )
    layer(tmp_path / "t" / "b.geojson")  # without a feature there is no attribute
    assert numbers(tmp_path, tmp_path / "p", tmp_path / "t", *words)["objects"]["truth"] == [1, 1]
    (tmp_path / "t" / "b.geojson").unlink()
    assert "has no file for 1 of 2 maps, the first is b.tif" in fails(capsys, tmp_path / "p", tmp_path / "t")


def test_polygons_that_meet_no_map_are_told(tmp_path, capsys):
    labels = np.ones((20, 30), np.uint8)
    write_label_raster(tmp_path / "p.tif", labels, geo=Geo(crs_wkt("EPSG:32633"), tuple(PLACE)[:6]))
    swapped = "urn:ogc:def:crs:EPSG::32634"
    for truth, told in (
        (layer(tmp_path / "away.geojson", (9000, 0, 9010, 10)), True),
        (layer(tmp_path / "zone.geojson", (1, 1, 5, 5), crs=swapped), True),
        (layer(tmp_path / "here.geojson", (1, 1, 5, 5)), False),
        (layer(tmp_path / "none.geojson"), False),
    ):
        assert run(tmp_path / "p.tif", truth) == 0
        assert ("overlaps a label file" in capsys.readouterr().out) == told, truth


# -- what does not go together


@pytest.mark.parametrize("side", ["first", "second"])
def test_photographs_are_no_label_files(tmp_path, capsys, side):
    """A folder of JPEGs, or one of them, is neither a model nor a map, and its dataset.yaml is not asked for."""
    photos, labels = tmp_path / "photos", tmp_path / "labels"
    photos.mkdir()
    labels.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(photos / name)
    write_png(labels / "a.png", np.zeros((8, 8), np.uint8))
    for given in (photos, photos / "a.jpg"):
        line = fails(capsys, *((given, labels) if side == "first" else (labels, given)))
        assert f"{given}: neither label files nor polygons" in line
        assert "JPEG changes the values it stores" in line
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "notes.txt").write_text("")
    assert "neither label files nor polygons (1 file: .txt)" in fails(capsys, bare, labels)


def test_what_cannot_be_compared(tmp_path, capsys):
    vectors, labels = (
        layer(tmp_path / "v.geojson", (0, 0, 1, 1)),
        write_png(tmp_path / "l.png", np.zeros((4, 4), np.uint8)),
    )
    wrong_order = "polygons against label files; give the label files first"
    assert wrong_order in fails(capsys, vectors, labels)
    assert wrong_order in fails(capsys, vectors, labels, "--out", tmp_path / "out")
    assert wrong_order in fails(capsys, vectors, labels, "--within", tmp_path / "none.tif")
    assert "neither label files nor polygons" in fails(capsys, vectors, tmp_path / "x.txt")
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'}: neither label files nor polygons" in fails(capsys, tmp_path / "empty", vectors)
    assert "holds no area" in fails(capsys, vectors, vectors, "--within", layer(tmp_path / "none.geojson"))
    assert "--within: has no effect on label files" in fails(capsys, labels, labels, "--within", vectors)
    assert "no georeference" in fails(capsys, labels, vectors)
    assert "iou: 0.0; expected more than 0" in fails(capsys, vectors, vectors, "--iou", 0)
    assert "--min-area: -1" in fails(capsys, vectors, vectors, "--min-area", -1)
    assert "make no report" in fails(capsys, vectors, vectors, "--out", tmp_path / "out")
    assert "cannot be opened" in fails(capsys, tmp_path / "missing.geojson", vectors)
    (tmp_path / "numbers.json").write_text("")
    assert "already exists" in fails(capsys, vectors, vectors, "--json", tmp_path / "numbers.json")


def test_json_alone_on_the_output(tmp_path, capsys):
    vectors = layer(tmp_path / "v.geojson", (0, 0, 1, 1))
    assert run(vectors, vectors, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["objects"]["all"]["matched"] == 1
