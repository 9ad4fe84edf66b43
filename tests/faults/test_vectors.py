"""What must happen when `fpn rasterize` is given bad or unusual labels; the numbers are those of faults.md."""

import http.server
import json
import sqlite3
import threading

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from made_data import write_tiff
from torchfpn.cli.main import main
from torchfpn.errors import FPNError
from torchfpn.io.vectors import read_vectors
from torchfpn.vector.geometry import repair

PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)}
UTM_MEMBER = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}


def box(west=5, north=5, size=10):
    """A square on the image, in its metres."""
    return shapely.box(5e5 + west, 5e6 - north - size, 5e5 + west + size, 5e6 - north)


def geojson(path, shapes, values=None, **members):
    geometries = [
        shape if shape is None or isinstance(shape, dict) else shapely.geometry.mapping(shape) for shape in shapes
    ]
    properties = [{"kind": value} for value in values or ["x"] * len(shapes)]
    features = [
        {"type": "Feature", "properties": p, "geometry": g} for p, g in zip(properties, geometries, strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": UTM_MEMBER, "features": features} | members))
    return path


def image(path, size=(40, 50), **profile):
    path.parent.mkdir(exist_ok=True)
    return write_tiff(path, np.ones((1, *size), np.uint8), **(PLACE | profile))


def run(tmp_path, labels, *words):
    if not (tmp_path / "a.tif").exists():
        image(tmp_path / "a.tif")
    return main(["rasterize", str(labels), str(tmp_path / "a.tif"), "--out", str(tmp_path / "out"), *map(str, words)])


def mask(tmp_path):
    with rasterio.open(tmp_path / "out" / "a.tif") as source:
        return source.read(1)


def line(capsys):
    (error,) = capsys.readouterr().err.splitlines()
    return error


def test_fault_28_invalid_rings_are_mended_and_counted(tmp_path, capsys):
    x, y = 5e5 + 10, 5e6 - 10
    bow = {"type": "Polygon", "coordinates": [[[x, y], [x + 10, y - 10], [x + 10, y], [x, y - 10], [x, y]]]}
    unclosed = {"type": "Polygon", "coordinates": [[[x + 20, y], [x + 30, y], [x + 30, y - 10], [x + 20, y - 10]]]}
    two = {"type": "Polygon", "coordinates": [[[x, y], [x + 1, y]]]}
    assert run(tmp_path, geojson(tmp_path / "l.geojson", [bow, unclosed, two, None, box()])) == 0
    assert "5 features, 2 with invalid rings, repaired, 2 without an area, left out" in capsys.readouterr().out
    labels = mask(tmp_path)
    assert labels[10:20, 30:40].all()
    assert labels[10:20, 15:20].sum() >= 20  # the half of the bow tie that no other polygon covers
    assert labels[10:20, 10:20].sum() < 100


def test_fault_28_lines_and_points_are_counted_and_refused(tmp_path, capsys):
    line_ = shapely.LineString([(5e5 + 5, 5e6 - 30.5), (5e5 + 45, 5e6 - 30.5)])
    labels = geojson(tmp_path / "l.geojson", [box(), line_, shapely.Point(5e5 + 40, 5e6 - 10)])
    assert run(tmp_path, labels) == 2
    assert line(capsys) == (
        f"fpn: {labels}: 1 lines and 1 points among 3 features; expected polygons; "
        "remove them, or make areas of them with --buffer METRES"
    )
    assert not (tmp_path / "out" / "a.tif").exists()
    assert run(tmp_path, labels, "--buffer", 2) == 0
    assert "2 lines and points widened" in capsys.readouterr().out
    drawn = mask(tmp_path)
    assert drawn[29:32, 10:40].all()
    assert not drawn[33:, :].any()
    assert abs(int(drawn[5:15, 36:45].sum()) - 12) <= 4


def test_fault_28_labels_in_another_coordinate_system_are_reprojected(tmp_path):
    expected = None
    for crs in ("EPSG:32633", "EPSG:4326", "EPSG:3857"):
        points = shapely.get_coordinates(box())
        x, y = rasterio.warp.transform("EPSG:32633", crs, *points.T)
        moved = shapely.Polygon(np.stack([x, y], 1))
        wkb = np.array([shapely.to_wkb(moved)], dtype=object)
        fields = {"driver": "GPKG", "geometry_type": "Polygon", "crs": crs}
        pyogrio.raw.write(tmp_path / "l.gpkg", wkb, [np.array([1])], ["n"], **fields)
        assert run(tmp_path, tmp_path / "l.gpkg", "--overwrite") == 0
        expected = mask(tmp_path) if expected is None else expected
        assert np.array_equal(mask(tmp_path), expected)
    assert expected.sum() == 100


def test_fault_28_empty_labels_are_background_and_a_note_says_so(tmp_path, capsys):
    for name in ("kind", None):
        words = ("--field", name) if name else ()
        assert run(tmp_path, geojson(tmp_path / "l.geojson", []), "--overwrite", *words) == 0
        assert "l.geojson  no feature, so all is background" in capsys.readouterr().out
        assert not mask(tmp_path).any()


def test_fault_28_labels_without_a_coordinate_system(tmp_path, capsys):
    wkb = np.array([shapely.to_wkb(box())], dtype=object)
    with pytest.warns(UserWarning, match="crs"):
        pyogrio.raw.write(tmp_path / "l.shp", wkb, [np.array([1])], ["n"], crs=None, geometry_type="Polygon")
    assert run(tmp_path, tmp_path / "l.shp") == 2
    assert line(capsys) == f"fpn: {tmp_path}/l.shp: says no coordinate system; give it with --assume-crs EPSG:..."
    assert run(tmp_path, tmp_path / "l.shp", "--assume-crs", "EPSG:32633") == 0
    assert mask(tmp_path).sum() == 100
    capsys.readouterr()
    labels = geojson(tmp_path / "l.geojson", [box()], crs=None)
    assert run(tmp_path, labels, "--overwrite") == 2  # metres, where GeoJSON means degrees
    assert "longitude and latitude in GeoJSON that names no coordinate system" in line(capsys)
    assert run(tmp_path, labels, "--overwrite", "--assume-crs", "EPSG:32633") == 0
    assert mask(tmp_path).sum() == 100
    assert run(tmp_path, labels, "--overwrite", "--assume-crs", "EPSG:999999") == 2


def test_fault_28_labels_elsewhere_are_a_warning(tmp_path, capsys):
    labels = geojson(tmp_path / "l.geojson", [box(west=1000)])
    assert run(tmp_path, labels) == 0
    out, err = capsys.readouterr()
    assert "no feature overlaps it, so all is background" in out
    assert err == f"fpn: {labels}: its features overlap no image; check its coordinate system and axis order\n"


def test_fault_28_unknown_classes_name_the_nearest(tmp_path, capsys):
    labels = geojson(tmp_path / "l.geojson", [box(), box(20)], ["building", "buildinx"])
    words = ("--field", "kind", "--classes", "background,building")
    assert run(tmp_path, labels, *words) == 2
    assert line(capsys) == f'fpn: {labels}: kind: no class "buildinx" in 1 feature; did you mean "building"?'
    assert run(tmp_path, labels, "--field", "kinds") == 2
    assert line(capsys) == f'fpn: {labels}: no field "kinds"; did you mean "kind"?'


def test_fault_28_a_pixel_of_two_classes_goes_to_the_later_one_and_is_counted(tmp_path, capsys):
    labels = geojson(tmp_path / "l.geojson", [box(), box(10), box(30)], ["road", "field", "road"])
    assert run(tmp_path, labels, "--field", "kind") == 0
    assert (
        "50 pixels are covered by features of several classes; the last in the file counts" in capsys.readouterr().out
    )
    assert (mask(tmp_path) == 1).sum() == 100  # field
    assert (mask(tmp_path) == 2).sum() == 150


def test_fault_28_coordinates_that_are_no_numbers(tmp_path, capsys):
    text = geojson(tmp_path / "l.geojson", [box(), box(20)]).read_text()
    (tmp_path / "l.geojson").write_text(text.replace("500020.0", "NaN"))
    assert run(tmp_path, tmp_path / "l.geojson") == 2
    assert "features with coordinates that are no places: 1, the first is number 2" in line(capsys)
    (tmp_path / "l.geojson").write_text(text.replace("500020.0", "1e308"))
    assert run(tmp_path, tmp_path / "l.geojson") == 2
    (tmp_path / "l.geojson").write_text(text.replace("500020.0", "9e11"))
    assert run(tmp_path, tmp_path / "l.geojson") == 0  # far, but a place


def test_fault_11_images_without_a_place(tmp_path, capsys):
    labels = geojson(tmp_path / "l.geojson", [box()])
    image(tmp_path / "a.tif", crs=None)
    assert run(tmp_path, labels) == 2
    assert line(capsys) == f"fpn: {tmp_path}/a.tif: no coordinate system; give it with --assume-crs EPSG:..."
    assert run(tmp_path, labels, "--assume-crs", "EPSG:32633") == 0
    assert mask(tmp_path).sum() == 100
    capsys.readouterr()
    for crs in (None, "EPSG:32633"):
        write_tiff(tmp_path / "a.tif", np.ones((1, 9, 9), np.uint8), crs=crs)
        assert run(tmp_path, labels, "--overwrite", "--assume-crs", "EPSG:32633") == 2
        assert "a.tif: no georeference, so nothing can be drawn on it" in line(capsys)


@pytest.mark.parametrize(
    "transform", [(1, 0, 5e5, 0, 1, 5e6 - 40), (0.6, 0.8, 5e5, 0.8, -0.6, 5e6), (2, 0, 5e5, 0, -0.5, 5e6)]
)
def test_fault_12_unusual_transforms(tmp_path, transform):
    image(tmp_path / "a.tif", transform=rasterio.Affine(*transform))
    shape = box(20, 10)
    assert run(tmp_path, geojson(tmp_path / "l.geojson", [shape])) == 0
    with rasterio.open(tmp_path / "out" / "a.tif") as source:
        drawn = source.read(1)
        assert source.transform == rasterio.Affine(*transform)
    rows, columns = np.mgrid[:40, :50]
    a, b, c, d, e, f = transform
    x, y = a * (columns + 0.5) + b * (rows + 0.5) + c, d * (columns + 0.5) + e * (rows + 0.5) + f
    inside = shapely.contains_xy(shape, x, y)
    close = shapely.distance(shapely.boundary(shape), shapely.points(x, y)) < 1e-6
    assert np.array_equal(drawn[~close] > 0, inside[~close])
    assert inside.any()


def test_fault_15_labels_across_the_180th_meridian(tmp_path):
    """Two halves, as RFC 7946 wants them, on an image in UTM that has no seam there."""
    x, y = (v[0] for v in rasterio.warp.transform("OGC:CRS84", "EPSG:32701", [180.0], [-17.0]))
    image(
        tmp_path / "a.tif", (40, 40), crs="EPSG:32701", transform=rasterio.Affine(100, 0, x - 2000, 0, -100, y + 2000)
    )
    halves = shapely.MultiPolygon(
        [shapely.box(179.99, -17.01, 180, -16.99), shapely.box(-180, -17.01, -179.99, -16.99)]
    )
    assert run(tmp_path, geojson(tmp_path / "l.geojson", [halves], crs=None)) == 0
    drawn = mask(tmp_path)
    columns = np.nonzero(drawn)[1]
    assert 420 < drawn.sum() < 520  # 2.13 by 2.21 km
    assert abs(columns.mean() - 19.5) < 1
    assert np.ptp(columns) < 24


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("l.geojson", b"", "empty file (0 bytes)"),
        ("l.geojson", b"[1, 2]", "not a GeoJSON file, despite its extension"),
        ("l.geojson", b'{"type": "FeatureCollection", "features": [{"type"', "damaged or not readable"),
        ("l.geojson", b'{"type": "Topology", "objects": {}, "arcs": []}', "damaged or not readable"),
        ("l.json", b'{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read x"}', "damaged or not"),
        ("l.json", b'{"images": [], "annotations": [], "categories": []}', "annotations of COCO, which tell pixels"),
        ("l.gpkg", b"SQLite format 3\0" + bytes(600), "not a GPKG file"),
        ("l.fgb", b"fgb\x03fgb\x00" + bytes(40), "cut off"),
        ("l.shp", b"\0\0\x27\x0a" + bytes(96), "damaged or not readable"),
        ("l.kml", b"<kml/>", "not a vector file this program reads"),
        ("l.csv", b"WKT\n", "not a vector file this program reads"),
        ("l.zip", b"PK\3\4", "not a vector file this program reads"),
    ],
)
def test_fault_28_files_that_are_no_labels(tmp_path, capsys, name, data, said):
    (tmp_path / name).write_bytes(data)
    assert run(tmp_path, tmp_path / name) == 2
    error = line(capsys)
    assert error.startswith(f"fpn: {tmp_path / name}: ")
    assert said in error


