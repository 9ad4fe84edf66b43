"""Class counts and the weights made of them, against loops and hand-worked figures."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_data import make_dataset, write_png
from shared import needs_shared
from torchfpn.data.config import read_dataset
from torchfpn.data.moments import Moments
from torchfpn.data.statistics import METHODS, ClassCounts, class_counts, class_weights
from torchfpn.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs" / "datasets"

# Two images of ten labelled pixels: class 0 in both (8 + 5), class 1 in the first (2), class 2 in the second (5)
COUNTS = ClassCounts((13, 2, 5, 0), (2, 1, 1, 0), (20, 10, 10, 0), ignored=3, files=2)


def test_counts_of_files(tmp_path):
    make_dataset(tmp_path, train=2, val=0)
    first, second = np.array([[0] * 8 + [1] * 2], "uint8"), np.array([[0] * 5 + [2] * 5 + [255] * 3], "uint8")
    for i, values in enumerate((first, second)):
        write_png(tmp_path / "train" / "labels" / f"a{i}.png", values)
        write_png(tmp_path / "train" / "images" / f"a{i}.png", np.repeat(values, 3, 0).T.reshape(1, -1, 3).copy())
    counts = class_counts(read_dataset(tmp_path), "train")
    assert (counts.pixels, counts.images, counts.around) == ((13, 2, 5), (2, 1, 1), (20, 10, 10))
    assert (counts.ignored, counts.files, counts.labelled) == (3, 2, 20)
    assert counts.shares == [0.65, 0.1, 0.25]


def test_weights_by_hand():
    frequency = [13 / 20, 2 / 10, 5 / 10]  # median 0.5
    assert class_weights(COUNTS, "median-frequency") == pytest.approx([0.5 / f for f in frequency] + [0])
    assert class_weights(COUNTS, "sqrt-median-frequency") == pytest.approx([(0.5 / f) ** 0.5 for f in frequency] + [0])
    assert class_weights(COUNTS, "inverse") == pytest.approx([20 / 39, 20 / 6, 20 / 15, 0])
    enet = [1 / math.log(1.02 + p) for p in (0.65, 0.1, 0.25)]
    assert class_weights(COUNTS, "enet") == pytest.approx([*enet, 0])


pixels = st.lists(st.integers(0, 10**12), min_size=1, max_size=8).filter(any)


@given(pixels, st.sampled_from(METHODS))
@settings(max_examples=60)
def test_weights_are_finite_and_rarer_is_heavier(pixels, method):
    counts = ClassCounts(
        tuple(pixels), tuple(min(n, 1) for n in pixels), tuple(sum(pixels) if n else 0 for n in pixels)
    )
    weights = class_weights(counts, method)
    assert all(math.isfinite(w) for w in weights)
    assert all((w > 0) == (n > 0) for w, n in zip(weights, pixels, strict=True))
    ordered = sorted((n, -w) for n, w in zip(pixels, weights, strict=True) if n)
    assert ordered == sorted(ordered, key=lambda pair: (pair[1], pair[0])) or method == "enet"


def test_nothing_labelled_and_unknown_method():
    with pytest.raises(ConfigError, match="no labelled pixel"):
        class_weights(ClassCounts.empty(3))
    with pytest.raises(ConfigError, match='did you mean "median-frequency"'):
        class_weights(COUNTS, "median-frequncy")


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=5))
@settings(max_examples=30)
def test_counts_add_up(images):
    parts = [ClassCounts.of(np.array([image], "uint8"), 4) for image in images]
    total = ClassCounts.empty(4)
    for part in parts:
        total += part
    for c in range(4):
        assert total.pixels[c] == sum(image.count(c) for image in images)
        assert total.images[c] == sum(c in image for image in images)
        assert total.around[c] == sum(len(image) for image in images if c in image)


@given(
    st.sampled_from(["uint8", "int16", "float32"]),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4),
    st.integers(0, 99),
)
@settings(max_examples=40)
def test_moments_of_parts_are_those_of_the_whole(dtype, sizes, seed):
    rng = np.random.default_rng(seed)
    images = [(rng.random((2, *size)) * 250).astype(dtype) for size in sizes]
    masks = [rng.random(size) > 0.3 for size in sizes]
    total = sum(
        (Moments.of(*pair) for pair in zip(images[1:], masks[1:], strict=True)), Moments.of(images[0], masks[0])
    )
    values = np.concatenate([image[:, mask] for image, mask in zip(images, masks, strict=True)], 1).astype("float64")
    assert total.count == values.shape[1]
    if total.count:
        np.testing.assert_allclose(total.mean, values.mean(1), rtol=1e-12)
        np.testing.assert_allclose(total.std, values.std(1), rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(total.low, values.min(1))
        np.testing.assert_array_equal(total.high, values.max(1))


def test_moments_keep_small_deviations_of_large_numbers():
    image = np.array([[[1e9, 1e9 + 1, 1e9 + 2]]])
    total = sum((Moments.of(image, None) for _ in range(99)), Moments.of(image, None))
    np.testing.assert_allclose(total.std, (2 / 3) ** 0.5, rtol=1e-9)


@needs_shared
def test_shares_of_camvid_are_those_its_readme_gives():
    counts = class_counts(read_dataset(CONFIGS / "camvid.yaml"), "val")
    whole = counts.labelled + counts.ignored
    told = (0.092, 0.260, 0.006, 0.290, 0.087, 0.163, 0.009, 0.031, 0.018, 0.007, 0.022)
    assert [n / whole for n in counts.pixels] == pytest.approx(told, abs=0.0006)
    assert counts.ignored / whole == pytest.approx(0.017, abs=0.0006)
