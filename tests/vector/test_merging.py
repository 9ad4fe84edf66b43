"""Polygons that become one: whatever their outlines, what comes out is valid."""

import numpy as np
import pytest
import shapely
from PIL import Image
from rasterio.crs import CRS

from torchfpn.geo.georef import Geo
from torchfpn.vector.features import Feature, trace
from torchfpn.vector.regularize import dissolve

UTM = CRS.from_epsg(32633).to_wkt()


def jagged(seed, pixel, side=96):
    """A class with a ragged border and many pixels that touch at a corner."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((side // 8, side // 8)).astype(np.float32)
    field = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    labels = field + 0.4 * rng.standard_normal((side, side)) > 0
    geo = Geo(UTM, (pixel, 0.0, 500_000.0, 0.0, -pixel, 5_800_000.0))
    return trace(labels.astype(np.uint8), geo, {1: "a"}, coordinates="map")


@pytest.mark.parametrize("pixel", [0.3, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_jagged_outlines_become_valid_ones_that_hold_all_of_them(seed, pixel):
    given = jagged(seed, pixel)
    found = dissolve(given, UTM, 2.0)
    assert len(found) < len(given)
    polygons = np.array([feature.polygon for feature in found])
    assert shapely.is_valid(polygons).all()
    assert set(shapely.get_type_id(polygons)) <= {3, 6}  # Polygon, MultiPolygon
    before = shapely.union_all([feature.polygon for feature in given])
    assert shapely.difference(before, shapely.union_all(polygons)).area < 1e-6 * before.area
    assert shapely.union_all(polygons).area < before.area + 2.0 * before.length


def test_boxes_that_touch_at_corners_become_one_valid_polygon():
    boxes = [shapely.box(500_000 + 10 * i, 5_800_000 + 10 * i, 500_010 + 10 * i, 5_800_010 + 10 * i) for i in range(9)]
    (found,) = dissolve([Feature(box, 1, "a", 100.0) for box in boxes], UTM, 1.0)
    assert found.polygon.is_valid
    assert shapely.difference(shapely.union_all(boxes), found.polygon).area < 1e-6


@pytest.mark.parametrize(
    ("west", "place", "shown"),
    [(179.999, -179.99995, 6), (359.999, 0.00005, 6), (-0.001, 0.00005, 3), (99.999, 100.00005, 3)],
)
@pytest.mark.parametrize("code", [4326, 3857])
def test_polygons_on_both_sides_of_where_a_map_is_cut_are_neighbours(code, west, place, shown):
    """Two boxes 10.6 m apart, across 180 from -180 to 180, or across Greenwich from 0 to 360; a third far away."""
    boxes = [shapely.box(west, -17, west + 0.00095, -16.999), shapely.box(place, -17, place + 0.00095, -16.999)]
    boxes.append(shapely.box(160, 10, 160.001, 10.001) if west > 0 else shapely.box(-60, 10, -59.999, 10.001))
    if code == 3857:
        unit, radius = np.pi / 180, 6378137.0
        boxes = [
            shapely.transform(
                box, lambda p: radius * np.stack([p[:, 0] * unit, np.arcsinh(np.tan(p[:, 1] * unit))], axis=1)
            )
            for box in boxes
        ]
    given = [Feature(box, 1, "a", 100.0) for box in boxes]
    found = dissolve(given, CRS.from_epsg(code).to_wkt(), 12.0)
    assert [feature.polygon for feature in found[1:]] == boxes[2:]
    assert shapely.get_type_id(found[0].polygon) == shown  # in two, where the map is cut
    low = shapely.total_bounds(boxes)[0]
    assert found[0].polygon.bounds[0] >= min(low, -180 if code == 4326 else -20_037_508.35)
    ratio = found[0].polygon.area / (boxes[0].area + boxes[1].area)
    assert ratio == pytest.approx(0.002 / 0.0019, rel=2e-3)
    assert len(dissolve(given, CRS.from_epsg(code).to_wkt(), 10.0)) == 3
