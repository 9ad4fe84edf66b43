"""Parts of a model that stay as they are: no gradients, and batch-norm statistics that do not move."""

import re
from itertools import takewhile

from torch import nn

from torchfpn.errors import ConfigError, nearest
from torchfpn.nn.containers import Stages

# What timm and torchvision call stages and blocks, as children ("layer1", "features_denseblock1") and as classes.
STAGE = re.compile(r"(.*_)?(blocks?_?\d*|stages?_?\d*|layers|layers?_?\d+|denseblock\d+|level\d+|s\d+)")
BLOCK = re.compile(r"Block|Bottleneck|Residual|Stage|MBConv")


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
