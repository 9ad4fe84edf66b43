"""Outlines of label maps: exact, valid, with holes, in longitude and latitude."""

import subprocess
import sys

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from torchfpn.errors import RasterError
from torchfpn.geo.crs import square_metres
from torchfpn.geo.georef import Geo
from torchfpn.inference.outputs import write_polygons
from torchfpn.vector.features import trace
from torchfpn.vector.polygonize import trace_blocks

UTM = CRS.from_epsg(32633).to_wkt()
GEO = Geo(UTM, (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0))
NAMES = {1: "field", 2: "road", 3: "roof"}


def maps(seed, size=(24, 31), values=4, blocks=3):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, values, (-(-size[0] // blocks), -(-size[1] // blocks)))
    return np.kron(coarse, np.ones((blocks, blocks), int))[: size[0], : size[1]].astype(np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5]))
def test_drawn_again_the_polygons_give_the_map(seed, blocks):
    labels = maps(seed, blocks=blocks)
    features = trace(labels, None, NAMES, coordinates="pixels")
    again = np.zeros_like(labels)
    for feature in features:
        assert feature.polygon.is_valid
        again |= rasterio.features.rasterize([(feature.polygon, feature.value)], labels.shape, dtype=np.uint8)
    assert np.array_equal(again, labels)
    assert sum(f.area for f in features) == (labels > 0).sum()
    assert [f.value for f in features] == sorted(f.value for f in features)


def test_holes_are_kept_and_small_things_left_out():
    labels = np.ones((20, 20), np.uint8)
    labels[4:8, 4:8] = 2
    labels[12, 12] = 2
    (whole,) = trace(labels, None, {1: "field"}, coordinates="pixels")
    assert len(whole.polygon.interiors) == 2
    assert whole.area == 400 - 16 - 1
    kept = trace(labels, None, NAMES, coordinates="pixels", min_pixels=2)
    assert [f.name for f in kept] == ["field", "road"]
    assert len(kept[0].polygon.interiors) == 1
    assert kept[1].area == 16


def test_only_the_named_values_are_traced():
    assert [f.name for f in trace(maps(1), None, {3: "roof"}, coordinates="pixels")][:1] == ["roof"]
    assert trace(maps(1), None, {9: "ship"}, coordinates="pixels") == []
    assert trace(np.zeros((5, 5), np.uint8), GEO, NAMES) == []


def test_a_ring_that_closes_at_a_corner_is_valid():
    labels = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]], np.uint8)
    features = trace(labels, None, NAMES, coordinates="pixels")
    assert all(f.polygon.is_valid for f in features)
    assert sum(f.area for f in features) == labels.sum()


def test_coordinates_are_degrees_and_right_handed():
    labels = maps(3)
    labels[0, 0] = 1
    features = trace(labels, GEO, NAMES)
    lon, lat = rasterio.warp.transform(UTM, "EPSG:4326", [500_000.0, 500_015.5], [5_800_000.0, 5_799_988.0])
    west, south, east, north = shapely.total_bounds([f.polygon for f in features])
    assert [west, north] == pytest.approx([lon[0], lat[0]], abs=1e-7)
    assert [east, south] == pytest.approx([lon[1], lat[1]], abs=1e-6)
    for feature in features:
        assert feature.polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in feature.polygon.interiors)
        assert feature.polygon.is_valid
    # the same areas as in the plane, but for the 0.9996 of UTM
    area = (labels > 0).sum() * 0.25 / 0.9996**2
    assert sum(f.area for f in features) == pytest.approx(area, rel=1e-5)


