"""Colours of classes."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from torchfpn.classes import class_colors


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
