"""Averaged weights against the formula, and their swapping in and out."""

import copy

import torch
from torch import nn

from torchfpn.train.optim import Ema


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)


def change(net):
    with torch.no_grad():
        for value in net.state_dict().values():
            value.add_(1) if not value.is_floating_point() else value.add_(torch.rand_like(value))


def test_follows_the_formula_with_warm_up():
    net = network()
    ema, expected = Ema(net, 0.3), {k: v.clone() for k, v in net.state_dict().items()}
    for n in range(5):
        change(net)
        ema.update()
        decay = min(0.3, (1 + n) / (10 + n))
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
    for name, average in ema.named().items():
        torch.testing.assert_close(average, expected[name])
    assert "1.running_var" in ema.named()
    assert "1.num_batches_tracked" not in ema.named()


def test_applied_puts_averages_in_and_weights_back_bit_by_bit():
    net = network()
    ema = Ema(net, 0.9)
    change(net)
    ema.update()
    before, averages = copy.deepcopy(net.state_dict()), {k: v.clone() for k, v in ema.named().items()}
    with ema.applied():
        assert all(torch.equal(net.state_dict()[k], v) for k, v in averages.items())
        assert not torch.equal(net.state_dict()["0.weight"], before["0.weight"])
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    change(net)
    ema.update()  # still follows the module's own tensors
    assert not torch.equal(ema.named()["0.weight"], averages["0.weight"])


def test_a_restored_one_goes_on_like_the_original():
    net = network()
    ema = Ema(net, 0.99)
    change(net)
    ema.update()
    twin = copy.deepcopy(net)
    restored = Ema(twin, 0.99)
    restored.load_state_dict(copy.deepcopy(ema.state_dict()))
    for one in (net, twin):
        torch.manual_seed(1)
        change(one)
    ema.update()
    restored.update()
    assert all(torch.equal(a, b) for a, b in zip(ema.averages, restored.averages, strict=True))


def test_frozen_weights_stay_exactly_what_they_are():
    net = network()
    ema = Ema(net, 0.99)
    for _ in range(3):
        ema.update()
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in ema.named().items())
