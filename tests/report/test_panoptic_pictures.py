"""Panoptic segments over their image and beside the true ones, as PNGs."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from torchfpn.metrics import SegmentIds
from torchfpn.report.images import to_rgb
from torchfpn.report.panoptic import SegmentMarks, draw_segments, overlay_panoptic, panoptic_side_by_side
from torchfpn.types import Panoptic, Segment

COLORS = ((200, 10, 10), (10, 200, 10), (10, 10, 200))
NAMES = ("roof", "tree", "grass")
SIZE = (200, 260)


def opened(data):
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGBA"))[..., :3]


def image(size=SIZE):
    return np.random.default_rng(0).integers(90, 110, (3, *size), dtype=np.uint8)


def found():
    """Two roofs side by side, grass in the lower half, void above it."""
    ids = np.zeros(SIZE, np.int32)
    ids[100:] = 3
    ids[40:120, 40:100], ids[40:120, 100:160] = 1, 2
    return Panoptic(
        torch.from_numpy(ids),
        [
            Segment(1, 0, True, 0.9, 4800, (40, 40, 100, 120)),
            Segment(2, 0, True, 0.6, 4800, (100, 40, 160, 120)),
            Segment(3, 2, False, 0.7, 23600, (0, 100, 260, 200)),
        ],
    )


def test_segments_are_tinted_outlined_and_void_stays_as_it_is():
    plain, over = to_rgb(image()), opened(overlay_panoptic(image(), found(), colors=COLORS))
    assert over.shape == plain.shape  # without names there is no legend
    assert (over[:20] == plain[:20]).all()
    assert (over[:99, 165:] == plain[:99, 165:]).all()
    assert (over[60:110, 40] == COLORS[0]).all()  # the line of the first roof
    assert (over[60:110, 99] == COLORS[0]).all()
    other = over[80, 100]  # that of its neighbour has another shade
    assert not (other == COLORS[0]).all()
    assert other[0] > other[1] == other[2]
    assert (over[120, 50:90] == COLORS[2]).all()  # that of the grass below it
    inside = over[160:180, 180:220].astype(int) - plain[160:180, 180:220]
    assert (inside[..., 2] > 0).all()
    assert (inside[..., 0] < 0).all()


def test_names_stand_at_things_and_in_stuff_and_below():
    bare, over = (opened(overlay_panoptic(image(), found(), colors=COLORS, names=names)) for names in ((), NAMES))
    assert over.shape[0] > SIZE[0]
    assert (over[-4:] == 255).all()
    changed = (over[: SIZE[0]] != bare).any(-1)
    assert changed[25:40, 40:100].any()  # above the roof: its name beside its score
    assert changed[121:].any()  # within the grass
    assert not changed[:20].any()
    legend = over[SIZE[0] :].reshape(-1, 3).tolist()
    assert [list(color) in legend for color in COLORS] == [True, False, True]  # of the classes that occur


def test_truth_and_prediction_side_by_side():
    result = found()
    ids = result.segments.numpy() * 70_000
    truth = SegmentIds(ids, np.array([210_000, 70_000, 140_000]), np.array([2, 0, 1]), np.array([0, 0, 1], bool))
    marks = SegmentMarks.of_truth(truth, 2, NAMES), SegmentMarks.of_result(result, NAMES)
    assert marks[0].texts == ["grass", "roof", "tree (crowd)"]
    assert marks[1].texts == ["roof 0.90", "roof 0.60", "grass"]
    sheets = [
        opened(panoptic_side_by_side(image(), *sides, colors=COLORS, names=NAMES))
        for sides in (marks, (marks[0], None), (None, marks[1]))
    ]
    assert sheets[0].shape[1] > sheets[1].shape[1] == sheets[2].shape[1]
    reduced = opened(panoptic_side_by_side(image(), *marks, colors=(), names=NAMES, largest=80, palette=True))
    assert reduced.shape[1] < sheets[0].shape[1]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 2)])
def test_small_pictures_and_nothing_to_draw(size):
    nothing = Panoptic(torch.zeros(size, dtype=torch.int32), [])
    np.testing.assert_array_equal(opened(overlay_panoptic(image(size), nothing, colors=COLORS)), to_rgb(image(size)))
    assert opened(overlay_panoptic(image(size), nothing, colors=COLORS, names=NAMES)).shape == (*size, 3)
    whole = Segment(1, 4, False, 1.0, size[0] * size[1], (0, 0, *size[::-1]))
    one = Panoptic(torch.ones(size, dtype=torch.int32), [whole])
    assert opened(overlay_panoptic(image(size), one, colors=COLORS, names=NAMES)).shape == (*size, 3)


def test_the_image_may_be_shown_at_another_size():
    marks = SegmentMarks.of_result(found(), NAMES)
    small = draw_segments(np.full((50, 65, 3), 100, np.uint8), marks, list(COLORS))
    assert small.shape == (50, 65, 3)
    assert (small[45, 60] != 100).any()
    assert (small[2] == 100).all()


def test_many_segments():
    side = 100
    ids = torch.arange(1, side * side + 1, dtype=torch.int32).view(side, side).repeat_interleave(2, 0)
    infos = [Segment(k, k % 2, True, 0.5, 2, (0, 0, 1, 1)) for k in range(1, side * side + 1)]
    assert opened(overlay_panoptic(image((200, 100)), Panoptic(ids, infos), colors=COLORS)).shape == (200, 100, 3)
