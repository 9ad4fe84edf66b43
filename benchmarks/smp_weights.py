"""The FPN of segmentation_models_pytorch and ours as one graph: which of its tensors is which of ours."""

from torch import nn

import torchfpn

# What `create_model` must be told to draw smp's graph: no smoothing convolutions, group norm, corners aligned.
SAME_GRAPH = {"smooth": False, "norm": "group", "align_corners": True}


def same_graph(theirs: nn.Module, *, backbone: str, num_classes: int, dropout: float = 0.0) -> nn.Sequential:
    """Our model with the weights and statistics of smp's `FPN` over the same ResNet."""
    ours = torchfpn.create_model(backbone=backbone, num_classes=num_classes, dropout=dropout, **SAME_GRAPH)
    renamed = {_ours(name): tensor for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(renamed)
    return ours


def _ours(name: str) -> str:
    """The name of the tensor in our model, whose branches are counted from the finest level, not from the coarsest."""
    part, _, rest = name.partition(".")
    if part == "encoder":
        return f"backbone.features.{rest}"
    if part == "segmentation_head":
        return f"head.classify.{rest.removeprefix('0.')}"
    words = rest.split(".")
    if words[0] != "seg_blocks":  # p5.weight, p4.skip_conv.weight
        return f"pyramid.lateral.{int(words[0][1:]) - 2}.{words[-1]}"
    level, stage, layer = 3 - int(words[1]), words[3], {"0": "conv", "1": "norm"}[words[5]]
    return f"head.scale.{level}.{stage}.{layer}.{words[-1]}"
