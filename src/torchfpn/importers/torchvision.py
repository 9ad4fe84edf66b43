"""Faster and Mask R-CNN of torchvision with an FPN: on ResNets, first and second version, and on MobileNetV3.

The MobileNet has two maps of stride 32, fifteen anchors a cell, and drops unlikely proposals. Its detector for small
images has the same tensors and fewer proposals, so the caller says which it is. In their classifiers background stands
first, in ours last, and their boxes and masks have an output for the background as well. Images are red, green, blue in
0..1, resized to a shorter side of 800 pixels, at most 1333 on the longer.

Frozen batch norm has an epsilon of 1e-5, but of 0 in the detectors published as COCO_V1 (on ResNet-50, first version)
and in what was fine-tuned from them. A checkpoint does not say which: 0 is assumed for ResNet-50, 1e-5 for all others,
which were never published; the variants "coco_v1" and "backbone" (trained from weights_backbone) override it.
"""

import torch
from torch import Tensor

from torchfpn.errors import ConfigError
from torchfpn.importers.coco import COCO_NOTE, coco_names
from torchfpn.importers.family import (
    RATIOS,
    Anchors,
    Asked,
    Family,
    Found,
    Tensors,
    numbers,
    renamed,
    resnet_name,
    shape,
)
from torchfpn.recipe import Inputs, Scaling

SCALING = Scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "imagenet, of 0..1")
RESIZE = {"shorter": 800, "longer": 1333}
SMALL, SMALL_RESIZE = "320", {"shorter": 320, "longer": 640}
PUBLISHED, BACKBONE = "coco_v1", "backbone"  # of frozen norms: epsilon 0, epsilon 1e-5
FROZEN = "of frozen batch norm is not in the checkpoint"
FROZEN_ONLY = "a ResNet with frozen batch norm"
MOBILENET = "torchvision/mobilenet_v3_large"
MOBILENET_OPTIONS = {"cuts": [2, 4, 7, 13, 14, 17], "norm_eps": 1e-5}

MOBILENET_HEAD = {
    "proposal_threshold": 0.05,
    "roi_levels": 1,  # both maps have the same stride, and the original reads the first
}

SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
ANCHORS = Anchors(tuple((size,) for size in SIZES), RATIOS)
MOBILENET_ANCHORS = Anchors((SIZES,) * 3, RATIOS)
SCORES, BOXES = "roi_heads.box_predictor.cls_score.", "roi_heads.box_predictor.bbox_pred."
MASKS = "roi_heads.mask_predictor.mask_fcn_logits."
OLD = {"rpn.head.conv.": "rpn.head.conv.0.0.", "mask_fcn": "roi_heads.mask_head.mask_fcn"}  # before version 0.12
EPS = 1e-5  # of our batch norm


