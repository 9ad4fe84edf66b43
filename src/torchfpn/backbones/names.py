"""Names of all backbones, found without importing torch or timm, so that a misspelt name is refused at once.

timm's names are read from its source files (every model is a function under ``@register_model``); torchvision's
(``torchvision/<name>``) are the table below; lukemelas/EfficientNet-PyTorch's are ``lukemelas/<name>``.
"""

import fnmatch
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Literal

from torchfpn.errors import ConfigError, nearest

Fusion = Literal["none", "fusenet", "late"]
FUSIONS = ("none", "fusenet", "late")
BAND_INITS = ("repeat", "mean", "copy", "zero")  # or {band: colour}
PREFIX = "torchvision/"

TORCHVISION = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    "mobilenet_v2",
    "mobilenet_v3_large",
    *(f"efficientnet_b{size}" for size in range(8)),
    *(f"efficientnet_v2_{size}" for size in "sml"),
)

LUKEMELAS_PREFIX = "lukemelas/"
LUKEMELAS = tuple(f"efficientnet_b{size}" for size in range(9))
REGISTERED = re.compile(r"^@register_model\s+(?:@\S.*\s+)*def\s+(\w+)\s*\(", re.MULTILINE)


@cache
def known_backbones() -> list[str]:
    """Every name that `backbone` takes, sorted; timm's without their pretrained tags."""
    prefixed = [*(PREFIX + name for name in TORCHVISION), *(LUKEMELAS_PREFIX + name for name in LUKEMELAS)]
    return sorted([*_timm_names(), *prefixed])


def list_backbones(pattern: str = "*") -> list[str]:
    """The names that `backbone` and `create_model` take, sorted, without importing torch or timm.

    Args:
        pattern: with wildcards, such as "resnet*" or "torchvision/*"; a word without wildcards is looked for anywhere
            in a name.

    Returns:
        timm's names without their pretrained tags, torchvision's as "torchvision/<name>", and "lukemelas/<name>".
    """
    wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return fnmatch.filter(known_backbones(), wanted)


def check_backbone(name: str) -> None:
    """Raises ConfigError with the nearest names when there is no such backbone.

    timm's names may carry a pretrained tag ("resnet50.a1_in1k"); whether that tag exists is timm's to say.
    """
    known = known_backbones()
    model = name if name.startswith((PREFIX, LUKEMELAS_PREFIX)) else name.split(".", 1)[0]
    if model in known:
        return
    raise ConfigError(
        f'unknown backbone "{name}"',
        field="model.backbone",
        hint=nearest(PREFIX + model if PREFIX + model in known else model, known),
        allowed=f"a model of timm, or {PREFIX}<name>",
    )


def _timm_names() -> set[str]:
    spec = importlib.util.find_spec("timm")  # finds the folder, imports nothing
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder, "models").glob("*.py"))]
    return {name for file in files for name in REGISTERED.findall(file.read_text(encoding="utf-8"))}
