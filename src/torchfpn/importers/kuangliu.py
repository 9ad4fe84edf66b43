"""kuangliu/pytorch-fpn (2018): FPN101 and RetinaFPN101, a backbone with its pyramid and no head.

The maps are enlarged bilinearly, with align_corners=True in the torch of its time (0.3) and False in every later one.
The file does not say which, so the caller does. All maps but the coarsest are smoothed. Despite their names both have
[2, 2, 2, 2] bottlenecks, but any depth is read.
"""

from torchfpn.importers.family import Asked, Family, Found, Tensors, renamed, resnet_shape, shape
from torchfpn.recipe import Inputs, Scaling


def read(tensors: Tensors, asked: Asked) -> Found:
    """The state_dict of FPN101 or RetinaFPN101."""
    retina = any(name.startswith("layer5.") for name in tensors)
    stage = "layer{}"
    if retina:  # its stages are layer2 to layer5, as C2 to C5
        tensors = {_shifted(name): tensor for name, tensor in tensors.items()}
    blocks, convs, _, _ = resnet_shape(tensors, stage, asked)
    if retina:
        tensors = {_shifted(name, back=True): tensor for name, tensor in tensors.items()}
    channels = shape(tensors, "toplayer.weight", asked)[0]
    bands = shape(tensors, "conv1.weight", asked)[1]
    body = "resnet26" if convs == 3 else "resnet18"  # of timm: bottlenecks, basic blocks
    model = {
        "backbone": body,
        "backbone_options": {"layers": list(blocks)},
        "strides": [8, 16, 32] if retina else [4, 8, 16, 32],
        "pyramid": "fpn",
        "channels": channels,
        "pyramid_options": {"mode": "bilinear", "align_corners": asked.align_corners, "smooth": "finer"},
        **({"extra": "conv-c5"} if retina else {}),
    }
    return Found(
        model=model,
        tensors=tensors,
        name_of=_retina_name_of if retina else _fpn_name_of,
        first_convs=("backbone.features.conv1.weight",),
        in_channels=bands,
        num_classes=None,
        inputs=Inputs.unknown(),
        scaling=Scaling.identity(bands),
        about=f"{'RetinaFPN' if retina else 'FPN'} of {list(blocks)} {'bottlenecks' if convs == 3 else 'basic blocks'}",
        notes=(f"maps are enlarged with align_corners={asked.align_corners}; the file does not say which",),
    )


def _shifted(name: str, *, back: bool = False) -> str:
    """RetinaFPN's layer2 to layer5 as layer1 to layer4, or back."""
    if not name.startswith("layer"):
        return name
    return f"layer{int(name[5]) + (1 if back else -1)}{name[6:]}"


def _body(ours: str) -> str:
    name = renamed(ours, (r"backbone\.features\.", ""))
    return name.replace(".downsample.", ".shortcut.")


def _fpn_name_of(ours: str) -> str:
    laterals = [(rf"pyramid\.lateral\.{i}\.", f"latlayer{3 - i}.") for i in range(3)]
    smooths = [(rf"pyramid\.smooth\.{i}\.", f"smooth{3 - i}.") for i in range(3)]
    return _body(renamed(ours, *laterals, *smooths, (r"pyramid\.lateral\.3\.", "toplayer.")))


def _retina_name_of(ours: str) -> str:
    inner = r"pyramid\.pyramid\."
    laterals = [(rf"{inner}lateral\.{i}\.", f"latlayer{2 - i}.") for i in range(2)]
    smooths = [(rf"{inner}smooth\.{i}\.", f"smooth{2 - i}.") for i in range(2)]
    extra = [(rf"pyramid\.extra\.{i}\.", f"conv{6 + i}.") for i in range(2)]
    return _shifted(
        _body(renamed(ours, *laterals, *smooths, *extra, (rf"{inner}lateral\.2\.", "toplayer."))), back=True
    )


KUANGLIU = Family("kuangliu", r"toplayer\.|latlayer\d\.|smooth\d\.", read, asks=("align_corners",))
