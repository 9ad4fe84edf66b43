"""torchvision's Faster and Mask R-CNN on ResNets with an FPN, first and second version.

Background stands first in their classifiers and last in ours, and their boxes and masks have one for the background as
well. Images are red, green, blue in 0..1, and are resized to a shorter side of 800 pixels, 1333 at most on the longer.
"""

import torch
from torch import Tensor

from torchfpn.importers.family import Asked, Family, Found, Tensors, numbers, renamed, shape
from torchfpn.importers.resnets import resnet_name
from torchfpn.recipe import Scaling

SCALING = Scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "imagenet, of 0..1")
RESIZE = {"shorter": 800, "longer": 1333}
SCORES, BOXES = "roi_heads.box_predictor.cls_score.", "roi_heads.box_predictor.bbox_pred."
MASKS = "roi_heads.mask_predictor.mask_fcn_logits."
OLD = {"rpn.head.conv.": "rpn.head.conv.0.0.", "mask_fcn": "roi_heads.mask_head.mask_fcn"}  # before version 0.12
EPS = 1e-5  # of our batch norm


def read(tensors: Tensors, asked: Asked) -> Found:
    """The state_dict of a detector with a ResNet."""
    tensors = _today(tensors)
    backbone = resnet_name(tensors, "backbone.body.layer{}", asked)
    classes = shape(tensors, SCORES + "weight", asked, 2)[0] - 1
    has_masks = MASKS + "weight" in tensors
    frozen = "backbone.body.bn1.num_batches_tracked" not in tensors
    normed = "backbone.fpn.inner_blocks.0.1.weight" in tensors
    convs = "roi_heads.box_head.0.0.weight" in tensors
    options = {
        "anchor_stride": "measured",
        "rounded_anchors": True,
        "sampling": 2,
        "aligned": False,
        "inside": True,
        "dense_depth": len(numbers(tensors, r"rpn\.head\.conv\.(\d+)\.0\.weight")),
        **({"box": "4conv1fc"} if convs else {}),
        **({"mask_norm": "batch"} if "roi_heads.mask_head.0.1.weight" in tensors else {}),
    }
    task = "instance" if has_masks else "detection"
    kind = "Mask R-CNN" if has_masks else "Faster R-CNN"
    return Found(
        model={
            "backbone": backbone,
            "strides": [4, 8, 16, 32],
            "pyramid": "fpn",
            "channels": shape(tensors, "backbone.fpn.inner_blocks.0.0.weight", asked)[0],
            "head": "two-stage",
            **({"pyramid_options": {"norm": "batch"}} if normed else {}),
            "head_options": options,
        },
        tensors=_without_background(_whole_norms(tensors) if frozen else dict(tensors)),
        name_of=lambda ours: _name_of(ours, convs, normed),
        first_convs=("backbone.features.conv1.weight",),
        in_channels=shape(tensors, "backbone.body.conv1.weight", asked)[1],
        num_classes=classes,
        scaling=SCALING,
        about=f"{kind} on {backbone}" + (", version 2" if normed else ""),
        notes=("batch norm without epsilon, as in the published weights",) if frozen else (),
        task=task,
        rules={"resize": RESIZE, "masks": "torchvision"},
    )


def _today(tensors: Tensors) -> dict[str, Tensor]:
    """Names of old files as they are now."""
    found = {}
    for name, tensor in tensors.items():
        for kind in ("inner_blocks", "layer_blocks"):
            name = renamed(name, (rf"backbone\.fpn\.{kind}\.(\d)\.(weight|bias)", rf"backbone.fpn.{kind}.\1.0.\2"))
        name = renamed(name, (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"))
        for i in range(4):
            name = renamed(name, (rf"roi_heads\.mask_head\.mask_fcn{i + 1}\.", f"roi_heads.mask_head.{i}.0."))
        found[name] = tensor
    return found


def _whole_norms(tensors: Tensors) -> dict[str, Tensor]:
    """Frozen batch norm has no epsilon in the weights that are published: ours is taken off the variances."""
    return {
        name: tensor - EPS if name.startswith("backbone.body.") and name.endswith("running_var") else tensor
        for name, tensor in tensors.items()
    }


def _without_background(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Background last in the scores, and without boxes and masks of its own."""
    for end in ("weight", "bias"):
        scores = tensors[SCORES + end]
        tensors[SCORES + end] = torch.cat([scores[1:], scores[:1]])
        tensors[BOXES + end] = tensors[BOXES + end][4:]
        if MASKS + end in tensors:
            tensors[MASKS + end] = tensors[MASKS + end][1:]
    return tensors


def _name_of(ours: str, convs: bool, normed: bool) -> str:
    fpn = r"pyramid\.pyramid\."
    if normed:
        for part, their in (("lateral", "inner_blocks"), ("smooth", "layer_blocks")):
            for k, layer in enumerate(("conv", "norm")):
                row = (rf"{fpn}{part}\.(\d)\.{layer}\.", rf"backbone.fpn.{their}.\1.{k}.")
                ours = renamed(ours, row)
    for k in range(1, 5):
        for j, layer in enumerate(("conv", "norm")):
            ours = renamed(
                ours,
                (rf"head\.dense\.each\.conv{k}\.{layer}\.", f"rpn.head.conv.{k - 1}.{j}."),
                (rf"head\.mask\.convs\.conv{k}\.{layer}\.", f"roi_heads.mask_head.{k - 1}.{j}."),
                (rf"head\.box\.convs\.conv{k}\.{layer}\.", f"roi_heads.box_head.{k - 1}.{j}."),
            )
    return renamed(
        ours,
        (r"backbone\.features\.", "backbone.body."),
        (rf"{fpn}lateral\.(\d)\.", r"backbone.fpn.inner_blocks.\1.0."),
        (rf"{fpn}smooth\.(\d)\.", r"backbone.fpn.layer_blocks.\1.0."),
        (r"head\.dense\.each\.predict\.scores\.", "rpn.head.cls_logits."),
        (r"head\.dense\.each\.predict\.deltas\.", "rpn.head.bbox_pred."),
        (r"head\.box\.features\.fc1\.", "roi_heads.box_head.5." if convs else "roi_heads.box_head.fc6."),
        (r"head\.box\.features\.fc2\.", "roi_heads.box_head.fc7."),
        (r"head\.box\.predict\.scores\.", SCORES),
        (r"head\.box\.predict\.deltas\.", BOXES),
        (r"head\.mask\.enlarge\.", "roi_heads.mask_predictor.conv5_mask."),
        (r"head\.mask\.classify\.", MASKS),
    )


TORCHVISION = Family("torchvision", r"(rpn\.head|roi_heads)\.", read)
