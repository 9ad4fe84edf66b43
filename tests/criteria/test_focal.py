"""Focal loss against a plain reading of the paper, against smp's functions and against cross-entropy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses import FocalLoss
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits

from torchfpn.criteria.losses import CrossEntropy, Focal
from torchfpn.errors import ConfigError


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def plain(logits, targets, gamma, weight):
    """Lin et al. 2017, equation 5, one pixel after the other."""
    total = mass = 0.0
    for b, row, column in (targets != 255).nonzero().tolist():
        scores = logits[b, :, row, column].tolist()
        t = int(targets[b, row, column])
        p = math.exp(scores[t]) / sum(math.exp(s) for s in scores)
        total += weight[t] * (1 - p) ** gamma * -math.log(p)
        mass += weight[t]
    return total / mass if mass else 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), weighted=st.booleans())
def test_equals_the_paper_pixel_by_pixel(seed, gamma, weighted):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 4, 3, 4, generator=g)
    targets = torch.randint(0, 4, (2, 3, 4), generator=g).masked_fill(torch.rand(2, 3, 4, generator=g) < 0.3, 255)
    weight = [0.2, 3.0, 1.0, 0.7] if weighted else [1.0] * 4
    value = Focal(gamma, weight if weighted else None)(logits, targets)
    assert value.item() == pytest.approx(plain(logits.double(), targets, gamma, weight), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 3.0])
def test_equals_the_softmax_function_of_smp(gamma):
    logits, targets = torch.randn(2, 5, 8, 8), torch.randint(0, 5, (2, 8, 8))
    torch.testing.assert_close(Focal(gamma)(logits, targets), softmax_focal_loss_with_logits(logits, targets, gamma))


def test_two_classes_equal_the_binary_loss_of_smp():
    # FocalLoss("multiclass") of smp is the mean of K sigmoid losses, another loss; its binary mode is the same one,
    # for a softmax over (0, z) is the sigmoid of z
    z, targets = torch.randn(2, 8, 8), torch.randint(0, 2, (2, 8, 8))
    logits = torch.stack([torch.zeros_like(z), z], dim=1)
    torch.testing.assert_close(Focal(2.0)(logits, targets), FocalLoss("binary", gamma=2.0)(z, targets))


@pytest.mark.parametrize("weight", [None, [0.3, 2.0, 0.0]])
def test_gamma_0_is_cross_entropy(weight):
    logits = torch.randn(2, 3, 8, 8)
    targets = torch.randint(0, 3, (2, 8, 8)).masked_fill(torch.rand(2, 8, 8) < 0.2, 255)
    torch.testing.assert_close(Focal(0.0, weight)(logits, targets), CrossEntropy(weight)(logits, targets))


@pytest.mark.parametrize("gamma", [-1.0, float("nan"), float("inf")])
def test_gamma_that_cannot_be(gamma):
    with pytest.raises(ConfigError, match="gamma"):
        Focal(gamma)
