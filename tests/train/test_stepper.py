"""One step: the same gradient in one pass or many, nothing moved by a bad one, smaller passes when memory ends."""

import copy
import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

import torchfpn
from torchfpn.errors import FPNError
from torchfpn.ops.masks import crop_images
from torchfpn.recipe import IGNORE
from torchfpn.train.loop import TrainingStep, passes
from torchfpn.types import Batch, Objects


def task():
    torch.manual_seed(0)
    return torchfpn.create_task(backbone="test_resnet", num_classes=3, channels=8, head_channels=8, dropout=0.5)


def batch(count=4, value=1.0):
    torch.manual_seed(1)
    images, targets = value * torch.rand(count, 3, 32, 32), torch.randint(0, 3, (count, 32, 32))
    return Batch(images, [(32, 32)] * count, targets, [f"{i}.png" for i in range(count)])


def stepper(made, **options):
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    return TrainingStep(made, optimizer, **({"pass_size": 4} | options))


def state(made):
    return copy.deepcopy(made.state_dict())


def test_several_passes_give_the_gradient_of_one():
    whole = task()
    for module in whole.modules():  # what looks at a whole batch, or is random, differs by nature
        if isinstance(module, nn.BatchNorm2d | nn.Dropout2d):
            module.eval()
    parts = copy.deepcopy(whole)
    a = stepper(whole).step(batch(), 5)
    b = stepper(parts, pass_size=3).step(batch(), 5)
    assert a.losses["loss"] == pytest.approx(b.losses["loss"], rel=1e-5)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def without_statistics(made):
    """The task, but for what looks at a whole batch or is random, which differs by nature."""
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout2d):
            module.eval()
    return made


def sparse():
    """Four images, of which the first is labelled, the second nearly not, the third not, the fourth half."""
    whole = batch()
    targets = whole.targets.clone()
    targets[1, :, 1:], targets[2], targets[3, 16:] = IGNORE, IGNORE, IGNORE
    images = whole.images.clone()
    images[0, :, :8] = torch.nan  # no data is no label
    return replace(whole, images=images, targets=targets)


@pytest.mark.parametrize(
    "options",
    [{}, {"class_weights": [1.0, 5.0, 0.2]}, {"loss": "ce + focal"}, {"deep_supervision": 0.4}],
    ids=["ce", "weights", "focal", "deep"],
)
def test_several_passes_over_sparse_labels_give_the_gradient_of_one(options):
    torch.manual_seed(0)
    made = torchfpn.create_task(backbone="test_resnet", num_classes=3, channels=8, head_channels=8, **options)
    whole = without_statistics(made.train())
    parts = copy.deepcopy(whole)
    a, b = stepper(whole).step(sparse(), 5), stepper(parts, pass_size=1).step(sparse(), 5)
    assert a.losses == pytest.approx(b.losses, rel=1e-5)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_processes_weigh_by_labelled_pixels_too():
    """Two processes with two images each, whose gradients are averaged: the gradient of all four at once."""
    torch.manual_seed(0)
    whole = without_statistics(task().train())
    halves = [copy.deepcopy(whole) for _ in range(2)]
    parts = list(passes(sparse(), 2))
    total = sum(torch.tensor(list(whole.masses(part).values()), dtype=torch.float64) for part in parts)
    stepper(whole).step(sparse(), 5)
    for half, part in zip(halves, parts, strict=True):
        stepper(half, reduce=lambda _: total, world=2).step(part, 5)
    for one, *others in zip(whole.parameters(), *(half.parameters() for half in halves), strict=True):
        torch.testing.assert_close(one, sum(others) / 2, atol=1e-6, rtol=1e-4)


def test_an_image_without_objects_does_not_dilute_the_masks():
    torch.manual_seed(0)
    made = torchfpn.create_task("instance", backbone="test_resnet", num_classes=2, channels=8,
                                head_options={"hidden": 16, "proposals": 20}).train()  # fmt: skip
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[:, 4:24, 6:28] = True
    some = Objects(torch.tensor([[6.0, 4.0, 28.0, 24.0]]), torch.tensor([1]), crop_images(mask))
    none = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), crop_images(mask[:0]))
    both = replace(batch(2), targets=[some, none])
    alone = replace(batch(2), images=both.images[:1], sizes=both.sizes[:1], targets=[some], names=["0.png"])
    found = [stepper(copy.deepcopy(without_statistics(made)), pass_size=1).step(b, 5).losses for b in (alone, both)]
    assert found[0]["masks"] == pytest.approx(found[1]["masks"])
    assert found[0]["classes"] != pytest.approx(found[1]["classes"])


def test_the_key_alone_decides_what_is_random():
    one, other, third = (task().train() for _ in range(3))
    stepper(one).step(batch(), 5)
    torch.rand(3)
    stepper(other).step(batch(), 5)
    stepper(third).step(batch(), 6)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
    assert not all(torch.equal(v, third.state_dict()[k]) for k, v in one.state_dict().items())


def test_losses_come_with_their_sum():
    made = torchfpn.create_task(backbone="test_resnet", num_classes=3, channels=8, head_channels=8, loss="ce+dice")
    losses = stepper(made.train()).step(batch(), 0).losses
    assert list(losses) == ["loss", "ce", "dice"]
    assert losses["loss"] == pytest.approx(losses["ce"] + losses["dice"])


def test_a_step_that_is_not_finite_moves_nothing(caplog):
    made = task().train()
    made.criterion = Overflow(made.criterion)
    steps, before = stepper(made), state(made)
    with caplog.at_level(logging.WARNING):
        stepped = steps.step(batch(), 0)
    assert not stepped.good
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())  # running statistics too
    assert "0.png" in caplog.text
    made.criterion = made.criterion.inner
    assert steps.step(batch(), 0).good
    assert not all(torch.equal(v, before[k]) for k, v in made.state_dict().items())


def test_a_gradient_that_is_not_finite_counts_as_a_bad_step():
    made = task().train()
    made.criterion = BadGradient(made.criterion)
    before = state(made)
    assert not stepper(made).step(batch(), 0).good
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())


def test_patience_is_for_bad_steps_in_a_row():
    made = task().train()
    good, bad = made.criterion, Overflow(made.criterion)
    steps = stepper(made, patience=2)
    for criterion in (bad, bad, good, bad, bad):
        made.criterion = criterion
        steps.step(batch(), 0)
    with pytest.raises(FPNError, match=r"not finite for 3 steps in a row, lastly on 0\.png, 1\.png, 2\.png, 3\.png"):
        steps.step(batch(), 0)


def test_clipping_bounds_the_norm_of_the_gradient():
    made = task().train()
    before = [p.clone() for p in made.parameters()]
    stepper(made, clip=1e-3).step(batch(), 0)
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, made.parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 1e-3, rel=0.01)


def test_passes_cover_the_batch_in_order():
    parts = list(passes(batch(5), 2))
    assert [len(p) for p in parts] == [2, 2, 1]
    assert [n for p in parts for n in p.names] == batch(5).names
    assert torch.equal(torch.cat([p.targets for p in parts]), batch(5).targets)


class Overflow(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, logits, targets):
        return {name: loss * float("inf") for name, loss in self.inner(logits, targets).items()}


class BadGradient(Overflow):
    def forward(self, logits, targets):
        zero = (logits * 0).sum()  # the square root of 0 has an infinite slope
        return {name: loss + torch.sqrt(zero) for name, loss in self.inner(logits, targets).items()}
