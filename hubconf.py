"""Entry points of torch.hub: models by name, from a checkout, without installing or building torchfpn."""

import importlib.util
import pathlib
import sys

dependencies = ["huggingface_hub", "numpy", "safetensors", "timm", "torch", "torchvision"]  # checked by torch.hub

# A plain folder of that name (the checkout, seen from its parent) is found as a namespace package without an origin.
if getattr(importlib.util.find_spec("torchfpn"), "origin", None) is None:
    sys.path.append(str(pathlib.Path(__file__).resolve().parent / "src"))

# torch.hub.list shows every callable of this module: exactly these three.
from torchfpn import create_model as create_model  # noqa: E402
from torchfpn import make_fpn_efficientnet as make_fpn_efficientnet  # noqa: E402
from torchfpn import make_fpn_resnet as make_fpn_resnet  # noqa: E402
