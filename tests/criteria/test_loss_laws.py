"""What holds for every loss of a semantic head, whatever it measures."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.criteria.losses import CrossEntropy, Dice, Focal, Lovasz
from torchfpn.criteria.semantic import SemanticCriterion
from torchfpn.errors import DataError, ShapeError

WEIGHT = (0.5, 2.0, 0.0, 1.5, 0.1)
LOSSES = {
    "ce": CrossEntropy(),
    "ce weighted": CrossEntropy(WEIGHT),
    "ce smoothed": CrossEntropy(WEIGHT, label_smoothing=0.1),
    "focal": Focal(),
    "focal 0.5 weighted": Focal(0.5, WEIGHT),
    "dice": Dice(),
    "dice smoothed": Dice(smooth=1.0),
    "lovasz": Lovasz(),
}
each = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def batch(seed, size=(2, 7, 9), ignored=0.3, classes=5, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(size[0], classes, *size[1:], generator=g)
    targets = torch.randint(0, classes, size, generator=g)
    return logits, targets.masked_fill(torch.rand(size, generator=g) < ignored, 255)


def value_and_gradient(loss, logits, targets):
    logits = logits.clone().requires_grad_()
    value = loss(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


@each
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), ignored=st.sampled_from([0.0, 0.3, 0.98]))
def test_ignored_pixels_change_nothing_and_learn_nothing(loss, seed, ignored):
    logits, targets = batch(seed, ignored=ignored)
    value, gradient = value_and_gradient(loss, logits, targets)
    hidden = (targets == 255).unsqueeze(1).expand_as(logits)
    assert value.isfinite()
    assert value >= 0
    assert gradient.isfinite().all()
    assert gradient[hidden].eq(0).all()
    other = torch.where(hidden, 5 * torch.randn_like(logits), logits)
    again, gradient_again = value_and_gradient(loss, other, targets)
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(gradient_again, gradient)


@each
def test_a_pixel_counts_where_it_is_labelled(loss):
    logits, targets = batch(3)
    _, gradient = value_and_gradient(loss, logits, targets)
    # a pixel of class 2 may weigh nothing (WEIGHT), every other labelled one pulls
    pulled = gradient.abs().sum(1) > 0
    assert pulled[(targets != 255) & (targets != 2)].all()


@each
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_cropping_ignored_borders_or_splitting_the_batch_axis_changes_nothing(loss, seed):
    logits, targets = batch(seed)
    padded = torch.nn.functional.pad(logits, (0, 4, 3, 0), value=7.0)
    hidden = torch.nn.functional.pad(targets, (0, 4, 3, 0), value=255)
    torch.testing.assert_close(loss(padded, hidden), loss(logits, targets))
    wide = torch.cat(tuple(logits), dim=-1).unsqueeze(0)  # the images of a batch beside each other
    torch.testing.assert_close(loss(wide, torch.cat(tuple(targets), dim=-1).unsqueeze(0)), loss(logits, targets))


@each
@pytest.mark.parametrize("far", [1e4, 1e30])
def test_certain_predictions_right_or_wrong_give_no_nan(loss, far):
    _, targets = batch(5, classes=5)
    truth = torch.nn.functional.one_hot(targets.where(targets != 255, 0), 5).permute(0, 3, 1, 2).bool()
    for sign, right in ((1, True), (-1, False)):
        logits = torch.where(truth, sign * far, 0.0)
        value, gradient = value_and_gradient(loss, logits, targets)
        assert value.isfinite()
        assert gradient.isfinite().all()
        smoothed = isinstance(loss, CrossEntropy) and loss.label_smoothing > 0
        if right and not smoothed:
            assert value.abs() < 1e-6
        else:
            assert value > 0.3
    impossible = torch.where(truth, 0.0, -torch.inf)  # probability exactly 1 for the truth, 0 for the others
    if not smoothed:
        value, _ = value_and_gradient(loss, impossible, targets)
        assert value.abs() < 1e-6


@each
def test_a_nan_logit_is_not_hidden(loss):
    logits, targets = batch(6, ignored=0.0)
    logits[0, 0, 0, 0] = torch.nan
    targets[0, 0, 0] = 0
    assert loss(logits, targets).isnan()


@each
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_logits_under_autocast_count_in_float32(loss, layout):
    logits, targets = batch(7, size=(2, 16, 16))
    half = logits.bfloat16().to(memory_format=layout).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, targets)
    value.backward()
    assert value.dtype == torch.float32
    expected, gradient = value_and_gradient(loss, half.detach().float(), targets)
    assert torch.equal(value, expected)
    assert half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad, gradient.bfloat16(), rtol=0, atol=0)


@each
def test_an_empty_batch_is_zero(loss):
    value, gradient = value_and_gradient(loss, torch.zeros(0, 5, 4, 4), torch.zeros(0, 4, 4, dtype=torch.long))
    assert value == 0
    assert gradient.shape == (0, 5, 4, 4)


@each
def test_targets_of_other_integer_types_count_the_same(loss):
    logits, targets = batch(8)
    assert torch.equal(loss(logits, targets.to(torch.uint8)), loss(logits, targets))


@each
@pytest.mark.parametrize("value", [-1, 5, 254, 256, 1000])
def test_a_target_that_is_no_class_is_named(loss, value):
    logits, targets = batch(9)
    targets[1, 2, 3] = value
    with pytest.raises(DataError, match=rf"target {value}; expected classes 0\.\.4, not labelled is 255"):
        loss(logits, targets)


@each
def test_shapes_that_do_not_fit_are_named(loss):
    logits, targets = batch(10)
    with pytest.raises(ShapeError, match=r"\[2, 5, 7, 9\] float32 logits and \[2, 7, 8\] int64 targets"):
        loss(logits, targets[..., :-1])
    with pytest.raises(ShapeError, match=r"targets of torch\.float32"):
        loss(logits, targets.float())
    with pytest.raises(ShapeError, match="256 classes"):  # class 255 could not be told from IGNORE
        loss(torch.zeros(1, 256, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))


@pytest.mark.parametrize("loss", [CrossEntropy([1, 2]), Focal(weight=[1, 2])])
def test_a_weight_for_each_class(loss):
    with pytest.raises(ShapeError, match="2 class weights for 5 classes"):
        loss(*batch(11))


def test_class_weights_move_with_the_module_and_stay_out_of_the_weights_file():
    criterion = SemanticCriterion({"ce": (1.0, CrossEntropy(WEIGHT)), "focal": (0.5, Focal(weight=WEIGHT))})
    assert [b.dtype for b in copy.deepcopy(criterion).double().buffers()] == [torch.float64] * 2
    assert all(b.device.type == "meta" for b in copy.deepcopy(criterion).to("meta").buffers())
    assert not criterion.state_dict()
    logits, targets = batch(12)
    for other in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion)), copy.deepcopy(criterion).double()):
        for name, value in criterion(logits, targets).items():
            torch.testing.assert_close(other(logits, targets)[name], value)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(WEIGHT, label_smoothing=0.1), Focal(2.0, WEIGHT), Focal(0.5), Dice(), Dice(smooth=0.5)]
)
def test_gradients_are_the_slopes_of_the_value(loss):
    logits, targets = batch(13, size=(1, 2, 3), scale=1.0)
    torch.autograd.gradcheck(lambda x: loss(x, targets), logits.double().requires_grad_())


def test_gradients_of_lovasz_are_its_slopes_between_its_kinks():
    # the order of the errors must not change within the step: random errors are 1e-6 apart almost surely
    logits, targets = batch(14, size=(2, 2, 3), scale=1.0)
    torch.autograd.gradcheck(lambda x: Lovasz()(x, targets), logits.double().requires_grad_(), eps=1e-7)


@each
def test_losses_lead_to_the_truth(loss):
    logits, targets = batch(15, size=(1, 5, 6), ignored=0.2)
    known = (targets != 255) & (targets != 2)  # class 2 may weigh nothing
    targets = targets.where(known, 255)
    logits = logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(40):
        optimizer.zero_grad()
        loss(logits, targets).backward()
        optimizer.step()
    assert (logits.argmax(1) == targets)[known].float().mean() > 0.98


@pytest.mark.gpu
@each
def test_on_a_gpu_as_on_the_cpu(loss):
    logits, targets = batch(16, size=(2, 33, 47))
    value, gradient = value_and_gradient(loss, logits, targets)
    there, gradient_there = value_and_gradient(copy.deepcopy(loss).cuda(), logits.cuda(), targets.cuda())
    torch.testing.assert_close(there.cpu(), value)
    torch.testing.assert_close(gradient_there.cpu(), gradient, rtol=1e-4, atol=1e-7)
