"""AdeelH/pytorch-fpn (2021): make_fpn_resnet and make_fpn_efficientnet, of any type, depth, width and bands.

The model is the original graph (`torchfpn.tasks.pytorch_fpn`) under its own names, so that every tensor has its place,
also the unused ones. The output has the size of the image, which is what the original gives for images of its
`out_size`. The project does not normalize: give images as there.
"""

import re

from torchfpn.importers.family import Asked, Family, Found, Tensors, efficientnet_name, resnet_name, shape
from torchfpn.recipe import Inputs, Scaling

PLAIN, SECOND, MAIN = "0.m.", "0.1.1.m.", "0.2.m."  # one backbone; FuseNet's other one, and its main one
SUMMED = "0.1.0.m."  # the first of two EfficientNets


def read(tensors: Tensors, asked: Asked) -> Found:
    """The state_dict of one of the two factories' models."""
    fused = not any(name.startswith(PLAIN) for name in tensors)
    efficient = any("._conv_stem." in name for name in tensors)
    if efficient:
        name = efficientnet_name(tensors, SUMMED if fused else PLAIN, asked)
    else:
        name = resnet_name(tensors, (SECOND if fused else PLAIN) + "{}", asked)
    mains = SUMMED if efficient else MAIN
    stem = "_conv_stem.weight" if efficient else "0.0.weight"
    convs = (mains + stem, SECOND + stem) if fused else (PLAIN + stem,)
    bands = sum(shape(tensors, conv, asked)[1] for conv in convs)
    kind, lateral, classifier = _neck(tensors)
    channels = shape(tensors, lateral, asked)[0]
    return Found(
        model={
            "original": "pytorch-fpn",
            "name": name,
            "fpn_type": kind,
            "fpn_channels": channels,
            "fused": fused,
            "out_size": None,
        },
        tensors=tensors,
        name_of=lambda ours: ours,
        first_convs=convs,
        in_channels=bands,
        num_classes=shape(tensors, classifier, asked)[0],
        scaling=Scaling.identity(bands),
        about=f"{kind} on {name}{', two streams' if fused else ''}",
        inputs=Inputs.unknown(),
        notes=("inputs are not scaled: scale them as for the original model",),
    )


def _neck(tensors: Tensors) -> tuple[str, str, str]:
    """(type, one of its 1x1 convolutions, its classifier)."""
    if any(name.startswith("1.3.") or re.match(r"1\.1\.\d", name) for name in tensors):
        return "panoptic", "1.0.0.weight", "1.3.weight"
    if any(name.startswith("1.0.2.") for name in tensors):
        return "panet", "1.0.0.1.0.weight", "1.0.2.3.0.weight"
    return "fpn", "1.0.1.0.weight", "1.0.3.0.weight"


PYTORCH_FPN = Family("pytorch-fpn", r"0\.(m|1\.[01]\.m|2\.m)\.|1\.\d\.(\d\.)*(weight|bias)$|1\.3\.", read)