@pytest.mark.parametrize(
    "transform",
    [
        (0.5, 0.0, 500_000.0, 0.0, 0.5, 5_800_000.0),  # south up
        (0.4, 0.3, 500_000.0, 0.3, -0.4, 5_800_000.0),  # turned
        (-0.5, 0.0, 500_000.0, 0.0, -2.0, 5_800_000.0),  # mirrored, pixels not square
    ],
)
def test_unusual_transforms_keep_places_areas_and_orientation(transform):
    labels, geo = maps(4), Geo(UTM, transform)
    features = trace(labels, geo, NAMES)
    assert all(f.polygon.exterior.is_ccw and f.polygon.is_valid for f in features)
    pixel = abs(transform[0] * transform[4] - transform[1] * transform[3])
    assert sum(f.area for f in features) == pytest.approx((labels > 0).sum() * pixel / 0.9996**2, rel=1e-4)
    points = np.concatenate([shapely.get_coordinates(f.polygon) for f in features])
    x, y = rasterio.warp.transform("EPSG:4326", UTM, *points.T)
    cells = np.array([geo.pixel(a, b) for a, b in zip(x, y, strict=True)])
    assert np.abs(cells - cells.round()).max() < 0.03  # corners of pixels, but for the rounding


def test_rounding_follows_the_pixel():
    fine = Geo(UTM, (1e-4, 0.0, 500_000.0, 0.0, -1e-4, 5_800_000.0))  # a tenth of a millimetre
    features = trace(maps(5), fine, NAMES)
    assert all(f.polygon.is_valid for f in features)
    assert sum(f.area for f in features) == pytest.approx((maps(5) > 0).sum() * 1e-8, rel=1e-3)
    coarse = Geo(UTM, (100.0, 0.0, 500_000.0, 0.0, -100.0, 5_800_000.0))
    text = trace(maps(5), coarse, NAMES)[0].to_json()
    longest = max(len(number.split(".")[1]) for number in text.replace("]", ",").split(",") if "." in number)
    assert longest <= 7


def test_simplified_outlines_are_shorter_and_valid():
    rows, columns = np.mgrid[:80, :80]
    labels = ((rows + 2 * columns > 70) & (rows - columns < 30) & (rows + columns < 120)).astype(np.uint8)
    exact = trace(labels, GEO, NAMES)[0]
    simple = trace(labels, GEO, NAMES, simplify=1.0)[0]
    assert len(simple.polygon.exterior.coords) < len(exact.polygon.exterior.coords) / 5
    assert simple.polygon.is_valid
    assert simple.area == pytest.approx(exact.area, rel=0.03)


def test_what_crosses_the_180th_meridian_is_cut():
    geo = Geo(CRS.from_epsg(32760).to_wkt(), (1000.0, 0.0, 805_000.0, 0.0, -1000.0, 8_000_000.0))
    (feature,) = trace(np.ones((20, 30), np.uint8), geo, NAMES)
    west, _, east, _ = feature.polygon.bounds
    assert feature.polygon.geom_type == "MultiPolygon"
    assert (west, east) == (-180, 180)
    assert all(part.bounds[2] - part.bounds[0] < 1 for part in feature.polygon.geoms)
    assert feature.area == pytest.approx(600e6, rel=0.01)


@pytest.mark.parametrize(("south", "north"), [(0, 1), (59.5, 60.5), (-43.66, -43.65), (-90, -80)])
def test_areas_are_those_of_the_ellipsoid(south, north):
    phi = np.radians(np.linspace(south, north, 20_001))  # the sum of its strips: meridian arc times parallel arc
    flat, axis = 1 / 298.257223563, 6378137.0
    squared = flat * (2 - flat)
    w = np.sqrt(1 - squared * np.sin(phi) ** 2)
    strips = axis * (1 - squared) / w**3 * axis * np.cos(phi) / w
    area = np.radians(1) * np.trapezoid(strips, phi)
    box = shapely.box(10, south, 11, north)
    assert square_metres(box) == pytest.approx(area, rel=1e-7)
    inner = shapely.box(10.2, south + 0.002, 10.4, south + 0.004)
    holed = shapely.Polygon(box.exterior.coords, [inner.exterior.coords])
    assert square_metres(holed) == pytest.approx(square_metres(box) - square_metres(inner), rel=1e-9)


