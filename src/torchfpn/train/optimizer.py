"""Which weights move how fast: parameter groups, and the optimiser over them."""

from typing import Any

import torch
from torch import nn

from torchfpn.config import OptimizerConfig


def optimizer(model: nn.Module, config: OptimizerConfig, lr: float) -> torch.optim.Optimizer:
    """AdamW or SGD over the weights of `model` that are not frozen; a Task brings what its criterion learns.

    The children `backbone` and the rest may have different rates. Norms and biases (one-dimensional) do not decay.
    """
    groups = _groups(model, config, lr)
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in model.parameters())
    if config.name == "sgd":
        nesterov = config.momentum > 0
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, lr=lr, betas=config.betas, fused=fused)


def _groups(model: nn.Module, config: OptimizerConfig, lr: float) -> list[dict[str, Any]]:
    """At most four groups, empty ones left out: backbone or rest, decaying or not; each keeps its highest rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (name.removeprefix("model.").startswith("backbone."), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * (config.backbone_lr if in_backbone else 1.0),
            "top_lr": lr * (config.backbone_lr if in_backbone else 1.0),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
