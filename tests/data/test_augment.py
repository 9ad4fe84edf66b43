"""Augmentation: a pure function of sample and generator; what is missing stays missing; rare classes are seen."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.data.sample import Sample
from torchfpn.data.sampler import generator
from torchfpn.data.transforms import Augment
from torchfpn.errors import ConfigError
from torchfpn.recipe import IGNORE, Scaling

EVERYTHING = {
    "scale": (0.5, 2.0),
    "flip": 0.5,
    "turns": True,
    "brightness": 0.2,
    "contrast": 0.2,
    "band_brightness": 0.1,
    "band_contrast": 0.1,
    "noise": 0.1,
    "class_aware": 0.5,
}


def scaling(bands):
    return Scaling((100.0,) * bands, (50.0,) * bands)


def sample(bands=3, size=(40, 50), dtype=torch.uint8):
    rng = np.random.default_rng(bands)
    image = torch.from_numpy(rng.integers(0, 256, (bands, *size))).to(dtype)
    return Sample(image, torch.from_numpy(rng.integers(0, 4, size)).to(torch.uint8), "a.png")


@given(
    st.integers(1, 13),
    st.sampled_from([torch.uint8, torch.int16, torch.uint16, torch.float32]),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 33), st.integers(1, 33)),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_any_bands_any_size_any_type(bands, dtype, size, crop, seed):
    augment = Augment(crop, **EVERYTHING, scaling=scaling(bands))
    before = sample(bands, size, dtype)
    kept = before.image.clone(), before.target.clone()
    after = augment(before, generator(seed))
    assert after.image.shape == (bands, *crop)
    assert (after.image.dtype, after.target.dtype) == (torch.float32, torch.int64)
    missing = after.image.isnan()
    assert torch.equal(missing.any(0), missing.all(0))
    assert torch.equal(missing.any(0), after.target == IGNORE)  # this source has no pixel without label
    assert torch.equal(before.image, kept[0])
    assert torch.equal(before.target, kept[1])
    again = augment(before, generator(seed))
    assert torch.equal(after.image.nan_to_num(-1), again.image.nan_to_num(-1))
    assert torch.equal(after.target, again.target)


def test_other_keys_other_crops():
    augment = Augment((16, 16), **EVERYTHING, scaling=scaling(3))
    first, second = (augment(sample(), generator(seed)).image for seed in (0, 1))
    assert not torch.equal(first, second)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    Augment((16, 16), **EVERYTHING, scaling=scaling(3))(sample(), generator(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_asked_is_a_plain_crop():
    before = sample()
    after = Augment((40, 50), mirror=0.0)(before, generator(0))
    assert torch.equal(after.image, before.image.float())
    assert torch.equal(after.target, before.target.long())


def test_invalid_pixels_stay_invalid_and_are_ignored():
    before = sample(2, (30, 30), torch.float32)
    before.image[1, 10:14, 10:14] = torch.nan
    after = Augment((30, 30), mirror=0.0, noise=0.3, scaling=scaling(2))(before, generator(0))
    assert after.image[:, 10:14, 10:14].isnan().all()
    assert (after.target[10:14, 10:14] == IGNORE).all()
    assert int(after.image[0].isnan().sum()) == 16
    assert int((after.target == IGNORE).sum()) == 16


def test_a_small_image_lies_whole_in_a_large_crop_at_any_place():
    before = Sample(torch.full((1, 5, 6), 7.0), torch.ones(5, 6, dtype=torch.uint8))
    places = set()
    for seed in range(40):
        after = Augment((8, 8), mirror=0.0)(before, generator(seed))
        assert int((after.image == 7).sum()) == 30
        assert int((after.target == 1).sum()) == 30
        places.add(tuple((after.target == 1).nonzero()[0].tolist()))
    assert len(places) > 6


def test_crops_come_from_everywhere():
    image = torch.arange(20.0).expand(1, 20, 20)
    starts = {int(Augment((20, 6), mirror=0.0)(Sample(image, torch.zeros(20, 20)), generator(s)).image[0, 0, 0])
              for s in range(200)}  # fmt: skip
    assert starts == set(range(15))


def test_brightness_contrast_and_noise_in_units_of_the_scaling():
    """A flat image at offset + scale: contrast e^c and shift b move it to offset + scale (e^c + b)."""
    flat = Sample(torch.tensor([150.0, 3.0])[:, None, None].expand(2, 60, 60), torch.zeros(60, 60))
    units = Scaling((100.0, 2.0), (50.0, 1.0))
    shifts, gains, spreads = [], [], []
    for seed in range(200):
        bright = Augment((60, 60), brightness=0.5, scaling=units)(flat, generator(seed)).image
        level = (bright[:, 0, 0] - torch.tensor(units.offset)) / torch.tensor(units.scale)
        assert torch.allclose(level[0], level[1], atol=1e-4)  # shared by the bands
        shifts.append(level[0].item() - 1)
        gain = Augment((60, 60), contrast=0.5, scaling=units)(flat, generator(seed)).image
        gains.append(((gain[0, 0, 0] - 100) / 50).log().item())
        noisy = Augment((60, 60), noise=0.5, scaling=units)(flat, generator(seed)).image
        spreads.append((noisy[0].std() / 50).item())
        assert abs(noisy[0].std() / 50 - noisy[1].std()) < 0.05
    for values, low, high in ((shifts, -0.5, 0.5), (gains, -0.5, 0.5), (spreads, 0.0, 0.5)):
        assert low - 0.02 <= min(values) < low + 0.05
        assert high - 0.05 < max(values) <= high + 0.03


def test_bands_may_go_their_own_ways():
    flat = Sample(torch.full((2, 9, 9), 150.0), torch.zeros(9, 9))
    after = Augment((9, 9), band_brightness=0.5, scaling=scaling(2))(flat, generator(1)).image
    assert abs(after[0, 0, 0] - after[1, 0, 0]) > 1


class TestClassAware:
    """A class of nine pixels in 100 x 100."""

    def rare(self):
        target = torch.zeros(100, 100, dtype=torch.uint8)
        target[70:73, 20:23] = 2
        target[:, 90:] = IGNORE
        return Sample(torch.zeros(1, 100, 100), target)

    def share(self, **options):
        augment = Augment((20, 20), mirror=0.0, **options)
        return sum((augment(self.rare(), generator(s)).target == 2).any().item() for s in range(200)) / 200

    def test_plain_crops_seldom_see_it(self):
        assert self.share() < 0.2

    def test_all_classes_alike(self):
        assert 0.4 < self.share(class_aware=1.0) < 0.65

    def test_weights_prefer_it(self):
        assert self.share(class_aware=1.0, class_weights=(0.0, 1.0, 1.0)) == 1.0
        assert self.share(class_aware=1.0, class_weights=(1.0, 1.0, 0.0)) < 0.2

    def test_nothing_labelled_is_a_plain_crop(self):
        empty = Sample(torch.zeros(1, 30, 30), torch.full((30, 30), IGNORE, dtype=torch.uint8))
        after = Augment((20, 20), class_aware=1.0)(empty, generator(0))
        assert (after.target == IGNORE).all()


@pytest.mark.parametrize(
    "options", [{"crop": (0, 3)}, {"crop": (3, 3), "scale": (0.0, 1.0)}, {"crop": (3, 3), "noise": 0.1}]
)
def test_settings_that_cannot_be(options):
    with pytest.raises(ConfigError):
        Augment(**options)


def test_it_is_fast_enough():
    """The goal is 4 ms on one core; three times that here, since tests share their cores with others."""
    augment = Augment((256, 320), **EVERYTHING, scaling=scaling(3))
    before = sample(3, (360, 480))
    times = []
    for seed in range(40):
        begun = time.thread_time()
        augment(before, generator(seed))
        times.append(time.thread_time() - begun)
    assert sorted(times)[20] < 0.012
