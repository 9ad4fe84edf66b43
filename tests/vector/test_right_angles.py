"""Straight walls at right angles: what becomes of outlines that are rough, and of those that are none of buildings."""

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shapely.affinity import rotate, scale, translate

from torchfpn.vector.features import trace
from torchfpn.vector.regularize import FARTHEST, LEAST_IOU, square

SIZE = 160
PLANS = {
    "rectangle": [(0, 0), (40, 0), (40, 22), (0, 22)],
    "L": [(0, 0), (45, 0), (45, 18), (20, 18), (20, 40), (0, 40)],
    "U": [(0, 0), (60, 0), (60, 40), (44, 40), (44, 16), (16, 16), (16, 40), (0, 40)],
    "T": [(0, 0), (60, 0), (60, 16), (40, 16), (40, 45), (22, 45), (22, 16), (0, 16)],
}
YARD = shapely.Polygon([(0, 0), (50, 0), (50, 40), (0, 40)], [[(15, 12), (35, 12), (35, 28), (15, 28)]])


def placed(polygon, angle, size=1.8):
    polygon = rotate(scale(polygon, size, size, origin=(0, 0)), angle, origin="centroid")
    return translate(polygon, SIZE / 2 - polygon.centroid.x, SIZE / 2 - polygon.centroid.y)


def rough(polygon, seed, noise=0.18):
    """The outline of a mask with rounded corners and a ragged border, as a network gives it."""
    field = rasterio.features.rasterize([polygon], (SIZE, SIZE)).astype(float)
    coarse = np.random.default_rng(seed).standard_normal((SIZE // 4, SIZE // 4)).astype(np.float32)
    ragged = np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    for _ in range(6):
        field = (field + sum(np.roll(field, step, axis) for axis in (0, 1) for step in (1, -1))) / 5
    labels = field + noise * ragged * ((field > 0.02) & (field < 0.98)) > 0.5
    features = trace(labels.astype(np.uint8), None, {1: "building"}, coordinates="pixels", min_pixels=20)
    return max(features, key=lambda feature: feature.area).polygon


def iou(one, other):
    return one.intersection(other).area / one.union(other).area


def turns(ring):
    """Degrees at each corner."""
    edges = np.diff(np.array(ring.coords), axis=0)
    angles = np.degrees(np.arctan2(edges[:, 1], edges[:, 0]))
    return (np.roll(angles, -1) - angles) % 360


@pytest.mark.parametrize("angle", [0, 13, 30, 44])
@pytest.mark.parametrize("plan", PLANS)
def test_rough_buildings_become_straight_and_nearer_to_the_truth(plan, angle):
    truth = placed(shapely.Polygon(PLANS[plan]), angle)
    better = done = 0
    for seed in range(8):
        outline = rough(truth, seed)
        result = square(outline, 1.5)
        if result is None:
            continue
        done += 1
        better += iou(result, truth) > iou(outline, truth)
        assert np.allclose(np.abs(turns(result.exterior) - 180), 90, atol=1e-6) or len(result.exterior.coords) > 5
        assert iou(result, outline) > LEAST_IOU
        assert abs(result.area / outline.area - 1) < 0.05
    assert done >= 6
    assert better >= done - 1


def test_the_direction_is_found():
    truth = placed(shapely.Polygon(PLANS["L"]), 17)
    result = square(rough(truth, 3), 1.5)
    edges = np.diff(np.array(result.exterior.coords), axis=0)
    angles = np.degrees(np.arctan2(edges[:, 1], edges[:, 0])) % 90
    assert np.abs(angles - 17).max() < 1.5


def test_what_is_square_stays():
    for plan in PLANS.values():
        truth = placed(shapely.Polygon(plan), 25)
        assert square(truth, 1.5).normalize().equals_exact(truth.normalize(), 1e-9)
    yard = placed(YARD, 25)
    assert square(yard, 1.5).normalize().equals_exact(yard.normalize(), 1e-9)


def test_yards_get_right_angles_too():
    result = square(rough(placed(YARD, 30), 1), 1.5)
    assert len(result.interiors) == 1
    assert len(result.interiors[0].coords) == 5
    assert iou(result, placed(YARD, 30)) > 0.96


def test_a_long_slanted_wall_stays():
    cut = placed(shapely.Polygon([(0, 0), (40, 0), (40, 18), (28, 30), (0, 30)]), 0)
    result = square(cut, 1.5)
    assert result.normalize().equals_exact(cut.normalize(), 1e-9)


def test_a_cut_off_corner_comes_back():
    cut = placed(shapely.Polygon([(0, 0), (40, 0), (40, 28), (38, 30), (0, 30)]), 20)
    result = square(cut, 1.5)
    assert len(result.exterior.coords) == 5
    assert result.area > cut.area


def test_round_and_bent_things_are_left_alone():
    assert square(shapely.Point(0, 0).buffer(30), 1.5) is None
    assert square(shapely.Polygon([(0, 0), (60, 0), (30, 52)]), 1.5) is None  # of equal sides
    bow = shapely.LineString([(0, 0), (40, 0), (70, 25), (80, 60)]).buffer(5, cap_style="flat")
    assert square(bow, 1.0) is None
    assert square(shapely.box(0, 0, 2, 2), 1.5) is None  # smaller than what may be off


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 4), st.integers(4, 14))
def test_whatever_comes_out_is_valid_and_close(seed, tolerance, count):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    shape = shapely.Polygon((np.stack([np.cos(angles), np.sin(angles)]) * rng.uniform(5, 30, count)).T)
    boxes = [rotate(shapely.box(*rng.uniform(-20, 0, 2), *rng.uniform(1, 20, 2)), 30) for _ in range(3)]
    for given_shape in (shape, max(shapely.get_parts(shapely.union_all(boxes)), key=lambda part: part.area)):
        if not given_shape.is_valid or given_shape.area < 1:
            continue
        result = square(given_shape, tolerance)
        if result is not None:
            assert result.is_valid
            assert iou(result, given_shape) >= LEAST_IOU
            assert shapely.hausdorff_distance(result.exterior, given_shape.exterior) <= FARTHEST * tolerance
