"""Parameter groups: what decays, what moves slower, what does not move."""

import pytest
import torch
from torch import nn

from torchfpn.config import OptimizerConfig
from torchfpn.train.optimizer import optimizer


def model():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return nn.ModuleDict({"backbone": body, "head": nn.Conv2d(4, 2, 1)})


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_norms_and_biases_do_not_decay_and_the_backbone_has_its_own_rate(name, kind):
    net = model()
    made = optimizer(net, OptimizerConfig(name=name, weight_decay=0.1, backbone_lr=0.5), 0.01)
    assert isinstance(made, kind)
    found = {id(p): (g["weight_decay"], g["top_lr"]) for g in made.param_groups for p in g["params"]}
    expected = {
        n: (0.1 if p.ndim > 1 else 0.0, 0.005 if n.startswith("backbone") else 0.01) for n, p in net.named_parameters()
    }
    assert {n: found[id(p)] for n, p in net.named_parameters()} == expected


def test_frozen_weights_are_left_out():
    net = model()
    net["backbone"].requires_grad_(False)
    made = optimizer(net, OptimizerConfig(), 0.01)
    assert sum(len(g["params"]) for g in made.param_groups) == 2