def test_the_whole_earth_has_its_area():
    assert square_metres(shapely.box(-180, -90, 180, 90)) == pytest.approx(510_065_621_724_088, rel=1e-9)


def test_without_a_place_there_is_no_geojson():
    with pytest.raises(RasterError, match=r"no georeference.*--polygons pixels, --tiles .*, or .*--assume-crs"):
        trace(maps(1), None, NAMES, file="a.png")
    with pytest.raises(RasterError, match=r"no coordinate system.*--assume-crs"):
        trace(maps(1), Geo(None, GEO.transform), NAMES, file="a.tif")
    nowhere = Geo(UTM, (1e9, 0.0, 500_000.0, 0.0, -1e9, 5_800_000.0))
    with pytest.raises(RasterError):
        trace(maps(1), nowhere, NAMES)


def test_another_program_reads_the_file(tmp_path):
    pyogrio = pytest.importorskip("pyogrio")
    features = trace(maps(6), GEO, {1: 'fie"ld', 2: "Straße", 3: "roof"})
    path = tmp_path / "a.geojson"
    write_polygons(path, features)
    info = pyogrio.read_info(path)
    assert info["features"] == len(features)
    assert info["crs"] == "EPSG:4326"
    assert info["geometry_type"] == "Polygon"
    assert list(info["fields"]) == ["class", "class_id", "area"]
    names = pyogrio.raw.read(path, read_geometry=False)[3][0]
    assert set(names) == {'fie"ld', "Straße", "roof"}
    write_polygons(path, [])
    assert pyogrio.read_info(path, force_feature_count=True)["features"] == 0


def test_reading_the_module_needs_no_torch():
    code = "import sys, torchfpn.vector.features; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_r12_forty_maps_are_tiled_without_gap_or_overlap():
    for seed in range(40):
        labels = maps(seed, size=(20 + seed % 17, 25 + seed % 11), blocks=1 + seed % 4)
        names = {0: "rest", **NAMES}
        exact = [f.polygon for f in trace(labels, None, names, coordinates="pixels")]
        again = np.full(labels.shape, 99, np.uint8)
        for feature in trace(labels, None, names, coordinates="pixels"):
            again[rasterio.features.rasterize([feature.polygon], labels.shape) > 0] = feature.value
        assert np.array_equal(again, labels)
        (noded,) = [
            batch.polygons
            for batch in trace_blocks([(0, 0, *labels.shape)], lambda _, a=labels: a, list(names), nodes=True)
        ]
        assert shapely.coverage_is_valid(noded)
        simple = [f.polygon for f in trace(labels, None, names, coordinates="pixels", simplify=1.5)]
        assert shapely.coverage_is_valid(simple)
        assert shapely.is_valid(simple).all()
        assert shapely.area(exact).sum() == shapely.union_all(exact).area == labels.size
        together = shapely.union_all(simple)  # corners of the map may be cut off
        assert shapely.area(simple).sum() == pytest.approx(together.area, abs=1e-9)
        assert sum(part.area for part in shapely.polygons(shapely.get_exterior_ring(shapely.get_parts(together)))) == (
            pytest.approx(together.area, abs=1e-9)
        )


@pytest.mark.parametrize(
    "transform",
    [
        (0.5, 0.0, 500_000.0, 0.0, 0.5, 5_800_000.0),
        (0.4, 0.3, 500_000.0, 0.3, -0.4, 5_800_000.0),
        (-0.5, 0.0, 500_000.0, 0.0, -2.0, 5_800_000.0),
    ],
)
def test_fault_12_in_the_map_s_own_system_corners_are_exact(transform):
    labels, geo = maps(4), Geo(UTM, transform)
    in_map, in_degrees = (trace(labels, geo, NAMES, coordinates=kind) for kind in ("map", "degrees"))
    again = np.zeros_like(labels)
    for feature, other in zip(in_map, in_degrees, strict=True):
        assert feature.area == pytest.approx(other.area, rel=1e-6)
        assert feature.polygon.exterior.is_ccw
        assert feature.polygon.is_valid
        corners = np.array([geo.pixel(x, y) for x, y in shapely.get_coordinates(feature.polygon)])
        assert np.abs(corners - corners.round()).max() < 1e-6
        polygon = shapely.set_coordinates(shapely.from_wkb(feature.polygon.wkb), corners.round())
        again[rasterio.features.rasterize([polygon], labels.shape) > 0] = feature.value
    assert np.array_equal(again, labels)