@pytest.mark.parametrize("path", ["/vsicurl/http://127.0.0.1/l.geojson", "http://127.0.0.1/l.geojson", "GPKG:l.gpkg"])
def test_fault_03_nothing_but_local_files_is_opened(tmp_path, capsys, path):
    assert run(tmp_path, path) == 2
    error = line(capsys)
    assert "cannot be opened" in error or "not a vector file" in error


@pytest.mark.parametrize(
    "kind", ["link", "name", "link with a name", "deep link", "escaped link", "capital link", "second link"]
)
def test_fault_03_a_coordinate_system_from_the_net_is_not_fetched(tmp_path, capsys, kind):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/crs"
        inner = {"name": url} if kind == "name" else {"href": url, "type": "ogcwkt"}
        inner |= {"link with a name": {"name": "EPSG:4326"}, "deep link": {"a": {"b": {}}}}.get(kind, {})
        labels = geojson(
            tmp_path / "l.geojson", [box()], crs={"type": "name" if kind == "name" else "link", "properties": inner}
        )
        text = labels.read_text()
        if kind == "escaped link":
            text = text.replace('"crs"', '"\\u0063rs"').replace('"link"', '"li\\u006ek"')
        if kind == "capital link":
            text = text.replace('"crs"', '"CRS"')
        if kind == "second link":
            text = text.replace('"crs"', f'"crs": {json.dumps(UTM_MEMBER)}, "crs"')
        labels.write_text(text)
        assert run(tmp_path, labels) == 2
        server.shutdown()
    assert asked == []
    assert "its coordinate system is" in line(capsys)


