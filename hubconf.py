"""What torch.hub.load finds here: models by name, from a checkout in which nothing has to be installed or built."""

import importlib.util
import pathlib
import sys

dependencies = ["huggingface_hub", "numpy", "safetensors", "timm", "torch", "torchvision"]  # torch.hub looks for them

# A folder that only bears the name, such as the checkout seen from its parent, is found as well: it has no origin.
if getattr(importlib.util.find_spec("torchfpn"), "origin", None) is None:
    sys.path.append(str(pathlib.Path(__file__).resolve().parent / "src"))

# Whatever can be called here is an entry point: torch.hub.list shows these three and nothing else.
from torchfpn import create_model as create_model  # noqa: E402
from torchfpn import make_fpn_efficientnet as make_fpn_efficientnet  # noqa: E402
from torchfpn import make_fpn_resnet as make_fpn_resnet  # noqa: E402