def test_fault_15_scores_and_areas_of_what_is_cut_are_those_of_the_whole():
    geo = Geo(CRS.from_epsg(32760).to_wkt(), (1000.0, 0.0, 805_000.0, 0.0, -1000.0, 8_000_000.0))
    marks = np.full((20, 30), 51, np.uint8)
    cut, whole = (
        trace(np.ones((20, 30), np.uint8), geo, NAMES, scores=marks, coordinates=c)[0] for c in ("degrees", "map")
    )
    assert (cut.score, cut.area) == (whole.score, whole.area)
    assert (cut.score, cut.polygon.geom_type, whole.polygon.geom_type) == (0.2, "MultiPolygon", "Polygon")
    assert shapely.area(whole.polygon) == 600e6


PLACES = [
    (32633, (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0)),
    (32633, (1e-4, 0.0, 500_000.0, 0.0, -1e-4, 5_800_000.0)),
    (32633, (900.0, 0.0, 100_000.0, 0.0, -900.0, 5_800_000.0)),
    (32633, (0.5, 0.0, 500_000.0, 0.0, -0.001, 5_800_000.0)),  # pixels much flatter than the rounding
    (4326, (2.0, 0.0, -100.0, 0.0, -2.0, 80.0)),
    (3857, (1.2, 0.3, 1e6, 0.3, -1.2, 2e7)),
    (3413, (20_000.0, 0.0, -500_000.0, 0.0, -20_000.0, 500_000.0)),  # over the north pole
    (3035, (1000.0, 0.0, 4e6, 0.0, -1000.0, 3e6)),
]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(PLACES), st.sampled_from([0.0, 1.0]), st.integers(1, 12))
def test_polygons_are_valid_wherever_they_lie(seed, place, simplify, grain):
    labels = maps(seed, size=(60, 60), blocks=grain)
    labels[30:33] = 1  # long straight edges
    geo = Geo(CRS.from_epsg(place[0]).to_wkt(), place[1])
    assert all(f.polygon.is_valid for f in trace(labels, geo, NAMES, simplify=simplify))


def test_long_edges_that_a_coordinate_system_bends_are_looked_at():
    labels = np.ones((400, 3000), np.uint8)
    labels[200, 100:2900] = 0
    labels[201, 100:2900] = 2
    labels[199, 100:2900:2] = 2
    geo = Geo(CRS.from_epsg(32633).to_wkt(), (300.0, 0.0, -200_000.0, 0.0, -300.0, 6_500_000.0))
    features = trace(labels, geo, {1: "a", 2: "b"})
    assert all(f.polygon.is_valid for f in features)


def test_areas_of_many_are_those_of_each():
    rng = np.random.default_rng(0)
    boxes = shapely.box(*(rng.uniform(-170, 150, 50), rng.uniform(-80, 70, 50)), *([180] * 50, [85] * 50))
    holed = shapely.difference(shapely.box(0, 0, 20, 20), shapely.box([2, 5], [2, 5], [4, 15], [4, 9]))
    several = [*boxes, *holed, shapely.multipolygons([boxes[0], boxes[1]]), shapely.Polygon(), shapely.MultiPolygon()]
    areas = square_metres(np.array(several, dtype=object))
    assert areas.tolist() == pytest.approx([square_metres(one) for one in several], rel=1e-13)
    assert areas[-3] == pytest.approx(areas[0] + areas[1], rel=1e-13)
    assert areas[-2:].tolist() == [0, 0]
    assert square_metres(np.array([], dtype=object)).tolist() == []
