"""Areas on the ground around the poles: those of a plane of equal area around them."""

import numpy as np
import pytest
import rasterio.warp
import shapely
from rasterio.crs import CRS

from made_data import write_tiff
from torchfpn.cli.main import main
from torchfpn.geo.crs import square_metres
from torchfpn.geo.georef import Geo
from torchfpn.io.vectors import read_vectors
from torchfpn.vector.features import trace

PLANES = {1: "+proj=laea +lat_0=90 +datum=WGS84", -1: "+proj=laea +lat_0=-90 +datum=WGS84"}


def blobs(seed, height, width, grain=12):
    coarse = np.random.default_rng(seed).random((height // grain + 1, width // grain + 1))
    return (np.kron(coarse, np.ones((grain, grain)))[:height, :width] > 0.6).astype(np.uint8)


def plain_area(polygon, crs, side=1):
    """On the plane around the pole, with many points on each edge."""
    fine = shapely.segmentize(polygon, np.hypot(*np.ptp(np.reshape(polygon.bounds, (2, 2)), axis=0)) / 400)
    x, y = rasterio.warp.transform(crs, CRS.from_proj4(PLANES[side]), *shapely.get_coordinates(fine).T)
    return shapely.set_coordinates(fine, np.stack([x, y], axis=1)).area


@pytest.mark.parametrize(
    ("code", "side", "pixel"), [(3413, 1, 0.5), (3413, 1, 300.0), (3413, 1, 4000.0), (3031, -1, 0.5), (3408, 1, 30.0)]
)
@pytest.mark.parametrize("place", [(-110.0, 90.0), (-55.0, 45.0), (-30.25, 170.0), (3.0, -2.0)])
def test_areas_at_the_pole_are_those_of_a_plane_around_it(code, side, pixel, place):
    crs = CRS.from_epsg(code)
    geo = Geo(crs.to_wkt(), (pixel, 0.0, place[0] * pixel, 0.0, -pixel, place[1] * pixel))
    labels = blobs(3, 180, 220)
    labels[60:120, 80:140] = 1  # one that holds the pole, in some of the places
    labels[88:91, 108:112] = 0
    found = trace(labels + 1, geo, {1: "a", 2: "b"}, coordinates="map")
    near = shapely.box(-1000, -1000, 1000, 1000)  # the plane of PROJ is not exact to a millimetre at the pole
    scale = plain_area(near, crs, side) / near.area
    for feature in found:
        area = feature.polygon.area * scale if pixel < 1 else plain_area(feature.polygon, crs, side)
        assert feature.area == pytest.approx(area, rel=1e-4)


@pytest.mark.parametrize("kind", ["geojson", "gpkg", "fgb"])
@pytest.mark.parametrize("words", [(), ("--simplify", "1"), ("--merge", "1")], ids=["as it is", "simplified", "merged"])
def test_written_areas_are_right_at_the_pole(tmp_path, kind, words):
    labels = np.zeros((90, 110), np.uint8)
    labels[20:70, 20:90], labels[44:46, 54:56], labels[2:9, :] = 1, 0, 1  # around the pole, with a hole at the pole
    place = rasterio.Affine(5.0, 0, -275.0, 0, -5.0, 225.0)
    write_tiff(tmp_path / "a.tif", labels[None], crs=CRS.from_epsg(3413), transform=place)
    out = tmp_path / f"b.{kind}"
    assert main(["polygons", str(tmp_path / "a.tif"), str(out), *words]) == 0
    areas = sorted(float(area) for area in read_vectors(out, field="area").column)
    scale = plain_area(shapely.box(-100, -100, 100, 100), CRS.from_epsg(3413)) / 200**2
    for shape in read_vectors(out).shapes:
        assert shape.is_valid
    assert areas == pytest.approx([7 * 110 * 25 * scale, (50 * 70 - 4) * 25 * scale], rel=1e-2 if words else 1e-4)


def test_degrees_that_are_cut_at_the_180th_meridian_have_their_area():
    halves = [shapely.box(170, 85, 180, 86), shapely.box(-180, 85, -165, 86)]
    assert square_metres(shapely.multipolygons(halves)) == pytest.approx(square_metres(shapely.box(0, 85, 25, 86)))
    across = shapely.Polygon([(170, 85), (-170, 85.1), (-170, 86), (170, 86.1)])
    moved = shapely.Polygon([(-10, 85), (10, 85.1), (10, 86), (-10, 86.1)])
    assert square_metres(across) == pytest.approx(square_metres(moved), rel=1e-9)
    around = shapely.Polygon([(lon, 89 + 0.01 * (lon % 11)) for lon in range(-180, 180, 3)])
    to_pole = shapely.Polygon(
        [*around.exterior.coords[:-1], (180, around.exterior.coords[0][1]), (180, 90), (-180, 90)]
    )
    assert square_metres(around) == pytest.approx(square_metres(to_pole), rel=1e-9)


@pytest.mark.parametrize("pole", [90, -90])
def test_caps_and_bands_around_the_earth_follow_their_parallels(pole):
    whole = square_metres(shapely.box(-180, -90, 180, 90))
    edges = np.array([-pole, 0, pole * 0.7, pole * 0.95, pole])
    bands = shapely.box(-180, np.minimum(edges[:-1], edges[1:]), 180, np.maximum(edges[:-1], edges[1:]))
    assert square_metres(bands).sum() == pytest.approx(whole, rel=1e-12)
    parts = shapely.box(np.arange(-180, 180, 40), min(0, pole), np.arange(-140, 181, 40), max(0, pole))
    assert square_metres(parts) == pytest.approx([whole / 18] * 9, rel=1e-12)


@pytest.mark.parametrize("code", [3857, 4326, 3395])
def test_long_edges_along_parallels_stay_on_them_beyond_80_degrees(code):
    west, south, east, north = rasterio.warp.transform_bounds("EPSG:4326", f"EPSG:{code}", -60, 70, 60, 84)
    labels = np.zeros((14, 120), np.uint8)
    labels[1:10, 10:110] = 1
    transform = ((east - west) / 120, 0.0, west, 0.0, (south - north) / 14, north)
    (feature,) = trace(labels, Geo(CRS.from_epsg(code).to_wkt(), transform), {1: "a"}, coordinates="map")
    box = rasterio.warp.transform_bounds(f"EPSG:{code}", "EPSG:4326", *feature.polygon.bounds)
    assert feature.area == pytest.approx(square_metres(shapely.box(*box)), rel=1e-9)


def test_geojson_around_the_pole_reaches_up_to_it():
    labels = np.zeros((90, 110), np.uint8)
    labels[20:70, 20:90], labels[44:46, 54:56] = 1, 2
    geo = Geo(CRS.from_epsg(3413).to_wkt(), (5.0, 0.0, -275.0, 0.0, -5.0, 225.0))
    around, inner = (feature.polygon for feature in trace(labels, geo, {1: "a", 2: "b"}))
    assert around.is_valid
    assert inner.is_valid
    assert shapely.box(-180, 89.9999, 180, 90).covers(inner)
    assert inner.bounds[3] == 90
    assert shapely.intersection(around, inner).area < 1e-6 * inner.area
    both = shapely.union_all([around, inner])
    assert (both.bounds[0], both.bounds[2:]) == (-180, (180, 90))
    assert shapely.covers(both, shapely.points(np.arange(-179.5, 180), 89.9995)).all()


def test_maps_of_the_whole_earth_keep_what_is_wider_than_half_of_it():
    geo = Geo(CRS.from_epsg(4326).to_wkt(), (10.0, 0.0, -180.0, 0.0, -10.0, 90.0))
    labels = np.ones((18, 36), np.uint8)
    labels[5:8, 3:33] = 2
    found = trace(labels, geo, {1: "a", 2: "b"})
    assert [feature.polygon.bounds for feature in found] == [(-180, -90, 180, 90), (-150, 10, 150, 40)]
    assert sum(feature.area for feature in found) == pytest.approx(510_065_621_724_088, rel=1e-9)
