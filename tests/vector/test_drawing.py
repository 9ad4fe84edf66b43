"""Polygons in windows: each window is that part of the whole, and costs only what lies around it."""

import time

import numpy as np
import pytest
import rasterio.warp
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from torchfpn.geo.crs import crs_wkt
from torchfpn.geo.georef import Geo
from torchfpn.io.vectors import Vectors
from torchfpn.vector.geometry import repair
from torchfpn.vector.rasterize import LabelledPolygons, draw, place_polygons
from torchfpn.vector.to_pixels import to_pixels

UTM = CRS.from_epsg(32633).to_wkt()
GRIDS = {
    "north up": (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_800_000.0),
    "south up": (0.5, 0.0, 500_000.0, 0.0, 0.5, 5_800_000.0),
    "turned": (0.4, 0.3, 500_000.0, 0.3, -0.4, 5_800_000.0),
}
SIZE = (90, 70)


def shapes_on(transform, seed, count=25):
    """Valid polygons in the coordinates of a grid; corners on pixel corners, on pixel centres, or anywhere."""
    rng = np.random.default_rng(seed)
    a, b, c, d, e, f = transform
    found = []
    while len(found) < count:
        middle, reach = rng.uniform(-20, max(SIZE) + 20, 2), rng.uniform(1, 40)
        points = middle + rng.uniform(-reach, reach, (rng.integers(3, 9), 2))
        points = [points.round(), (2 * points).round() / 2, points][seed % 3]
        shape = shapely.Polygon(points @ np.array([[a, d], [b, e]]) + (c, f))
        found += [shape] if shape.area > 0 else []
    return np.array(found, dtype=object)


def labels_of(shapes, crs=UTM):
    vectors = Vectors("l.gpkg", shapes, np.zeros(len(shapes), bool), None, crs)
    return LabelledPolygons("l.gpkg", repair(vectors), 1 + np.arange(len(shapes)) % 3, crs)


def in_degrees(shapes):
    def move(points):
        return np.stack(rasterio.warp.transform(UTM, "OGC:CRS84", *points.T), 1)

    return np.array([shapely.transform(shape, move) for shape in shapes], dtype=object)


@pytest.mark.parametrize("crs", ["the same", "degrees"])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    grid=st.sampled_from(list(GRIDS)),
    row=st.integers(0, SIZE[0] - 1),
    column=st.integers(0, SIZE[1] - 1),
    side=st.integers(1, 40),
    touching=st.booleans(),
    border=st.sampled_from([0.0, 1.5]),
)
def test_a_window_is_that_part_of_the_whole(crs, seed, grid, row, column, side, touching, border):
    geo, shapes = Geo(UTM, GRIDS[grid]), shapes_on(GRIDS[grid], seed)
    labels = labels_of(shapes) if crs == "the same" else labels_of(in_degrees(shapes), crs_wkt("OGC:CRS84"))
    options = {"ignored": 256, "border": border}
    whole = draw(place_polygons(labels, geo, SIZE, **options), (0, 0, *SIZE), all_touched=touching)
    window = (row, column, min(side, SIZE[0] - row), min(side, SIZE[1] - column))
    part = draw(place_polygons(labels, geo, SIZE, **options, window=window), window, all_touched=touching)
    assert np.array_equal(part, whole[row : row + side, column : column + side])


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("crs", [UTM, crs_wkt("OGC:CRS84")])
def test_the_tree_changes_nothing(grid, crs):
    shapes = repair(Vectors("l", shapes_on(GRIDS[grid], 2, 60), np.zeros(60, bool), None, UTM)).shapes
    shapes = shapes if crs == UTM else in_degrees(shapes)
    geo = Geo(UTM, GRIDS[grid])
    plain, numbers = to_pixels(shapes, crs, geo, SIZE)
    found, same = to_pixels(shapes, crs, geo, SIZE, tree=shapely.STRtree(shapes))
    assert np.array_equal(numbers, same)
    assert all(one.equals_exact(other) for one, other in zip(plain, found, strict=True))


def test_a_window_places_only_the_features_around_it():
    """A scene of 100,000 x 100,000 pixels with 10,000 houses: a window costs a small part of the whole."""
    rows, columns = np.mgrid[:100, :100] * 1000
    geo = Geo(UTM, GRIDS["north up"])
    x, y = 500_000 + columns.ravel() * 0.5, 5_800_000 - rows.ravel() * 0.5
    labels = labels_of(shapely.box(x, y - 5, x + 5, y))
    window = (50_000, 70_000, 256, 256)

    def placed(window):
        start = time.perf_counter()
        found = place_polygons(labels, geo, (100_000, 100_000), ignored=256, window=window)
        return found, time.perf_counter() - start

    assert len(labels.tree) == 10_000  # built once
    part = placed(window)[0]
    drawn = draw(part, window)
    assert drawn[:10, :10].all()
    assert (drawn > 0).sum() == 100
    assert part.owners.tolist() == [50 * 100 + 70]
    assert min(placed(window)[1] for _ in range(5)) < min(placed(None)[1] for _ in range(3)) / 5
