"""Parts of a model that stay as they are: no gradients, and batch-norm statistics that do not move."""

from torch import nn

from torchfpn.errors import ConfigError, nearest


class Frozen:
    """The modules of `model` that `names` means, frozen from now on.

    names: "none", "backbone", "stem" (what the backbone does before its first stage of residual or inverted blocks), or
    names of modules as `model.named_modules()` gives them, separated by commas.

    Raises:
        ConfigError: a name that no module has, with the nearest ones; or nothing left to train.
    """

    def __init__(self, model: nn.Module, names: str) -> None:
        self.modules = [module for name in _split(names) for module in _find(model, name)]
        for module in self.modules:
            for parameter in module.parameters():
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError(f'"{names}"', field="freeze", allowed="something must be left to train")
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
        raise ConfigError(f'there is no module "{name}"', field="freeze", hint=hint)
    return [known[name]]


def _stem(model: nn.Module) -> list[nn.Module]:
    """The first modules of the backbone, or of both streams of a fused one."""
    body = model.get_submodule("backbone")
    streams = [child for name, child in body.named_children() if name in ("main", "extra")]
    return [module for stream in streams or [body] for module in _first(stream)]


def _first(sequence: nn.Module) -> list[nn.Module]:
    """The first children of a sequence, up to the first that has more than one convolution."""
    while len(children := list(sequence.children())) == 1 or _convolutions(children[0]) > 1:
        sequence = children[0]
    stem: list[nn.Module] = []
    for child in children:
        if stem and _convolutions(child) > 1:
            break
        stem.append(child)
    return stem


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(m, nn.Conv2d) for m in module.modules())
