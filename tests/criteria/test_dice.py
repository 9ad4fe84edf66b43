"""Dice loss against plain sums and against smp where that is right."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses import DiceLoss

from torchfpn.criteria.losses import Dice
from torchfpn.errors import ConfigError


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def plain(logits, targets, smooth=0.0):
    """Sums over Python floats, class by class; classes without a pixel are passed over."""
    p = logits.double().softmax(1)
    losses = []
    for k in range(logits.shape[1]):
        here = [(float(p[b, k, r, c]), int(targets[b, r, c]) == k) for b, r, c in (targets != 255).nonzero().tolist()]
        if any(truth for _, truth in here):
            overlap = sum(q for q, truth in here if truth)
            area = sum(q + truth for q, truth in here)
            losses.append(1 - (2 * overlap + smooth) / (area + smooth))
    return sum(losses) / len(losses) if losses else 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), smooth=st.sampled_from([0.0, 1.0]), ignored=st.sampled_from([0.0, 0.5, 0.9]))
def test_equals_plain_sums(seed, smooth, ignored):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 4, 3, 4, generator=g)
    targets = torch.randint(0, 4, (2, 3, 4), generator=g).masked_fill(torch.rand(2, 3, 4, generator=g) < ignored, 255)
    value = Dice(smooth=smooth)(logits, targets)
    assert value.item() == pytest.approx(plain(logits, targets, smooth), rel=1e-5, abs=1e-7)
    assert 0 <= value <= 1


@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_equals_smp_where_every_class_occurs(smooth, ignored):
    logits, targets = torch.randn(2, 5, 16, 16), torch.randint(0, 5, (2, 16, 16))
    targets = targets.masked_fill(torch.rand(2, 16, 16) < ignored, 255)
    theirs = DiceLoss("multiclass", smooth=smooth, ignore_index=255)(logits, targets)
    # smp adds its smooth to |P and T| and to half the areas, so twice as much counts as ours
    torch.testing.assert_close(Dice(smooth=2 * smooth)(logits, targets), theirs)


def test_classes_that_do_not_occur_do_not_thin_the_mean():
    # smp sets the loss of an absent class to 0 but divides by all K, so the same mistakes cost less the more classes
    # there might have been
    logits, targets = torch.randn(2, 5, 16, 16), torch.randint(0, 2, (2, 16, 16))
    theirs = DiceLoss("multiclass")(logits, targets)
    torch.testing.assert_close(Dice()(logits, targets), theirs * 5 / 2)


@pytest.mark.parametrize("smooth", [-1.0, float("nan"), float("inf")])
def test_smooth_that_cannot_be(smooth):
    with pytest.raises(ConfigError, match="smooth"):
        Dice(smooth=smooth)
