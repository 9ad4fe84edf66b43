"""Cross-entropy against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.criteria.losses import CrossEntropy
from torchfpn.errors import ConfigError


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(1, 6),
    weighted=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    ignored=st.sampled_from([0.0, 0.5, 0.95]),
)
def test_equals_torch_wherever_that_is_finite(seed, classes, weighted, smoothing, ignored):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 6, generator=g).requires_grad_()
    targets = torch.randint(0, classes, (2, 5, 6), generator=g)
    targets = targets.masked_fill(torch.rand(2, 5, 6, generator=g) < ignored, 255)
    weight = torch.rand(classes, generator=g) if weighted else None
    expected = F.cross_entropy(logits, targets, weight, ignore_index=255, label_smoothing=smoothing)
    value = CrossEntropy(weight, label_smoothing=smoothing)(logits, targets)
    if not expected.isfinite():
        assert value == 0
        return
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, logits)[0], torch.autograd.grad(expected, logits)[0], rtol=1e-5, atol=1e-6
    )


def test_labelled_pixels_that_weigh_nothing_are_as_good_as_ignored():
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    targets = torch.zeros(1, 3, 3, dtype=torch.long)
    assert F.cross_entropy(logits, targets, torch.tensor([0.0, 1.0])).isnan()
    value = CrossEntropy([0.0, 1.0])(logits, targets)
    value.backward()
    assert value == 0
    assert logits.grad.eq(0).all()


def test_many_pixels_keep_their_digits():
    logits = torch.zeros(1, 2, 1500, 1500)
    logits[:, 1] = 1.0
    targets = torch.zeros(1, 1500, 1500, dtype=torch.long)
    expected = F.softplus(torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(CrossEntropy()(logits, targets).double(), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("weight", [[1, -1], [1, float("nan")], [1, float("inf")], [0, 0], []])
def test_weights_that_cannot_be(weight):
    with pytest.raises(ConfigError, match="class_weights: class weights"):
        CrossEntropy(weight)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_label_smoothing_that_cannot_be(share):
    with pytest.raises(ConfigError, match="label_smoothing"):
        CrossEntropy(label_smoothing=share)
