"""fpn polygons, and the polygons of fpn predict: files in, clean polygons out, as a user runs them."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely
from rasterio.crs import CRS

from made_data import write_tiff
from made_maps import box as square
from made_maps import write_geojson, write_map
from tiny_model import tiny_task
from torchfpn.cli.main import main
from torchfpn.geo.crs import square_metres
from torchfpn.geo.georef import Geo
from torchfpn.io.geotiff import write_label_raster
from torchfpn.io.vector_writing import write_layer
from torchfpn.io.vectors import read_vectors

UTM = CRS.from_epsg(32633)
GEO = Geo(UTM.to_wkt(), (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0))
NAMES = {0: "ground", 1: "roof", 5: "road"}
KINDS = pytest.mark.parametrize("kind", ["geojson", "gpkg", "fgb"])
FIELDS = {"class": str, "class_id": int, "score": float, "area": float}


def run(*words):
    return main(["polygons", *map(str, words)])


def label_map(path, labels=None, geo=GEO, **options):
    if labels is None:
        labels = np.zeros((60, 80), np.uint8)
        labels[5:25, 10:40], labels[10:15, 20:24], labels[40:44], labels[50:52, 2:4] = 1, 0, 5, 1
    write_label_raster(path, labels, geo=geo, names=NAMES, nodata=255, **options)
    return labels


def features_of(path):
    """[(class, class_id, polygon in lon/lat or the file's own system, area)], large ones first."""
    shapes = read_vectors(path).shapes
    columns = [read_vectors(path, field=name).column for name in ("class", "class_id", "area")]
    found = zip(columns[0], columns[1], shapes, (float(area) for area in columns[2]), strict=True)
    return sorted(found, key=lambda row: -row[3])


@pytest.mark.parametrize("transform", [(0.0, 0.0, 5e5, 0.0, 0.0, 5e6), (1.0, 2.0, 5e5, 2.0, 4.0, 5e6)])
def test_pixels_without_an_area_have_no_polygons(tmp_path, capsys, transform):
    label_map(tmp_path / "a.tif", geo=Geo(UTM.to_wkt(), transform))
    assert run(tmp_path / "a.tif", tmp_path / "b.gpkg") == 2
    assert "cannot be inverted; give it a pixel size" in capsys.readouterr().err
    assert not (tmp_path / "b.gpkg").exists()


@KINDS
def test_a_label_map_becomes_polygons(tmp_path, capsys, kind):
    label_map(tmp_path / "a.tif")
    out = tmp_path / f"b.{kind}"
    assert run(tmp_path / "a.tif", out, "--vectorize", "roof,road", "--min-pixels", 10) == 0
    assert capsys.readouterr().out == f"{out}  2 features, 2 written\n"
    (roof, road) = features_of(out)
    assert [(row[0], row[1]) for row in (roof, road)] == [("roof", 1), ("road", 5)]
    assert roof[3] == pytest.approx(580 / 4 / 0.9996**2, rel=1e-4)
    assert pyogrio.read_info(out)["crs"] == ("EPSG:4326" if kind == "geojson" else "EPSG:32633")
    if kind != "geojson":
        assert roof[2].bounds == (500_005, 5_799_987.5, 500_020, 5_799_997.5)
        assert len(roof[2].interiors) == 1
        assert roof[2].exterior.is_ccw
    assert {path.name for path in tmp_path.iterdir()} == {"a.tif", out.name}


TRANSFORMS = [
    (0.5, 0.0, 500_000.0, 0.0, 0.5, 5_800_000.0),  # south up
    (0.4, 0.3, 500_000.0, 0.3, -0.4, 5_800_000.0),  # turned
    (-0.5, 0.0, 500_000.0, 0.0, -2.0, 5_800_000.0),  # mirrored, pixels not square
]


@pytest.mark.parametrize("kind", ["gpkg", "fgb"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_fault_12_every_grid_comes_back_exactly(tmp_path, kind, transform):
    geo = Geo(UTM.to_wkt(), transform)
    labels = label_map(tmp_path / "a.tif", geo=geo)
    assert run(tmp_path / "a.tif", tmp_path / f"b.{kind}") == 0
    again = np.full(labels.shape, 255, np.uint8)
    for _, value, polygon, _ in features_of(tmp_path / f"b.{kind}"):
        corners = np.array([geo.pixel(x, y) for x, y in shapely.get_coordinates(polygon)])
        assert np.abs(corners - corners.round()).max() < 1e-6
        pixels = shapely.set_coordinates(shapely.from_wkb(polygon.wkb), corners.round())
        again[rasterio.features.rasterize([pixels], labels.shape) > 0] = value
    assert np.array_equal(again, labels)


def test_fault_15_polygons_across_the_180th_meridian_are_cut_in_geojson_alone(tmp_path):
    geo = Geo(CRS.from_epsg(32760).to_wkt(), (1000.0, 0.0, 805_000.0, 0.0, -1000.0, 8_000_000.0))
    label_map(tmp_path / "a.tif", np.ones((20, 30), np.uint8), geo=geo)
    for kind in ("geojson", "gpkg"):
        assert run(tmp_path / "a.tif", tmp_path / f"b.{kind}") == 0
        assert run(tmp_path / f"b.{kind}", tmp_path / f"c.{kind}") == 0
    ((*_, degrees, area),) = features_of(tmp_path / "b.geojson")
    assert degrees.geom_type == "MultiPolygon"
    assert all(part.bounds[2] - part.bounds[0] < 1 for part in degrees.geoms)
    ((*_, whole, same),) = features_of(tmp_path / "b.gpkg")
    assert whole.geom_type == "Polygon"
    assert whole.area == 600e6
    assert area == same == pytest.approx(600e6, rel=0.01)
    assert features_of(tmp_path / "c.gpkg")[0][3] == pytest.approx(same, rel=1e-6)


@KINDS
def test_fault_11_without_a_place_there_are_no_polygons(tmp_path, capsys, kind):
    out = tmp_path / f"b.{kind}"
    label_map(tmp_path / "a.tif", geo=None)
    assert run(tmp_path / "a.tif", out) == 2
    assert "a.tif: no coordinate system; only rasters with a transform" in capsys.readouterr().err
    label_map(tmp_path / "a.tif", geo=Geo(None, GEO.transform))
    assert run(tmp_path / "a.tif", out) == 2
    assert capsys.readouterr().err == f"fpn: {tmp_path / 'a.tif'}: no coordinate system; give --assume-crs EPSG:...\n"
    assert not out.exists()
    assert run(tmp_path / "a.tif", out, "--assume-crs", "EPSG:32633", "--vectorize", "road") == 0
    assert len(features_of(out)) == 1


@KINDS
def test_nothing_found_is_an_empty_file(tmp_path, capsys, kind):
    label_map(tmp_path / "a.tif", np.full((20, 30), 255, np.uint8))
    out = tmp_path / f"b.{kind}"
    assert run(tmp_path / "a.tif", out, "--square", "--merge", 3) == 0
    assert "0 features, 0 merged into others, 0 with right angles, 0 written" in capsys.readouterr().out
    assert pyogrio.read_info(out, force_feature_count=True)["features"] == 0


def test_values_without_names_are_their_own(tmp_path):
    write_label_raster(tmp_path / "a.tif", np.array([[0, 3], [3, 9]], np.uint8), geo=GEO, nodata=9)
    assert run(tmp_path / "a.tif", tmp_path / "b.gpkg") == 0
    assert [row[:2] for row in features_of(tmp_path / "b.gpkg")] == [("3", 3), ("3", 3)]


def vector_file(path, shapes, classes=None, scores=None, crs=UTM):
    classes = classes or ["roof"] * len(shapes)
    scores = scores or [None] * len(shapes)
    rows = ((s, (c, 4 if c == "roof" else 9, p, 1.0)) for s, c, p in zip(shapes, classes, scores, strict=True))
    write_layer(path, rows, FIELDS, crs=crs.to_wkt(), multi=True)


def box(x, y, width, height):
    return shapely.box(500_000 + x, 5_800_000 + y, 500_000 + x + width, 5_800_000 + y + height)


def test_near_polygons_of_one_class_become_one(tmp_path, capsys):
    shapes = [box(0, 0, 10, 10), box(10.8, 0, 5, 10), box(0, 12, 10, 5), box(17, 3, 2, 2), box(40.123456789, 0, 1, 1)]
    vector_file(tmp_path / "a.gpkg", shapes, ["roof", "roof", "roof", "road", "roof"], [0.9, 0.6, 0.1, 0.5, 0.7])
    assert run(tmp_path / "a.gpkg", tmp_path / "b.gpkg", "--merge", 1) == 0
    assert "5 features, 1 merged into others, 4 written" in capsys.readouterr().out
    found = features_of(tmp_path / "b.gpkg")
    assert [(row[0], row[1]) for row in found] == [("roof", 4), ("roof", 4), ("road", 9), ("roof", 4)]
    assert shapely.symmetric_difference(found[0][2], box(0, 0, 15.8, 10)).area < 1e-6
    assert found[0][3] == pytest.approx(158 / 0.9996**2, rel=1e-4)
    scores = read_vectors(tmp_path / "b.gpkg", field="score").column.tolist()
    assert scores == ["0.8", "0.1", "0.5", "0.7"]  # (0.9 * 100 + 0.6 * 50) / 150
    assert found[-1][2].geoms[0].normalize().wkb == shapes[-1].normalize().wkb  # to the bit


def test_distances_are_metres_in_degrees_too(tmp_path, capsys):
    lon, lat = 15.0, 60.0  # where a degree to the east is half of one to the north
    metre = np.array([1 / (111_412 * np.cos(np.radians(lat)) + 0.0), 1 / 111_412])
    east = [shapely.box(lon, lat, lon + 5 * metre[0], lat + 5 * metre[1])]
    for gap in (0.9, 1.2):
        beside = shapely.affinity.translate(east[0], (5 + gap) * metre[0], 0)
        above = shapely.affinity.translate(east[0], 0, (5 + gap) * metre[1])
        vector_file(tmp_path / "a.gpkg", [*east, beside, above], crs=CRS.from_epsg(4326))
        assert run(tmp_path / "a.gpkg", tmp_path / "b.gpkg", "--merge", 1, "--overwrite") == 0
        assert f"{2 if gap < 1 else 0} merged" in capsys.readouterr().out


def test_polygons_that_touch_in_a_chain_are_one_and_gaps_too_wide_stay(tmp_path):
    shapes = [box(i * 3, 0, 2.5, 2) for i in range(20)] + [box(30, 50, 2, 2), box(33, 53, 2, 2)]
    vector_file(tmp_path / "a.gpkg", shapes)
    assert run(tmp_path / "a.gpkg", tmp_path / "b.gpkg", "--merge", 0.6) == 0
    assert [round(row[2].area, 6) for row in features_of(tmp_path / "b.gpkg")] == [119.0, 4, 4]


@pytest.mark.parametrize("known_crs", [32633, 4326, 3857])
def test_what_another_layer_holds_is_left_out(tmp_path, capsys, known_crs):
    shapes = [box(0, 0, 10, 10), box(20, 0, 10, 10), box(40, 0, 10, 10), box(60, 0, 10, 10)]
    vector_file(tmp_path / "a.gpkg", shapes)
    held = np.array([box(0, 0, 10, 10), box(20, 0, 4, 10), box(40, 0, 3, 10), box(46, 0, 4, 10)], dtype=object)
    x, y = rasterio.warp.transform(UTM, CRS.from_epsg(known_crs), *shapely.get_coordinates(held).T)
    held = shapely.set_coordinates(held, np.stack([x, y], axis=1))
    write_layer(tmp_path / "k.fgb", ((s, ()) for s in held), {}, crs=CRS.from_epsg(known_crs).to_wkt())
    words = (tmp_path / "a.gpkg", tmp_path / "b.gpkg", "--exclude", tmp_path / "k.fgb", "--overwrite")
    assert run(*words) == 0
    assert "4 features, 2 known, 2 written" in capsys.readouterr().out
    assert [row[2].bounds[0] for row in features_of(tmp_path / "b.gpkg")] == [500_020, 500_060]
    assert run(*words, "--exclude-overlap", 0.3) == 0
    assert "3 known, 1 written" in capsys.readouterr().out
    assert run(*words, "--exclude-overlap", 0.8) == 0
    assert "1 known, 3 written" in capsys.readouterr().out


EAST, NORTH = 1 / 55_800, 1 / 111_412  # degrees for a metre at 60 degrees north


@pytest.mark.parametrize(
    ("crs", "pixel"),
    [(32633, (0.5, 0.5)), (32633, (0.4, 0.8)), (4326, (0.5 * EAST, 0.5 * NORTH)), (4326, (1e-5, 5e-6))],
)
def test_right_angles_are_right_on_the_ground(tmp_path, capsys, crs, pixel):
    unit = (1.0, 1.0) if crs == 32633 else (EAST, NORTH)
    corner = (500_000.0, 5_800_000.0) if crs == 32633 else (15.0, 60.0)
    transform = (pixel[0], 0.0, corner[0], 0.0, -pixel[1], corner[1])
    metres = [shapely.affinity.rotate(shapely.box(x, -40, x + 24, -25), 20) for x in (10, 50)]
    metres.append(shapely.Point(42, -9).buffer(8))
    shapes = [shapely.affinity.affine_transform(s, (unit[0], 0, 0, unit[1], *corner)) for s in metres]
    labels = rasterio.features.rasterize(
        [(s, 1) for s in shapes], (140, 250), dtype=np.uint8, transform=rasterio.Affine(*transform)
    )
    label_map(tmp_path / "a.tif", labels, geo=Geo(CRS.from_epsg(crs).to_wkt(), transform))
    words = (tmp_path / "a.tif", tmp_path / "b.gpkg", "--vectorize", "roof", "--overwrite")
    assert run(*words) == 0
    exact = features_of(tmp_path / "b.gpkg")
    assert run(*words, "--square") == 0
    assert "3 features, 2 with right angles, 3 written" in capsys.readouterr().out
    found = features_of(tmp_path / "b.gpkg")
    assert found[2][2].wkb == exact[2][2].wkb  # left as it was
    for *_, polygon, area in found[:2]:
        edges = np.diff(np.array(polygon.exterior.coords), axis=0) / unit
        assert len(edges) == 4
        cosines = (edges[:-1] * edges[1:]).sum(1) / np.hypot(*edges[:-1].T) / np.hypot(*edges[1:].T)
        assert np.abs(cosines).max() < 0.01
        assert area == pytest.approx(360, rel=0.02)


def test_pixels_of_right_angles_are_those_of_the_place(tmp_path):
    """The same outlines of pixels at the equator and at 68 N, where a pixel is 0.38 as wide on the ground."""
    blob = rasterio.features.rasterize(
        [(shapely.Point(12, 12).buffer(9), 1), (shapely.affinity.rotate(shapely.box(30, 6, 46, 16), 20), 1)], (25, 50)
    )
    labels, rows = np.zeros((5500, 50), np.uint8), (300, 5450)
    for row in rows:
        labels[row : row + 25] = blob
    geo = Geo(CRS.from_epsg(3857).to_wkt(), (2000.0, 0.0, 0.0, 0.0, -2000.0, 11_000_000.0))
    label_map(tmp_path / "a.tif", labels, geo=geo)
    assert run(tmp_path / "a.tif", tmp_path / "b.gpkg", "--vectorize", "roof", "--square", "--simplify", 1.5) == 0
    shapes = [row[2] for row in features_of(tmp_path / "b.gpkg")]
    pixels = [shapely.transform(s, lambda p: np.array([geo.pixel(x, y) for x, y in p])) for s in shapes]
    upper, lower = ([s for s in pixels if (s.bounds[1] > 3000) == low] for low in (False, True))
    for one, other in zip(upper, lower, strict=True):
        one = shapely.affinity.translate(one, 0, rows[1] - rows[0])
        assert shapely.get_num_coordinates(one) == shapely.get_num_coordinates(other)
        assert shapely.hausdorff_distance(one, other) < 0.2


def test_outlines_are_simplified_before_they_are_merged(tmp_path, capsys):
    """As rasters are: a thorn of 2.5 m that simplifying takes away joins nothing."""
    thorn = shapely.Polygon([(500_010, 5_800_005), (500_012.5, 5_800_005.1), (500_010, 5_800_005.2)]).union(
        box(0, 0, 10, 10)
    )
    vector_file(tmp_path / "a.gpkg", [thorn, box(13, 0, 10, 10)])
    words = ("--merge", 1, "--simplify", 2.6)
    assert run(tmp_path / "a.gpkg", tmp_path / "b.gpkg", *words) == 0
    assert "2 features, 0 merged into others, 2 written" in capsys.readouterr().out
    found = [row[2] for row in features_of(tmp_path / "b.gpkg")]
    assert shapely.get_num_coordinates(found).tolist() == [5, 5]
    assert [row[3] for row in features_of(tmp_path / "b.gpkg")] == pytest.approx([100 / 0.9996**2] * 2, rel=1e-4)
    assert run(tmp_path / "a.gpkg", tmp_path / "c.gpkg", "--merge", 1) == 0
    assert "2 features, 1 merged" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["raster", "vector"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4269"])
def test_geojson_of_degrees_is_cut_rounded_and_within_180(tmp_path, source, crs):
    """RFC 7946 of what is in degrees already: pixels of 0.1 degrees from 0 to 360, one area across 180, one at 330."""
    wkt = CRS.from_user_input(crs).to_wkt()
    labels = np.zeros((40, 3600), np.uint8)
    labels[10:20, 1790:1815] = labels[10:20, 3300:3350] = 1
    geo = Geo(wkt, (0.1, 0.0, 0.05, 0.0, -0.1, 10.0 / 3))
    label_map(tmp_path / "a.tif", labels, geo=geo)
    given = tmp_path / "a.tif"
    if source == "vector":
        given = tmp_path / "a.gpkg"
        assert run(tmp_path / "a.tif", given, "--vectorize", "roof") == 0
    assert run(given, tmp_path / "b.geojson", "--vectorize", "roof") == 0
    found = features_of(tmp_path / "b.geojson")
    north, south = 10 / 3 - 1, 10 / 3 - 2
    expected = [
        shapely.box(-29.95, south, -24.95, north),
        shapely.union(shapely.box(179.05, south, 180, north), shapely.box(-180, south, -178.45, north)),
    ]
    for (*_, shape, area), right in zip(found, expected, strict=True):
        assert shapely.hausdorff_distance(shape, right) < 2e-3
        assert area == pytest.approx(square_metres(right), rel=2e-3)
        points = shapely.get_coordinates(shape)
        assert np.array_equal(points.round(8), points)
        assert np.abs(points[:, 0]).max() <= 180


def test_a_vector_file_passes_through_unchanged(tmp_path, capsys):
    lon_lat = CRS.from_epsg(4326)
    shapes = [shapely.Polygon(np.random.default_rng(i).normal(15 + i, 0.1, (3, 2))) for i in range(30)]
    write_layer(tmp_path / "a.gpkg", ((s, ("x",)) for s in shapes), {"class": str}, crs=lon_lat.to_wkt())
    for name in ("b.gpkg", "b.fgb", "b.geojson"):
        assert run(tmp_path / "a.gpkg", tmp_path / name) == 0
        found = read_vectors(tmp_path / name).shapes
        kept = [shapely.transform(s, lambda p: p.round(8)) for s in shapes] if name == "b.geojson" else shapes
        assert {s.normalize().wkb for s in found} == {s.normalize().wkb for s in kept}  # a millimetre in GeoJSON
        assert [row[3] for row in features_of(tmp_path / name)] == pytest.approx(
            sorted(square_metres(shapely.segmentize(shapes, 0.001)), reverse=True), rel=1e-6
        )
    assert run(tmp_path / "a.gpkg", tmp_path / "c.gpkg", "--min-area", 1e9) == 0
    assert "below 1e+09 m2" in capsys.readouterr().out.splitlines()[-1]


def test_vector_files_are_simplified_in_metres(tmp_path):
    wave = [(x, 10 + 0.2 * (x % 2)) for x in range(41)]
    polygon = shapely.Polygon([(0, 0), *((x, y) for x, y in wave), (40, 0)])
    polygon = shapely.affinity.translate(polygon, 500_000, 5_800_000)
    vector_file(tmp_path / "a.gpkg", [polygon])
    assert run(tmp_path / "a.gpkg", tmp_path / "b.gpkg", "--simplify", 0.5) == 0
    assert shapely.get_num_coordinates(features_of(tmp_path / "b.gpkg")[0][2]) == 5


def test_mended_and_lost_features_are_counted(tmp_path, capsys):
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    flat = shapely.Polygon([(0, 0), (2, 2), (0, 0)])
    held = {"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
        for shape in (bow, flat, shapely.box(5, 5, 6, 6))
    ]}  # fmt: skip
    (tmp_path / "a.geojson").write_text(json.dumps(held))
    assert run(tmp_path / "a.geojson", tmp_path / "b.gpkg") == 0
    said = capsys.readouterr().out
    assert "2 features, 1 with invalid rings, repaired, 1 without an area, left out, 2 written" in said
    assert {row[0] for row in features_of(tmp_path / "b.gpkg")} == {"object"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a.tif", "b.shp"), "b.shp: OUT: unknown extension of a vector file; expected .geojson, .gpkg, .fgb"),
        (("none.tif", "b.gpkg"), "none.tif: no such file"),
        (("a.tif", "b.gpkg", "--merge", "-1"), "merge: -1.0; expected a number from 0"),
        (("a.tif", "b.gpkg", "--min-area", "nan"), "min-area: nan; expected a number from 0"),
        (("a.tif", "b.gpkg", "--exclude-overlap", "2"), "--exclude-overlap: 2.0; expected a share from 0, below 1"),
        (
            ("a.tif", "b.gpkg", "--exclude-overlap", "0.3"),
            "--exclude-overlap: a share of no layer; give the layer with --exclude",
        ),
        (("a.tif", "b.gpkg", "--simplify", "inf"), "simplify: inf; expected a number from 0"),
        (("a.tif", "b.gpkg", "--simplify", "nan"), "simplify: nan; expected a number from 0"),
        (("/vsicurl/http://localhost/a.tif", "b.gpkg"), "a.tif: no such file; remote paths are not read"),
        (("https://localhost/a.tif", "b.gpkg"), "a.tif: no such file; remote paths are not read"),
        (("a.tif", "b.gpkg", "--exclude", "none.gpkg"), "none.gpkg: no such file"),
        (("a.tif", "b.gpkg", "--vectorize", "rof"), '--vectorize: no class "rof"; did you mean "roof"'),
        (("k.gpkg", "k.gpkg", "--overwrite"), "k.gpkg: OUT: is also an input"),
        (("a.tif", "k.gpkg"), "k.gpkg: OUT: already exists; replace it with --overwrite"),
        (
            ("k.gpkg", "b.gpkg", "--min-pixels", "3"),
            "--min-pixels: pixels of a vector file; give --min-area in square metres",
        ),
        (("k.gpkg", "b.gpkg", "--field", "klass"), 'k.gpkg: no field "klass"'),
        (("a.tif", "b.gpkg", "--assume-crs", "EPSG:1"), 'CRS: "EPSG:1"'),
    ],
)
def test_bad_usage_is_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    label_map(tmp_path / "a.tif")
    vector_file(tmp_path / "k.gpkg", [box(0, 0, 1, 1)])
    before = (tmp_path / "k.gpkg").read_bytes()
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.tif", "k.gpkg"}
    assert (tmp_path / "k.gpkg").read_bytes() == before


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    tiny_task().save(path)
    return path


def scene(path, **profile):
    array = np.random.default_rng(0).integers(1, 1000, (4, 40, 50)).astype("uint16")
    place = {"crs": UTM, "transform": rasterio.Affine(*GEO.transform), "photometric": "MINISBLACK"}
    write_tiff(path, array, **place | profile)


@pytest.mark.parametrize("windows", [(), ("--tile-size", "32", "--margin", "0")], ids=["whole", "windows"])
def test_predicted_polygons_say_how_sure_the_model_is(model, tmp_path, windows):
    scene(tmp_path / "a.tif")
    for kind in ("geojson", "gpkg", "fgb"):
        words = [
            tmp_path / "a.tif",
            "--out",
            tmp_path / kind,
            "--polygons",
            kind,
            "--probabilities",
            "float32",
            *windows,
        ]
        assert main(["predict", str(model), *map(str, words)]) == 0
    with rasterio.open(tmp_path / "gpkg" / "a.probs.tif") as source:
        marks = (255 * source.read().max(0)).round()
    found = {kind: read_vectors(tmp_path / kind / f"a.{kind}", field="score") for kind in ("geojson", "gpkg", "fgb")}
    geo = Geo(UTM.to_wkt(), GEO.transform)
    for shape, score in zip(found["gpkg"].shapes, found["gpkg"].column, strict=True):
        corners = np.array([geo.pixel(x, y) for x, y in shapely.get_coordinates(shape)])
        inside = rasterio.features.rasterize([shapely.set_coordinates(shape, corners)], marks.shape) > 0
        assert float(score) == pytest.approx(marks[inside].mean() / 255, abs=6e-4)
    assert sorted(found["gpkg"].column) == sorted(found["fgb"].column) == sorted(found["geojson"].column)
    info = pyogrio.read_info(tmp_path / "gpkg" / "a.gpkg")
    assert (list(info["fields"]), info["layer_name"]) == (list(FIELDS), "a")


@pytest.mark.parametrize("kind", ["gpkg", "fgb"])
def test_fault_11_predicted_layers_need_a_coordinate_system(model, tmp_path, capsys, kind):
    scene(tmp_path / "a.tif", crs=None)
    words = ["predict", str(model), str(tmp_path / "a.tif"), "--out", str(tmp_path / "out"), "--polygons", kind]
    assert main(words) == 2
    assert "no coordinate system, so no longitude and latitude; give --assume-crs" in capsys.readouterr().err
    assert main([*words, "--assume-crs", "EPSG:32633"]) == 0
    assert pyogrio.read_info(tmp_path / "out" / f"a.{kind}")["crs"] == "EPSG:32633"


@pytest.mark.parametrize("verb", ["polygons", "evaluate", "compare"])
def test_features_without_a_class_are_left_out_and_counted(tmp_path, capsys, verb):
    held = write_geojson(tmp_path / "a.geojson", [square(3, 3), square(15, 3), square(27, 3)], ["roof", None, " "])
    scene = write_map(tmp_path / "scene.tif")
    words = {
        "polygons": ["polygons", held, tmp_path / "out.geojson"],
        "evaluate": ["evaluate", held, held, "--json", tmp_path / "scores.json"],
        "compare": ["compare", scene, "--truth", held, "--out", tmp_path / "sheets"],
    }[verb]
    words = [str(word) for word in (*words, "--field", "kind")]
    assert main(words) == 2
    assert "a.geojson: kind: 2 features without a value; give them one, leave them out with" in capsys.readouterr().err
    assert main([*words, "--without-class", "skip"]) == 0
    assert "2 features without a class, left out" in capsys.readouterr().out.replace("2 without", "2 features without")
    if verb == "polygons":
        (feature,) = json.loads((tmp_path / "out.geojson").read_text())["features"]
        assert feature["properties"]["class"] == "roof"
    if verb == "evaluate":
        scores = json.loads((tmp_path / "scores.json").read_text())["objects"]
        assert list(scores["classes"]) == ["roof"]
