"""Which weights move how fast: parameter groups, and the optimiser over them."""

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from torchfpn.config import OptimizerConfig

TABLES = (  # positions and tokens, where the network that names them was taken apart for its maps
    *("absolute_pos_embed", "cls_token", "dist_token", "pos_embed", "pos_embed_window", "reg_token"),
    *("attention_biases", "relative_position_bias_table"),
)


def optimizer(model: nn.Module, config: OptimizerConfig, lr: float) -> torch.optim.Optimizer:
    """AdamW or SGD over the weights of `model` that are not frozen; a Task brings what its criterion learns.

    The children `backbone` and the rest may have different rates. Norms and biases (one-dimensional) do not decay, nor
    do position tables and tokens of transformers: what a network's `no_weight_decay()` names, as timm's have it.
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
    kept = _kept(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (name.removeprefix("model.").startswith("backbone."), parameter.ndim > 1 and name not in kept)
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


def _kept(model: nn.Module) -> set[str]:
    """The names of parameters of several dimensions that do not decay all the same."""
    names = [name for name, _ in model.named_parameters()]
    found = {name for name in names if name.rpartition(".")[2] in TABLES}
    for prefix, module in model.named_modules():
        said = getattr(module, "no_weight_decay", None)
        patterns = [f"{prefix}.{name}".removeprefix(".") for name in (said() if callable(said) else ())]
        found |= {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
    return found
