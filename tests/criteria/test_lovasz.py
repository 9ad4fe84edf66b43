"""Lovasz-softmax against the definition of the Lovasz extension and against smp where that is right."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses import LovaszLoss

from torchfpn.criteria.losses import Lovasz, falling, slope


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def plain(logits, targets):
    """Definition 1 of the paper: sum of error times the rise of the Jaccard loss of the set of larger errors."""
    p = logits.double().softmax(1)
    losses = []
    for k in range(logits.shape[1]):
        seen = (targets != 255).nonzero().tolist()
        truth = {i for i, (b, r, c) in enumerate(seen) if int(targets[b, r, c]) == k}
        if not truth:
            continue
        errors = [abs((i in truth) - float(p[b, k, r, c])) for i, (b, r, c) in enumerate(seen)]
        order = sorted(range(len(seen)), key=lambda i: -errors[i])
        rises, wrong, before = 0.0, set(), 0.0
        for i in order:
            wrong.add(i)
            after = len(wrong) / len(truth | wrong)  # 1 - IoU when exactly these pixels are wrong
            rises += errors[i] * (after - before)
            before = after
        losses.append(rises)
    return sum(losses) / len(losses) if losses else 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), ignored=st.sampled_from([0.0, 0.4, 0.9]))
def test_equals_the_definition(seed, ignored):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 4, 3, 4, generator=g)
    targets = torch.randint(0, 4, (2, 3, 4), generator=g).masked_fill(torch.rand(2, 3, 4, generator=g) < ignored, 255)
    value = Lovasz()(logits, targets)
    assert value.item() == pytest.approx(plain(logits, targets), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_equals_smp_with_its_gradient(classes, ignored):
    # few pixels: smp takes differences of quotients near 1, which float32 rounds away (next test)
    logits = torch.randn(2, classes, 8, 8, requires_grad=True)
    targets = torch.randint(0, max(2, classes - 1), (2, 8, 8))  # of 5 classes one does not occur
    targets = targets.masked_fill(torch.rand(2, 8, 8) < ignored, 255)
    ours, theirs = Lovasz()(logits, targets), LovaszLoss("multiclass", ignore_index=255)(logits, targets)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, logits)[0], torch.autograd.grad(theirs, logits)[0], rtol=1e-3, atol=1e-7
    )


def test_float32_gradients_keep_their_digits_on_large_maps():
    g = torch.Generator().manual_seed(0)
    targets = (torch.rand(1, 400, 500, generator=g) < 0.5).long()
    logits = torch.randn(1, 2, 400, 500, generator=g)

    def gradient(loss, dtype):
        x = logits.to(dtype).requires_grad_()
        return torch.autograd.grad(loss(x, targets), x)[0].double()

    exact, ours = gradient(Lovasz(), torch.float64), gradient(Lovasz(), torch.float32)
    theirs = gradient(LovaszLoss("multiclass"), torch.float32)
    error, their_error = ((g - exact).norm() / exact.norm() for g in (ours, theirs))
    assert error < 1e-5
    assert error < their_error / 100


def test_hard_mistakes_cost_one_minus_iou():
    # at errors of 0 and 1 the extension is the Jaccard loss itself
    truth = torch.tensor([[[0, 0, 0, 1, 1, 1]]])
    guess = torch.tensor([[[0, 0, 1, 1, 1, 0]]])
    logits = 1e4 * torch.nn.functional.one_hot(guess, 2).permute(0, 3, 1, 2).float()
    assert Lovasz()(logits, truth).item() == pytest.approx(1 - 2 / 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_falling_order_is_the_same_in_both_ways(dtype):
    errors = torch.rand(5000).mul(64).round().div(64).to(dtype)  # with many ties, 0 and 1
    ignored = torch.rand(5000) < 0.2
    order = falling(errors, ignored)
    known = [i for i in range(5000) if not ignored[i]]
    expected = sorted(known, key=lambda i: -float(errors[i])) + ignored.nonzero().flatten().tolist()
    assert order.tolist() == expected


def test_slopes_sum_to_the_loss_of_getting_everything_wrong():
    for size, true in itertools.product((1, 5, 40), (1, 3)):
        truth = torch.arange(size) < true
        slopes = slope(torch.rand(size), truth, torch.zeros(size, dtype=torch.bool))
        assert slopes.sum().item() == pytest.approx(1.0, abs=1e-6)
        assert (slopes >= 0).all()