def test_fault_03_a_geopackage_that_is_plain_sqlite_is_refused(tmp_path, capsys):
    with sqlite3.connect(tmp_path / "l.gpkg") as base:
        base.execute("CREATE TABLE a (b)")
    base.close()
    assert run(tmp_path, tmp_path / "l.gpkg") == 2
    assert "not a GPKG file, despite its extension" in line(capsys)


def test_fault_03_vrts_are_refused(tmp_path, capsys):
    (tmp_path / "a.tif").write_text('<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>')
    assert run(tmp_path, geojson(tmp_path / "l.geojson", [box()])) == 2
    assert "a VRT, which may point anywhere" in line(capsys)


def test_fault_17_odd_names(tmp_path, capsys):
    folder = tmp_path / "ä b\nc"
    folder.mkdir()
    assert run(tmp_path, geojson(folder / "l!ü?.geojson", [box()])) == 0
    assert mask(tmp_path).sum() == 100
    assert len(capsys.readouterr().err) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 40))
def test_fault_28_mutated_files_give_labels_or_one_line(tmp_path_factory, seed, count):
    path = tmp_path_factory.mktemp("fuzz") / "l.geojson"
    hole = shapely.Polygon(box().exterior, [box(8, 8, 3).exterior])
    data = bytearray(geojson(path, [box(), hole, shapely.MultiPolygon([box(), box(30)])]).read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), count):
        data[place] = rng.integers(32, 127)
    path.write_bytes(data)
    error = None
    try:
        repair(read_vectors(path, field="kind"))
    except FPNError as raised:
        error = str(raised)
    assert error is None or ("l.geojson" in error and "\n" not in error)


