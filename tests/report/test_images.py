"""Pixels of any kind become pixels one can look at."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.report.images import HATCH, colorize, display_bands, mark_errors, to_rgb

RED, GREEN = (200, 10, 10), (10, 200, 10)


def test_eight_bit_photographs_are_shown_as_they_are():
    image = np.random.default_rng(0).integers(0, 256, (3, 9, 7), dtype=np.uint8)
    assert np.array_equal(to_rgb(image), np.moveaxis(image, 0, -1))
    assert np.array_equal(to_rgb(image.astype(np.float32)), np.moveaxis(image, 0, -1))


def test_bands_are_found_by_name_in_any_order():
    red, green, blue, nir = (np.full((4, 5), v, np.float32) for v in (30, 20, 10, 99))
    red[0, 0], blue[0, 0] = 40, 0  # something to stretch
    shown = to_rgb(np.stack([nir, blue, green, red]), ["NIR", "Blue", "green", "Red"])
    red, green, blue = shown[2, 2]
    assert red > green > blue


def test_without_names_the_first_three_bands_are_stretched_each_by_itself():
    ramp = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    shown = to_rgb(np.stack([ramp, 1000 + 50 * ramp, -ramp, ramp]))
    assert shown[..., 0].min() == 0
    assert shown[..., 0].max() == 255
    assert np.array_equal(shown[..., 0], shown[..., 1])
    assert shown[0, 0, 2] == 255


def test_true_colours_keep_their_tint():
    ramp = np.linspace(0, 100, 400, dtype=np.float32).reshape(20, 20)
    shown = to_rgb(np.stack([ramp / 2, ramp, ramp / 4]), ["red", "green", "blue"]).astype(int)
    assert (shown[10:, :, 1] > shown[10:, :, 0] + 20).all()


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
    assert display_bands(names, len(names)) == (bands, len(set(bands)) == 3 and names[0] != "a")
    assert display_bands(names, 6) == ([0, 1, 2], False)  # names of other bands


def test_pixels_that_are_not_valid_are_hatched_and_do_not_count_for_the_stretch():
    image = np.linspace(0, 9000, 10000).reshape(1, 100, 100).astype(np.uint16)
    valid = np.ones((100, 100), bool)
    valid[0, :50], image[0, 0, :50] = False, 65535
    shown = to_rgb(image, ["grey"], valid)
    assert {tuple(p) for p in shown[~valid]} <= set(HATCH)
    assert shown[valid].min() == 0
    assert shown[valid].max() == 255
    assert abs(int(shown[50, 0, 0]) - 127) < 3
    assert to_rgb(image, ["grey"], np.zeros((100, 100), bool)).shape == (100, 100, 3)


@pytest.mark.parametrize("bands", [1, 2])
def test_few_bands_are_shown_in_grey(bands):
    shown = to_rgb(np.random.default_rng(0).normal(size=(bands, 8, 8)).astype(np.float32))
    assert (shown[..., 0] == shown[..., 1]).all()
    assert (shown[..., 0] == shown[..., 2]).all()


def test_no_data_is_hatched_and_does_not_spoil_the_stretch():
    image = np.random.default_rng(0).uniform(0, 4000, (4, 16, 16)).astype(np.float32)
    whole = to_rgb(image)
    image[:, :2] = np.nan
    image[0, 5, 5] = np.inf
    shown = to_rgb(image)
    assert {tuple(p) for p in shown[:2].reshape(-1, 3)} == set(HATCH)
    assert tuple(shown[5, 5]) in HATCH
    assert np.abs(shown[2:].astype(int) - whole[2:])[(shown[2:] != shown[5, 5]).any(-1)].max() < 25


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]),
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 2**31),
    st.sampled_from(["constant", "random", "nan", "huge"]),
)
def test_anything_can_be_shown(dtype, shape, seed, kind):
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, dtype) if kind == "constant" else rng.uniform(0, 200, shape).astype(dtype)
    if dtype.startswith("float") and kind == "nan":
        image[:] = np.nan
    if dtype.startswith("float") and kind == "huge":
        image[..., 0] = 3e38
    shown = to_rgb(image)
    assert shown.shape == (*shape[1:], 3)
    assert shown.dtype == np.uint8


def test_labels_get_their_colours_and_unknown_ones_a_hatching():
    pixels = colorize([[0, 1], [255, 2]], [RED, GREEN])
    assert tuple(pixels[0, 0]) == RED
    assert tuple(pixels[0, 1]) == GREEN
    assert tuple(pixels[1, 0]) in HATCH
    assert tuple(pixels[1, 1]) in HATCH


def test_errors_are_red_where_there_is_a_truth():
    pixels = np.full((1, 3, 3), 100, np.uint8)
    marked = mark_errors(pixels, [[0, 1, 255]], [[0, 0, 1]], 2)
    assert marked[0, 0, 0] == marked[0, 0, 1]
    assert marked[0, 1, 0] > 2 * marked[0, 1, 1]
    assert tuple(marked[0, 2]) in HATCH
