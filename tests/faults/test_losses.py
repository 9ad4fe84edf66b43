"""Faults of losses, by their number."""

import pytest
import torch

from torchfpn.criteria.losses import CrossEntropy, Dice, Focal, Lovasz
from torchfpn.criteria.semantic import criterion

LOSSES = {
    "ce": CrossEntropy(),
    "ce_weighted": CrossEntropy([0.5, 2.0, 1.0]),
    "ce_smoothed": CrossEntropy(label_smoothing=0.1),
    "focal": Focal(),
    "focal_weighted": Focal(0.5, [0.5, 2.0, 1.0]),
    "dice": Dice(),
    "dice_smooth": Dice(smooth=1.0),
    "lovasz": Lovasz(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_fault_26_all_ignored_batch_is_zero_with_zero_gradients(name, dtype):
    logits = torch.randn(2, 3, 8, 8).to(dtype).requires_grad_()
    value = LOSSES[name](logits, torch.full((2, 8, 8), 255))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.eq(0).all()  # neither None nor NaN


def test_fault_26_all_ignored_batch_leaves_the_weights_alone():
    torch.manual_seed(0)
    model = torch.nn.Conv2d(2, 3, 1)
    before = [p.clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    losses = criterion("ce + focal + dice + lovasz", [1.0, 2.0, 3.0])(
        model(torch.randn(2, 2, 8, 8)), torch.full((2, 8, 8), 255)
    )
    sum(losses.values()).backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
