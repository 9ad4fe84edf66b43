"""Polygons to masks: the rule of the pixel's centre, against a literal reading of it."""

import time

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.data.labels.coco_annotations import Shapes
from torchfpn.ops.masks import crop_images, paste
from torchfpn.ops.rle import to_rle

SIZE = (12, 16)


def holds(ring, x, y):
    """Whether a ray to the right crosses the ring an odd number of times."""
    inside = False
    for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, 0), strict=True):
        if (x1 > x) != (x2 > x) and y < y1 + (x - x1) / (x2 - x1) * (y2 - y1):
            inside = not inside
    return inside


def literal(rings):
    """[H, W]: each pixel for itself, polygons joined."""
    out = np.zeros(SIZE, bool)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            out[row, column] = any(holds(ring, column + 0.5, row + 0.5) for ring in rings)
    return out


def drawn(shapes, boxes=None):
    boxes = np.zeros((len(shapes), 4), np.float32) if boxes is None else np.asarray(boxes, np.float32)
    return Shapes.of(shapes).crops(np.arange(len(shapes)), boxes, SIZE)


points = st.lists(
    st.tuples(st.integers(-40, 200), st.integers(-40, 160)).map(lambda p: (p[0] / 10 + 0.013, p[1] / 10 + 0.007)),
    min_size=3,
    max_size=8,
).map(lambda p: np.array(p, np.float32))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(points, min_size=1, max_size=3), min_size=1, max_size=4))
def test_a_pixel_is_on_if_a_polygon_holds_its_centre(shapes):
    masks = paste(drawn(shapes)).numpy()
    for mask, rings in zip(masks, shapes, strict=True):
        wanted = literal(rings)
        if wanted.any():
            np.testing.assert_array_equal(mask, wanted)
        else:
            assert mask.sum() == 1  # never without a pixel


def test_polygons_that_share_an_edge_share_no_pixel():
    halves = [np.array([[0, 0], [16, 0], [0, 12]], np.float32), np.array([[16, 0], [16, 12], [0, 12]], np.float32)]
    assert (paste(drawn([[half] for half in halves])).sum(0) == 1).all()


def test_whole_pixels_are_exact():
    mask = paste(drawn([[np.array([[2, 3], [10, 3], [10, 9], [2, 9]], np.float32)]]))[0]
    assert mask.sum() == 48
    assert mask[3:9, 2:10].all()


def test_a_polygon_without_a_centre_gets_the_middle_of_its_box():
    thin = np.array([[5.1, 4.1], [5.4, 4.1], [5.4, 4.4]], np.float32)
    away = np.array([[100, 100], [110, 100], [110, 110]], np.float32)
    crops = drawn([[thin], [thin + 1], [away]], [[5.1, 4.1, 5.4, 4.4], [6.1, 5.1, 6.4, 5.4], [100, 100, 110, 110]])
    assert crops.windows.tolist() == [[5, 4, 6, 5], [6, 5, 7, 6], [15, 11, 16, 12]]
    assert crops.pixels.tolist() == [True] * 3


def test_polygons_and_run_lengths_beside_each_other():
    box = np.array([[2, 3], [10, 3], [10, 9], [2, 9]], np.float32)
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[0, 1:5, 1:7], masks[1, 6:, 8:] = True, True
    texts = [rle["counts"] for rle in to_rle(crop_images(masks))]
    crops = drawn([texts[0], [box], texts[1], [box + 1]])
    assert torch.equal(paste(crops)[[0, 2]], masks)
    assert paste(crops)[1].sum() == 48
    shapes = Shapes.of([texts[0], [box], texts[1], [box + 1]])
    part = shapes.select(np.array([1, 2])).crops(np.arange(2), np.zeros((2, 4), np.float32), SIZE)
    assert torch.equal(paste(part), paste(crops)[1:3])


def test_a_thousand_polygons_are_quick():
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = 16 * np.stack([np.cos(angles), np.sin(angles)], 1)
    shapes = Shapes.of([[(rng.uniform(20, 980, 2) + circle).astype(np.float32)] for _ in range(1000)])
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        shapes.crops(np.arange(1000), np.zeros((1000, 4), np.float32), (1000, 1000))
        best = min(best, time.perf_counter() - start)
    assert best < 0.5  # 0.04 s on an idle core
