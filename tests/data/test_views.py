"""Colours and pictures for people."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from torchfpn.data.colors import class_colors
from torchfpn.data.views import NOTHING, UNLABELLED, display_bands, image_view, label_view
from torchfpn.types import IGNORE


@given(st.lists(st.text(max_size=8), max_size=40, unique=True))
@settings(max_examples=20, deadline=None)
@example([f"class{i}" for i in range(255)])
def test_every_class_has_a_colour_of_its_own(names):
    colors = class_colors(names, [None] * len(names))
    assert len(set(colors)) == len(names)
    assert all(0 <= part <= 255 for color in colors for part in color)


def test_habit_and_wish():
    water, lake, mine = class_colors(["Water", "lake bed", "x"], [None, None, (1, 1, 1)])
    assert water[2] > max(water[:2])  # blue
    assert lake != water
    assert mine == (1, 1, 1)


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("red", "green", "blue"), [0, 1, 2]),
        (("coastal", "Blue", "Green", "Red", "nir"), [3, 2, 1]),
        (("TCI_R", "TCI_G", "TCI_B", "B8"), [0, 1, 2]),
        (("B02", "B03", "B04", "B08"), [2, 1, 0]),
        (("a", "b", "c", "d"), [0, 1, 2]),
        (("vv", "vh"), [0, 0, 0]),
        (("grey",), [0, 0, 0]),
    ],
)
def test_bands_to_show(names, bands):
    assert display_bands(names) == bands


def test_stretch_uses_the_whole_range_and_leaves_out_what_is_missing():
    image = np.linspace(-3000, 9000, 10000).reshape(1, 100, 100).astype("float32")
    valid = np.ones((100, 100), bool)
    valid[0, :50] = False
    image[0, 0, :50] = np.nan
    picture = image_view(image, valid, ("grey",))
    assert picture.shape == (100, 100, 3)
    assert (picture[0, 0] == NOTHING).all()
    assert picture[valid].min() == 0
    assert picture[valid].max() == 255
    assert abs(int(picture[50, 0, 0]) - 127) < 3
    assert not image_view(np.full((1, 2, 2), 7), None, ("grey",)).any()
    assert image_view(image, np.zeros((100, 100), bool), ("grey",)).shape == (100, 100, 3)


def test_labels_in_their_colours():
    target = np.array([[0, 1, IGNORE]])
    picture = label_view(target, [(1, 2, 3), (4, 5, 6)])
    assert picture[0, :2].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tuple(picture[0, 2].tolist()) in (NOTHING, UNLABELLED)
