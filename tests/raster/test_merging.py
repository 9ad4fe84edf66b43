"""Polygons that become one: whatever their outlines, what comes out is valid."""

import numpy as np
import pytest
import shapely
from PIL import Image
from rasterio.crs import CRS

from torchfpn.files.geo import Geo
from torchfpn.raster.merging import merged
from torchfpn.raster.polygons import Feature, trace

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
    found = merged(given, UTM, 2.0)
    assert len(found) < len(given)
    polygons = np.array([feature.polygon for feature in found])
    assert shapely.is_valid(polygons).all()
    assert set(shapely.get_type_id(polygons)) <= {3, 6}  # Polygon, MultiPolygon
    before = shapely.union_all([feature.polygon for feature in given])
    assert shapely.difference(before, shapely.union_all(polygons)).area < 1e-6 * before.area
    assert shapely.union_all(polygons).area < before.area + 2.0 * before.length


def test_boxes_that_touch_at_corners_become_one_valid_polygon():
    boxes = [shapely.box(500_000 + 10 * i, 5_800_000 + 10 * i, 500_010 + 10 * i, 5_800_010 + 10 * i) for i in range(9)]
    (found,) = merged([Feature(box, 1, "a", 100.0) for box in boxes], UTM, 1.0)
    assert found.polygon.is_valid
    assert shapely.difference(shapely.union_all(boxes), found.polygon).area < 1e-6
