"""Parameter groups: what decays, what moves slower, what does not move."""

import pytest
import torch
from torch import nn

import torchfpn
from torchfpn.config.settings import OptimizerConfig
from torchfpn.train.optim import optimizer


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


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("vit_tiny_patch16_224", {"pos_embed", "cls_token"}),  # what its own no_weight_decay() names
        ("swin_tiny_patch4_window7_224", {"relative_position_bias_table"}),  # taken apart: the method is gone
    ],
)
def test_position_tables_and_tokens_do_not_decay(name, kept):
    with torch.device("meta"):
        net = nn.ModuleDict({"backbone": torchfpn.backbone(name)})
        made = optimizer(net, OptimizerConfig(weight_decay=0.1), 0.01)
    decays = {id(p): g["weight_decay"] for g in made.param_groups for p in g["params"]}
    still = {n.rpartition(".")[2] for n, p in net.named_parameters() if p.ndim > 1 and not decays[id(p)]}
    assert still == kept


def test_frozen_weights_are_left_out():
    net = model()
    net["backbone"].requires_grad_(False)
    made = optimizer(net, OptimizerConfig(), 0.01)
    assert sum(len(g["params"]) for g in made.param_groups) == 2
