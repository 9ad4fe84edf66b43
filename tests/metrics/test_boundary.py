"""Boundary IoU against the erosion of the paper's code, done pixel by pixel."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.metrics.boundary import BoundaryIoU, BoundaryStrips, band


def eroded(mask):
    """One erosion by 3x3 ones; the outside is background."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    for r in range(1, height - 1):
        for c in range(1, width - 1):
            out[r, c] = mask[r - 1 : r + 2, c - 1 : c + 2].all()
    return out


def plain(labels, targets, classes, ratio):
    """Intersections and unions of the bands, class by class, mask by mask."""
    known = targets != 255
    width = max(1, round(ratio * math.sqrt(targets.shape[0] ** 2 + targets.shape[1] ** 2)))
    both, either = [], []
    for k in range(classes):
        bands = []
        for mask in ((labels == k) & known, targets == k):
            inner = mask
            for _ in range(width):
                inner = eroded(inner)
            bands.append(mask & ~inner)
        both.append(int((bands[0] & bands[1]).sum()))
        either.append(int((bands[0] | bands[1]).sum()))
    return both, either


def blobs(seed, size, classes=3, ignored=True):
    """Rectangles of classes, and a prediction that is off by some pixels."""
    random = np.random.default_rng(seed)
    targets = np.zeros(size, np.int64)
    for _ in range(6):
        r, c = random.integers(0, size[0]), random.integers(0, size[1])
        targets[r : r + random.integers(1, 12), c : c + random.integers(1, 12)] = random.integers(0, classes)
    labels = np.roll(targets, random.integers(-2, 3, 2), (0, 1))
    labels[random.random(size) < 0.02] = classes - 1
    if ignored:
        r, c = random.integers(0, size[0]), random.integers(0, size[1])
        targets[r : r + 6, c : c + 4] = 255
    return labels, targets


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 30), st.integers(1, 15), st.floats(0.02, 0.5))
def test_rows_after_rows_are_counted_as_the_whole_image(seed, height, width, rows, ratio):
    labels, targets = blobs(seed, (height, width))
    whole, parts = BoundaryIoU(3, ratio), BoundaryIoU(3, ratio)
    whole.update(labels, targets)
    strips = BoundaryStrips(parts, (height, width))
    for top in range(0, height, rows):
        strips.add(labels[top : top + rows], targets[top : top + rows])
    assert parts.to_dict() == whole.to_dict()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    ratio=st.sampled_from([0.001, 0.02, 0.05, 0.1, 0.3, 1.0]),
)
def test_equals_erosion_pixel_by_pixel(seed, size, ratio):
    labels, targets = blobs(seed, size)
    metric = BoundaryIoU(3, ratio)
    metric.update(labels, targets)
    assert (metric.intersections.tolist(), metric.unions.tolist()) == plain(labels, targets, 3, ratio)


@pytest.mark.parametrize("width", [1, 2, 3, 7, 12])
def test_the_band_of_a_map_is_what_lies_within_its_width_of_another_label(width):
    _, labels = blobs(width, (21, 30), ignored=False)
    expected = np.full_like(labels, 255)
    for k in range(3):
        inner = labels == k
        for _ in range(width):
            inner = eroded(inner)
        expected = np.where((labels == k) & ~inner, k, expected)
    assert band(torch.from_numpy(labels).to(torch.uint8), width).tolist() == expected.tolist()


def test_sums_over_images_before_it_divides():
    metric, expected = BoundaryIoU(3, 0.05), np.zeros((2, 3), int)
    for seed, size in enumerate([(20, 20), (7, 31), (1, 1)]):
        labels, targets = blobs(seed, size)
        metric.update(torch.from_numpy(labels), torch.from_numpy(targets).to(torch.uint8))
        expected += np.array(plain(labels, targets, 3, 0.05))
    np.testing.assert_array_equal(metric.iou().numpy(), expected[0] / expected[1])
    assert metric.mean() == pytest.approx(np.nanmean(expected[0] / expected[1]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_is_predicted_where_nothing_is_known_changes_nothing(seed):
    labels, targets = blobs(seed, (30, 25))
    other = np.where(targets == 255, np.random.default_rng(seed).integers(-5, 300, targets.shape), labels)
    one, two = BoundaryIoU(3), BoundaryIoU(3)
    one.update(labels, targets)
    two.update(other, targets)
    assert one.to_dict() == two.to_dict()


def test_a_perfect_prediction_is_one_and_a_missed_class_zero():
    _, targets = blobs(4, (40, 40))
    metric = BoundaryIoU(4)
    metric.update(np.where(targets == 255, 3, targets), targets)
    assert metric.iou()[:3].tolist() == [1.0, 1.0, 1.0]
    assert metric.iou()[3].isnan()  # in neither map where something is known
    assert metric.mean() == 1.0
    missed = BoundaryIoU(2)
    missed.update(np.zeros((8, 8), int), np.ones((8, 8), int))
    assert missed.iou().tolist() == [0.0, 0.0]


def test_outlines_count_where_areas_do_not():
    """A disc one tenth too small has a good IoU and a poor boundary IoU: what the metric is for."""
    rows, columns = np.ogrid[:200, :200]
    distance = np.hypot(rows - 100, columns - 100)
    targets, labels = (distance < 80).astype(int), (distance < 75).astype(int)
    metric = BoundaryIoU(2, 0.02)
    metric.update(labels, targets)
    area = (labels & targets).sum() / (labels | targets).sum()
    assert area > 0.85
    assert metric.iou()[1] < 0.25


def test_parts_add_up_and_survive_json():
    one, two, whole = BoundaryIoU(3), BoundaryIoU(3), BoundaryIoU(3)
    for seed, part in ((1, one), (2, two)):
        part.update(*blobs(seed, (30, 30)))
        whole.update(*blobs(seed, (30, 30)))
    back = BoundaryIoU.from_dict(json.loads(json.dumps((one + two).to_dict())))
    assert back.to_dict() == whole.to_dict()
    assert back.intersections.dtype == torch.int64
    with pytest.raises(ShapeError, match=r"boundary IoU of 3 classes at ratio 0\.1"):
        one.merge(BoundaryIoU(3, 0.1))


def test_nothing_known_has_no_score():
    metric = BoundaryIoU(3)
    metric.update(np.zeros((5, 5), int), np.full((5, 5), 255))
    metric.update(np.zeros((0, 5), int), np.zeros((0, 5), int))
    assert math.isnan(metric.mean())


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"ratio": 0.02, "intersections": [1], "unions": [1, 2]},
        {"ratio": 0.02, "intersections": [-1], "unions": [1]},
        {"ratio": 0.02, "intersections": [], "unions": []},
        {"ratio": "x", "intersections": [1], "unions": [1]},
    ],
)
def test_what_are_no_counts_is_refused(data):
    with pytest.raises(DataError, match="no boundary counts"):
        BoundaryIoU.from_dict(data)


def test_what_does_not_fit_is_named():
    with pytest.raises(ShapeError, match="one image"):
        BoundaryIoU(2).update(np.zeros((1, 4, 4), int), np.zeros((1, 4, 4), int))
    with pytest.raises(DataError, match="label 2 in 16 pixels"):
        BoundaryIoU(2).update(np.full((4, 4), 2), np.zeros((4, 4), int))
    for ratio in (0, -0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match="ratio"):
            BoundaryIoU(2, ratio)
    with pytest.raises(ConfigError, match="num_classes"):
        BoundaryIoU(256)
