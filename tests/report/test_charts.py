"""Curves as SVG: every point inside the frame, round ticks, gaps bridged."""

import re
from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.report.charts import HEIGHT, WIDTH, Axis, Series, chart, nice_ticks, short

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def parsed(markup):
    return ElementTree.fromstring(markup)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, NUMBERS)
def test_ticks_are_few_evenly_spaced_and_inside(a, b):
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert 1 <= len(ticks) <= 8
    assert all(low - slack <= t <= high + slack for t in ticks)
    gaps = {round((y - x) / (ticks[1] - ticks[0]), 3) for x, y in pairwise(ticks)}
    assert gaps <= {1.0}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), NUMBERS), min_size=1, max_size=12))
def test_every_point_is_inside_the_picture(values):
    figure = chart("loss", [Series("a", list(range(1, len(values) + 1)), values, "red")])
    if all(v is None for v in values):
        assert figure == ""
        return
    points = re.findall(r'points="([^"]+)"', figure)[0].split()
    assert len(points) == sum(v is not None for v in values)
    for x, y in (map(float, point.split(",")) for point in points):
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


def test_a_larger_value_is_higher_and_later_is_right():
    figure = chart("mIoU", [Series("a", [1, 2, 3], [0.1, None, 0.9], "red")], limits=(0, 1))
    (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in re.findall(r'points="([^"]+)"', figure)[0].split())
    assert x2 > x1
    assert y2 < y1
    assert "epoch 3: 0.9" in figure


def test_a_steep_curve_gets_a_logarithmic_axis_unless_told_not_to():
    steep = [Series("a", [1, 2, 3], [100.0, 1.0, 0.01], "red")]
    assert "logarithmic" in chart("loss", steep)
    assert "logarithmic" not in chart("lr", steep, log=False)
    axis = Axis(0.01, 100, 0, 400, log=True)
    assert [axis.place(v) for v in (0.01, 1, 100)] == [0, 200, 400]
    assert [short(t) for t in axis.ticks()] == ["0.01", "0.03", "0.1", "0.3", "1", "3", "10", "30", "100"]


def test_text_from_outside_is_escaped():
    figure = chart("<x>", [Series('<script>"', [1, 2], [1.0, 2.0], "red")])
    assert "<script>" not in figure
    assert parsed(figure).tag == "figure"


def test_numbers_are_short():
    assert [short(v) for v in (0, 0.25, 1e-9, 3000, 1234567, 0.0001)] == ["0", "0.25", "1e-9", "3000", "1.23e6", "1e-4"]