def write_vectors(path, driver):
    """Thirty squares with an attribute."""
    shapes = np.array([box(3 * i, 2 * i) for i in range(30)], dtype=object)
    kinds = np.array([f"kind{i % 3}" for i in range(30)], dtype=object)
    pyogrio.raw.write(
        path, shapely.to_wkb(shapes), [kinds], ["kind"], driver=driver, geometry_type="Polygon", crs="EPSG:32633"
    )
    return shapes


@pytest.mark.parametrize(
    ("name", "part", "driver"),
    [("a.shp", "a.shp", "ESRI Shapefile"), ("a.shp", "a.shx", "ESRI Shapefile"), ("a.shp", "a.dbf", "ESRI Shapefile"),
     ("a.fgb", "a.fgb", "FlatGeobuf"), ("a.gpkg", "a.gpkg", "GPKG")],
)  # fmt: skip
def test_vector_files_that_are_cut_off_are_refused_wherever_the_cut_is(tmp_path, name, part, driver):
    shapes = write_vectors(tmp_path / name, driver)
    assert len(read_vectors(tmp_path / name, field="kind").shapes) == len(shapes)
    whole = (tmp_path / part).read_bytes()
    end = len(whole) - (1 if part.endswith(".dbf") else 0)  # a mark ends the table, after its last row
    for size in sorted({int(end * i / 41) for i in range(41)} | {end - 1, end - 4}):
        (tmp_path / part).write_bytes(whole[:size])
        with pytest.raises(FPNError, match=r"a\.\w+"):
            read_vectors(tmp_path / name, field="kind")


