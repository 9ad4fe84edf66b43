"""Image, truth, prediction and errors beside one another, as a PNG."""

import io

import numpy as np
import pytest
from PIL import Image

from torchfpn.report.images import overlay, shortened
from torchfpn.report.sheets import GAP, TITLE, side_by_side

COLORS = ((200, 10, 10), (10, 200, 10), (10, 10, 200))
NAMES = ("roof", "grass", "water")


def opened(data):
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGBA"))


def sample(size=(200, 260)):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, size)
    return rng.integers(0, 256, (3, *size), dtype=np.uint8), truth, 1 - truth


def test_four_panels_stand_side_by_side():
    image, truth, prediction = sample()
    sheet = opened(side_by_side(image, truth, prediction, COLORS, names=NAMES))
    assert sheet.shape[1] == 4 * 260 + 3 * GAP
    left = [k * (260 + GAP) for k in range(4)]
    assert np.array_equal(sheet[TITLE : TITLE + 200, left[0] : left[0] + 260, :3], np.moveaxis(image, 0, -1))
    assert np.array_equal(sheet[TITLE : TITLE + 200, left[1] : left[1] + 260, :3], np.array(COLORS)[truth])
    assert np.array_equal(sheet[TITLE : TITLE + 200, left[2] : left[2] + 260, :3], np.array(COLORS)[prediction])
    assert (sheet[TITLE : TITLE + 200, left[3] : left[3] + 260, 0] > 200).all()  # all wrong, all red
    assert (sheet[:, 260 : 260 + GAP, 3] == 0).all()  # transparent between them


def test_panels_can_be_left_out():
    image, truth, prediction = sample()
    assert opened(side_by_side(image, truth, prediction, COLORS, errors=False)).shape[1] == 3 * 260 + 2 * GAP
    assert opened(side_by_side(image, None, prediction, COLORS)).shape[1] == 2 * 260 + GAP
    assert opened(side_by_side(image, None, None, COLORS)).shape[1] == 260


def test_only_classes_that_occur_are_in_the_legend():
    image, truth, prediction = sample()
    bottom = opened(side_by_side(image, truth, prediction, COLORS, names=NAMES))[TITLE + 200 :]
    seen = {tuple(color) for color in bottom[..., :3].reshape(-1, 3)}
    assert COLORS[0] in seen
    assert COLORS[1] in seen
    assert COLORS[2] not in seen


@pytest.mark.parametrize(("size", "shown"), [((2000, 1000), (640, 320)), ((40, 20), (160, 80)), ((1, 1), (192, 192))])
def test_panels_are_neither_huge_nor_tiny(size, shown):
    image, truth = np.zeros((3, *size), np.uint8), np.zeros(size, int)
    sheet = opened(side_by_side(image, truth, None, COLORS))
    assert sheet.shape[0] == TITLE + shown[0]
    assert (sheet[TITLE:, :, :3] == COLORS[0]).all(-1).sum() == shown[0] * shown[1]


def test_missing_colours_are_made_up_and_long_names_are_cut():
    image, truth, prediction = sample((64, 64))
    names = ["a" * 500, "two\nlines", "<b>"]
    sheet = opened(side_by_side(image, truth, prediction, (), names=names))
    assert sheet.shape[1] < 1000
    assert shortened("a" * 500, 100).endswith("…")
    assert shortened("two\nlines", 200) == "two lines"
    name = shortened("a-very-long-name-of-a-file-0001.tif", 120, middle=True)
    assert name.startswith("a-very")
    assert name.endswith("1.tif")


def test_names_in_other_alphabets_have_letters():
    image, truth, prediction = sample((64, 64))
    pictures = {side_by_side(image, truth, prediction, COLORS, names=[name]) for name in ("лес", "дом", "δάσ", "بيت")}
    assert len(pictures) == 4  # boxes for missing letters would look the same


def test_small_pictures_have_a_palette_and_look_the_same():
    image, truth, prediction = sample()
    large = side_by_side(image // 32 * 32, truth, prediction, COLORS)
    small = side_by_side(image // 32 * 32, truth, prediction, COLORS, palette=True)
    assert len(small) < len(large)
    assert np.abs(opened(small).astype(int) - opened(large))[..., :3].mean() < 12


def test_an_overlay_has_the_size_of_the_image_and_tints_it():
    image = np.full((3, 10, 12), 100, np.uint8)
    labels = np.zeros((10, 12), int)
    labels[:, 6:] = 1
    labels[0, 0] = 255
    shown = opened(overlay(image, labels, COLORS)).astype(int)
    assert shown.shape[:2] == (10, 12)
    assert shown[5, 2, 0] > shown[5, 2, 1]
    assert shown[5, 9, 1] > shown[5, 9, 0]
    assert tuple(shown[5, 6, :3]) == COLORS[1]  # the line between them
    assert tuple(shown[0, 0, :3]) == (100, 100, 100)


def test_an_overlay_with_names_has_a_legend_below_the_image():
    image, labels = np.full((3, 40, 200), 90, np.uint8), np.zeros((40, 200), np.uint8)
    labels[:, 100:] = 2
    plain = opened(overlay(image, labels, COLORS))
    shown = opened(overlay(image, labels, COLORS, names=["land", "water", "ice"]))
    assert plain.shape == (40, 200, 4)
    assert (shown[:40] == plain).all()
    below = {tuple(color) for color in shown[40:, :, :3].reshape(-1, 3).tolist()}
    assert {tuple(COLORS[0]), tuple(COLORS[2])} <= below
    assert tuple(COLORS[1]) not in below
    assert opened(overlay(image[..., :20], labels[:, :20], COLORS, names=["land"])).shape[1] == 160
