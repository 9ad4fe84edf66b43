"""The painted land: the same bits for the same seed, exact labels, no class that a single pixel gives away."""

import numpy as np
import pytest

from torchfpn.demo import canvas as land
from torchfpn.demo.canvas import BUILDING, ROAD, VEGETATION, WATER, Canvas, Stencil, blur, fractal
from torchfpn.demo.scenes import BANDS, CLASSES, COLORS, scene


@pytest.fixture(scope="module")
def many():
    return [scene(seed, 192) for seed in range(10)]


def test_a_scene_is_a_function_of_its_seed(many):
    again, other = scene(3, 192), scene(4, 192)
    assert np.array_equal(many[3].image, again.image)
    assert np.array_equal(many[3].labels, again.labels)
    assert not np.array_equal(other.labels, again.labels)


def test_images_are_four_bands_of_twelve_bits_and_labels_are_classes(many):
    assert len(BANDS) == 4
    assert len(CLASSES) == len(COLORS) == 4
    for painted in many:
        assert painted.image.shape == (4, 192, 192)
        assert painted.image.dtype == np.uint16
        assert 1 <= painted.image.min() < painted.image.max() <= 4095
        assert painted.labels.shape == (192, 192)
        assert set(np.unique(painted.labels)) <= {1, 2, 3, 4}


def test_every_class_is_there_and_none_is_everywhere(many):
    shares = np.bincount(np.concatenate([p.labels.ravel() for p in many]), minlength=5) / (10 * 192**2)
    assert shares[0] == 0
    assert 0.5 < shares[VEGETATION] < 0.92
    assert all(shares[value] > 0.015 for value in (ROAD, BUILDING, WATER))


def test_plants_shine_in_the_near_infrared_and_water_does_not(many):
    image = np.concatenate([p.image.reshape(4, -1) for p in many], axis=1).astype(float)
    labels = np.concatenate([p.labels.ravel() for p in many])
    index = (image[3] - image[0]) / (image[3] + image[0])
    medians = {value: np.median(index[labels == value]) for value in (VEGETATION, ROAD, BUILDING, WATER)}
    assert medians[VEGETATION] > 0.2 > medians[ROAD] > medians[WATER]


def test_no_colour_gives_the_class_away(many):
    # the best guess from the colour of a pixel alone, learnt and scored on the same pixels, finds few buildings
    image = np.concatenate([p.image.reshape(4, -1) for p in many], axis=1)
    labels = np.concatenate([p.labels.ravel() for p in many])
    cell = (image // 256).astype(np.int64)
    code = ((cell[0] * 16 + cell[1]) * 16 + cell[2]) * 16 + cell[3]
    votes = np.stack([np.bincount(code[labels == value], minlength=16**4) for value in range(1, 5)])
    guess = votes.argmax(0)[code] + 1
    union = ((guess == BUILDING) | (labels == BUILDING)).sum()
    assert ((guess == BUILDING) & (labels == BUILDING)).sum() / union < 0.6


def test_the_label_is_what_covers_most_of_a_pixel():
    canvas = Canvas((6, 8))
    stencil = Stencil((6, 8))
    stencil.polygon([(1.0, 1.0), (4.3, 1.0), (4.3, 3.0), (1.0, 3.0)])
    alpha = stencil.alpha()
    assert alpha[1:3, 1:4].min() > 0.7
    assert 0.2 < alpha[1, 4] < 0.5
    canvas.paint(alpha, (1.0, 1.0, 1.0, 1.0), label=BUILDING)
    assert (canvas.labels[1:3, 1:4] == BUILDING).all()
    assert (canvas.labels == BUILDING).sum() == 6
    canvas.paint(np.ones((4, 4), np.float32), (0.5, 0.5, 0.5, 0.5), label=ROAD, at=(-2, 6))  # half outside
    assert (canvas.labels[:2, 6:] == ROAD).all()
    assert (canvas.labels == ROAD).sum() == 4


def test_water_is_where_the_distance_is_negative():
    rng = np.random.default_rng(0)
    canvas = Canvas((80, 90))
    distance = land.pond(rng, (80, 90))
    land.flood(rng, canvas, distance)
    assert np.array_equal(canvas.labels == WATER, distance < 0)


def test_noise_is_centred_and_coarser_noise_is_smoother():
    rng = np.random.default_rng(0)
    coarse, fine = fractal(rng, (128, 96), 60), fractal(rng, (128, 96), 2)
    for field in (coarse, fine):
        assert abs(field.mean()) < 1e-5
        assert field.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(coarse, axis=1)).mean() < 0.5 * np.abs(np.diff(fine, axis=1)).mean()


def test_blurring_keeps_a_constant_and_spreads_a_point():
    assert np.allclose(blur(np.full((2, 9, 11), 3.0, np.float32), 1.5), 3)
    point = np.zeros((31, 31), np.float32)
    point[15, 15] = 1
    spread = blur(point, 2.0)
    rows = np.arange(31) - 15
    assert spread.sum() == pytest.approx(1, abs=1e-4)
    assert (spread.sum(1) * rows**2).sum() == pytest.approx(4, rel=0.03)


def test_every_pixel_of_a_building_has_its_number():
    made = scene(1001, 256)
    assert np.array_equal(made.numbers > 0, made.labels == BUILDING)
    assert len(np.unique(made.numbers)) > 2
