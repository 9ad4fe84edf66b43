"""GeoPackage and FlatGeobuf: written as features come, whole or not at all, the same bytes again."""

import shutil
import subprocess
import sys
import time

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.crs import CRS

from torchfpn.errors import DataError, WriteError
from torchfpn.io.vector_writing import write_layer
from torchfpn.io.vectors import read_vectors

UTM = CRS.from_epsg(32633).to_wkt()
FIELDS = {"class": str, "class_id": int, "score": float, "area": float}
ENDINGS = pytest.mark.parametrize("ending", ["gpkg", "fgb"])


def rows(count):
    for i in range(count):
        yield (
            shapely.box(i, 0, i + 0.5, 1.25),
            ("Straße" if i % 2 else 'fie"ld', i % 3, i / 10 if i % 5 else None, 0.625),
        )


@ENDINGS
def test_what_is_written_is_read(tmp_path, ending):
    path = tmp_path / f"a b.{ending}"
    assert write_layer(path, rows(12), FIELDS, crs=UTM) == 12
    info = pyogrio.read_info(path)
    assert (info["layer_name"], info["crs"], info["features"]) == ("a b", "EPSG:32633", 12)
    assert (info["geometry_type"], list(info["fields"])) == ("Polygon", list(FIELDS))
    found = read_vectors(path, field="class")
    order = np.argsort(shapely.bounds(found.shapes)[:, 0])  # FlatGeobuf has an order of its own
    assert all(a.equals_exact(b) for a, b in zip(found.shapes[order], [row[0] for row in rows(12)], strict=True))
    assert [found.column[i] for i in order] == [row[1][0] for row in rows(12)]
    scores = [read_vectors(path, field="score").column[i] for i in order]
    assert scores[:6] == [None, "0.1", "0.2", "0.3", "0.4", None]
    assert list(tmp_path.iterdir()) == [path]


@ENDINGS
def test_many_features_are_written_in_several_batches_and_all_are_read(tmp_path, ending):
    path, count = tmp_path / f"many.{ending}", 10_050  # a batch has at most 10,000
    assert write_layer(path, rows(count), FIELDS, crs=UTM) == count
    found = read_vectors(path, field="class_id")
    order = np.argsort(shapely.bounds(found.shapes)[:, 0])
    assert shapely.bounds(found.shapes)[order, 0].tolist() == list(range(count))
    assert [found.column[i] for i in order] == [i % 3 for i in range(count)]
    info = pyogrio.read_info(path)
    assert info["features"] == count
    assert info["capabilities"]["fast_spatial_filter"]


@ENDINGS
def test_two_runs_give_the_same_bytes(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    code = (
        "import shapely, sys\nfrom torchfpn.io.vector_writing import write_layer\n"
        f"write_layer(sys.argv[1], [(shapely.box(0, 0, 1, 1), ('a', 1))], {{'a': str, 'b': int}}, crs={UTM!r})"
    )
    found = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, path], check=True)
        found.append(path.read_bytes())
        time.sleep(1.1)
    assert found[0] == found[1]


@ENDINGS
@pytest.mark.parametrize("multi", [False, True])
def test_no_features_are_a_valid_layer(tmp_path, ending, multi):
    path = tmp_path / f"a.{ending}"
    assert write_layer(path, [], FIELDS, crs=UTM, multi=multi) == 0
    info = pyogrio.read_info(path, force_feature_count=True)
    assert (info["features"], list(info["fields"]), info["crs"]) == (0, list(FIELDS), "EPSG:32633")
    assert info["geometry_type"] == ("MultiPolygon" if multi else "Polygon")


def test_a_layer_of_multipolygons_takes_both(tmp_path):
    two = shapely.multipolygons([shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)])
    write_layer(
        tmp_path / "a.gpkg", [(shapely.box(5, 5, 6, 6), ("a",)), (two, ("b",))], {"class": str}, crs=UTM, multi=True
    )
    shapes = read_vectors(tmp_path / "a.gpkg").shapes
    assert [shape.geom_type for shape in shapes] == ["MultiPolygon"] * 2
    assert [shape.area for shape in shapes] == [1, 2]


@ENDINGS
@pytest.mark.parametrize("stem", ["gpkg_roads", "a'b\"c", "ä\udcff", "select", "x" * 200])
def test_layers_of_any_name(tmp_path, ending, stem):
    path = tmp_path / f"{stem}.{ending}"
    write_layer(path, [(shapely.box(0, 0, 1, 1), ("ä\udcff",))], {"class": str}, crs=UTM)
    copied = shutil.copy(path, tmp_path / f"copy.{ending}")
    expected = {"gpkg_roads": "_gpkg_roads", "ä\udcff": "ä?"}.get(stem, stem)
    assert pyogrio.list_layers(copied)[0][0] == expected
    assert read_vectors(copied, field="class").column.tolist() == ["ä?"]


@ENDINGS
def test_a_failure_leaves_what_was_there(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    write_layer(path, rows(1), FIELDS, crs=UTM)
    before = path.read_bytes()

    def failing():
        yield from rows(2)
        raise KeyError("no more")

    with pytest.raises(KeyError):
        write_layer(path, failing(), FIELDS, crs=UTM)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.kml: not a vector file this program writes; expected \.gpkg, \.fgb"):
        write_layer(tmp_path / "a.kml", [], FIELDS, crs=UTM)
    with pytest.raises(WriteError, match="cannot be written"):
        write_layer(tmp_path / "none" / "a.gpkg", [], FIELDS, crs=UTM)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_features(tmp_path):
    code = (
        "import resource, shapely, sys\ncount = int(sys.argv[2])\nfrom torchfpn.io.vector_writing import write_layer\n"
        "rows = ((shapely.box(i % 1000, i // 1000, i % 1000 + 1, i // 1000 + 1), 'a') for i in range(count))\n"
        f"write_layer(sys.argv[1], rows, {{'class': str}}, crs={UTM!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    for ending, more in (("gpkg", 16), ("fgb", 96)):  # MiB; the index of FlatGeobuf is made in memory
        peaks = []
        for count in (50_000, 500_000):
            words = [sys.executable, "-c", code, tmp_path / f"a.{ending}", str(count)]
            peaks.append(int(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
        assert peaks[1] < peaks[0] + more, peaks
