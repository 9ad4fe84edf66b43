"""What changes the weights in a step: optimizer, learning-rate schedule, moving averages, and frozen modules."""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from torchfpn.config.settings import OptimizerConfig, ScheduleConfig
from torchfpn.errors import ConfigError, nearest
from torchfpn.nn.containers import Stages

TABLES = (  # positions and tokens, where the network that names them was taken apart for its maps
    *("absolute_pos_embed", "cls_token", "dist_token", "pos_embed", "pos_embed_window", "reg_token"),
    *("attention_biases", "relative_position_bias_table"),
)

SHAPES: dict[str, Callable[[float, float], float]] = {
    "poly": lambda done, power: (1 - done) ** power,
    "cosine": lambda done, _: (1 + math.cos(math.pi * done)) / 2,
    "constant": lambda done, _: 1.0,
}

# What timm and torchvision call stages and blocks, as children ("layer1", "features_denseblock1") and as classes.
STAGE = re.compile(r"(.*_)?(blocks?_?\d*|stages?_?\d*|layers|layers?_?\d+|denseblock\d+|level\d+|s\d+)")

BLOCK = re.compile(r"Block|Bottleneck|Residual|Stage|MBConv")


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


def lr_factor(config: ScheduleConfig, step: int, total: int) -> float:
    """What the learning rate is multiplied with at `step` of `total`, 0..1.

    Linear from 1 / (warmup + 1) during the warm-up, then the shape from 1 down to min_factor at the end.
    """
    warmup = min(config.warmup, total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    shape = SHAPES[config.name](done, config.power)
    return config.min_factor + (1 - config.min_factor) * shape


class Ema:
    """Follows `module`: average <- decay * average + (1 - decay) * value, after each step, in float32.

    The decay is warmed up, min(decay, (1 + n) / (10 + n)) at update n, so that the first, random weights are soon
    forgotten. Running statistics of batch norm are averaged like weights; whole numbers are those of the module.
    Make it once the module is on its device. Source: Polyak and Juditsky 1992; the warm-up is TensorFlow's.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        named = {name: value for name, value in _tensors(module).items() if value.is_floating_point()}
        self.names = list(named)
        self.values = list(named.values())  # the module's own tensors
        self.averages = [value.detach().clone().float() for value in self.values]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(self.averages, [value.detach() for value in self.values], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module holds the averages."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchanges averages and weights, without copying; a second call puts them back."""
        for i, value in enumerate(self.values):
            average = self.averages[i]
            self.averages[i] = value.data
            value.data = average

    def named(self) -> dict[str, Tensor]:
        """The averages under the names of the module's state_dict."""
        return dict(zip(self.names, self.averages, strict=True))

    def state_dict(self) -> dict[str, object]:
        """Plain values and tensors, for a checkpoint."""
        return {"updates": self.updates, "averages": self.named()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continues from a state; raises KeyError when it is of another module."""
        self.updates = int(state["updates"])  # type: ignore[call-overload]
        stored: Mapping[str, Tensor] = state["averages"]  # type: ignore[assignment]
        for name, average in zip(self.names, self.averages, strict=True):
            average.copy_(stored[name])


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """What a state_dict of `module` holds, as the very tensors the module uses."""
    return module.state_dict(keep_vars=True)


class Frozen:
    """The modules of `model` that `names` means, frozen from now on.

    names: "none", "backbone", "stem" (what the backbone does before its first stage of residual or inverted blocks), or
    names of modules as `model.named_modules()` gives them, separated by commas.

    Raises:
        ConfigError: a name that no module has, with the nearest ones; a backbone without a stem; or nothing left to
            train.
    """

    def __init__(self, model: nn.Module, names: str) -> None:
        self.modules = [module for name in _split(names) for module in _find(model, name)]
        for module in self.modules:
            for parameter in module.parameters():
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError(f'"{names}"', field="freeze", allowed="at least one parameter must remain trainable")
        self.hold()

    def hold(self) -> None:
        """Puts the frozen modules into eval mode again; to be called after every `train()`."""
        for module in self.modules:
            module.eval()


def _split(names: str) -> list[str]:
    words = [word.strip() for word in names.split(",")]
    return [word for word in words if word not in ("", "none")]


def _find(model: nn.Module, name: str) -> list[nn.Module]:
    if name == "stem":
        return _stem(model)
    known = dict(model.named_modules())
    if name not in known:
        hint = nearest(name, ["backbone", "stem", *(n for n in known if n.count(".") <= 2 and n)])
        raise ConfigError(f'unknown module "{name}"', field="freeze", hint=hint)
    return [known[name]]


def _stem(model: nn.Module) -> list[nn.Module]:
    """The first modules of the backbone, or of both streams of a fused one."""
    body = model.get_submodule("backbone")
    streams = [child for name, child in body.named_children() if name in ("main", "extra")]
    return [module for stream in streams or [body] for module in _first(stream, str(getattr(body, "name", "backbone")))]


def _first(body: nn.Module, name: str) -> list[nn.Module]:
    """The modules of a backbone before its first stage, in the order they run.

    Raises:
        ConfigError: none of its modules is known to be a stage, or the first one is.
    """
    children = list(body.children())
    while not isinstance(body, Stages) and (len(children) == 1 or any(isinstance(c, Stages) for c in children)):
        body = children[0]  # a wrapper; what stands beside Stages has no weights
        children = list(body.children())
    groups = children if isinstance(body, Stages) else [body]
    parts = [part for group in groups for part in group.named_children()]
    stem = [module for _, module in takewhile(lambda part: not _is_stage(*part), parts)]
    if not 0 < len(stem) < len(parts):
        raise ConfigError(
            f'"stem" of {name}',
            field="freeze",
            allowed="networks of a stem and stages",
            hint="name its modules, as in freeze=backbone.features",
        )
    return stem


def _is_stage(name: str, module: nn.Module) -> bool:
    """By its name, or by the class of it or of what it holds: a block or several."""
    if name.startswith("stem"):  # which may be made of blocks, too
        return False
    return STAGE.fullmatch(name) is not None or any(
        BLOCK.search(type(part).__name__) for part in (module, *module.children())
    )
