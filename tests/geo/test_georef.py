"""Grids: places to pixels and back, and how far two grids lie apart."""

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from torchfpn.geo.georef import Geo

number = st.floats(-1000, 1000)


@given(st.tuples(number, number, number, number, number, number), number, number)
def test_pixel_is_the_inverse_of_world(transform, column, row):
    a, b, _, d, e, _ = transform
    assume(abs(a * e - b * d) > 1)
    geo = Geo(None, transform)
    back = geo.pixel(*geo.world(column, row))
    assert math.dist(back, (column, row)) < 1e-4


def test_distance_in_pixels():
    here = Geo(None, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0))
    assert here.distance(here, 5, 5) == 0
    assert here.distance(Geo(None, (10.0, 0.0, 3.0, 0.0, -10.0, 0.0)), 5, 5) == 0.3
    stretched = Geo(None, (10.1, 0.0, 0.0, 0.0, -10.0, 0.0))  # the same corner, and one pixel apart after a hundred
    assert math.isclose(here.distance(stretched, 5, 100), 1.0)
    assert Geo(None, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)).distance(here, 5, 5) == math.inf