def read(tensors: Tensors, asked: Asked) -> Found:
    """The state_dict of a detector with a ResNet or a MobileNetV3."""
    tensors = _today(tensors)
    is_mobile = "backbone.body.16.0.weight" in tensors
    backbone = MOBILENET if is_mobile else resnet_name(tensors, "backbone.body.layer{}", asked)
    stem = "backbone.body.0.0.weight" if is_mobile else "backbone.body.conv1.weight"
    classes = shape(tensors, SCORES + "weight", asked, 2)[0] - 1
    has_masks = MASKS + "weight" in tensors
    frozen = not is_mobile and "backbone.body.bn1.num_batches_tracked" not in tensors
    normed = "backbone.fpn.inner_blocks.0.1.weight" in tensors
    _check_variant(asked, is_mobile=is_mobile, frozen=frozen)
    whole = frozen and (asked.variant or _usual(backbone, normed)) == PUBLISHED
    convs = "roi_heads.box_head.0.0.weight" in tensors
    anchors = asked.anchors or (MOBILENET_ANCHORS if is_mobile else ANCHORS)
    per_place = shape(tensors, "rpn.head.cls_logits.weight", asked)[0]
    options = {
        **anchors.options(per_place, 3 if is_mobile else 5, file=asked.file),
        "anchor_stride": "measured",
        "rounded_anchors": True,
        "sampling": 2,
        "aligned": False,
        "inside": True,
        "dense_depth": len(numbers(tensors, r"rpn\.head\.conv\.(\d+)\.0\.weight")),
        **({"box": "4conv1fc"} if convs else {}),
        **({"mask_norm": "batch"} if "roi_heads.mask_head.0.1.weight" in tensors else {}),
        **(MOBILENET_HEAD if is_mobile else {}),
        **({"proposals": 150} if asked.variant == SMALL else {}),
    }
    known = coco_names(classes)
    task = "instance" if has_masks else "detection"
    kind = "Mask R-CNN" if has_masks else "Faster R-CNN"
    return Found(
        model={
            "backbone": backbone,
            **({"backbone_options": MOBILENET_OPTIONS} if is_mobile else {}),
            "strides": [32, 32] if is_mobile else [4, 8, 16, 32],
            "pyramid": "fpn",
            "channels": shape(tensors, "backbone.fpn.inner_blocks.0.0.weight", asked)[0],
            "head": "two-stage",
            **({"pyramid_options": {"norm": "batch"}} if normed else {}),
            "head_options": options,
        },
        tensors=_without_background(_whole_norms(tensors) if whole else dict(tensors)),
        name_of=lambda ours: _name_of(ours, convs, normed),
        first_convs=("backbone.stages.c1.0.0.weight" if is_mobile else "backbone.features.conv1.weight",),
        in_channels=shape(tensors, stem, asked)[1],
        num_classes=classes,
        scaling=SCALING,
        about=f"{kind} on {backbone.rpartition('/')[2]}" + (", version 2" if normed else ""),
        notes=(
            *(() if asked.anchors else (anchors.told(),)),
            *((_epsilon(asked, whole),) if frozen else ()),
            *(COCO_NOTE if known else ()),
        ),
        task=task,
        rules={"resize": SMALL_RESIZE if asked.variant == SMALL else RESIZE, "masks": "torchvision"},
        classes=tuple(known.values()),
        label_ids=tuple(known),
        inputs=Inputs.unit(),
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


def _usual(backbone: str, normed: bool) -> str:
    """Which of the two a detector with frozen norms is taken for: published ones are on ResNet-50, first version."""
    return PUBLISHED if backbone == "resnet50" and not normed else BACKBONE


def _check_variant(asked: Asked, *, is_mobile: bool, frozen: bool) -> None:
    """Raises ConfigError of a variant that has no effect on the checkpoint."""
    known = ((SMALL, is_mobile, "detectors on MobileNetV3"), (PUBLISHED, frozen, FROZEN_ONLY),
             (BACKBONE, frozen, FROZEN_ONLY))  # fmt: skip
    for word, holds, allowed in known:
        if asked.variant == word and not holds:
            raise ConfigError(f'"{word}"', file=asked.file, field="variant", allowed=allowed)


def _epsilon(asked: Asked, whole: bool) -> str:
    """What is said of the epsilon of frozen norms."""
    value, other = ("0", BACKBONE) if whole else ("1e-5", PUBLISHED)
    if asked.variant:
        return f"epsilon of frozen batch norm: {value}"
    why = {
        "0": "as in torchvision's COCO_V1 and what was trained on from it",
        "1e-5": "as in what was trained from weights_backbone",
    }
    return f"epsilon {FROZEN}; assumed: {value}, {why[value]}; else variant={other}, --variant {other}"


def _whole_norms(tensors: Tensors) -> dict[str, Tensor]:
    """Of norms whose epsilon is 0: ours is taken off the variances."""
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
        (r"backbone\.stages\.c\d\.", "backbone.body."),
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


TORCHVISION = Family(
    "torchvision", r"(rpn\.head|roi_heads)\.", read, variants=(SMALL, PUBLISHED, BACKBONE), asks=("anchors",)
)