def test_an_attribute_table_of_another_shapefile_is_refused(tmp_path, capsys):
    write_vectors(tmp_path / "a.shp", "ESRI Shapefile")
    pyogrio.raw.write(
        tmp_path / "b.shp", shapely.to_wkb(np.array([box()])), [np.array(["x"])], ["kind"],
        driver="ESRI Shapefile", geometry_type="Polygon", crs="EPSG:32633",
    )  # fmt: skip
    (tmp_path / "b.dbf").replace(tmp_path / "a.dbf")
    assert run(tmp_path, tmp_path / "a.shp", "--field", "kind") == 2
    assert "a.shp: 30 features, and 1 row in a.dbf; expected as many rows" in line(capsys)


@pytest.mark.parametrize("count", [0, 1, 16, 17, 300])
@pytest.mark.parametrize("index", ["YES", "NO"])
def test_whole_flatgeobufs_of_any_number_of_features_are_read(tmp_path, count, index):
    shapes = np.array([box(i % 7, i % 5) for i in range(count)], dtype=object)
    pyogrio.raw.write(
        tmp_path / "a.fgb", shapely.to_wkb(shapes), [np.arange(count)], ["n"],
        driver="FlatGeobuf", geometry_type="Polygon", crs="EPSG:32633", SPATIAL_INDEX=index,
    )  # fmt: skip
    assert len(read_vectors(tmp_path / "a.fgb").shapes) == count
