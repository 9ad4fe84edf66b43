"""Faster R-CNN, Mask R-CNN and Panoptic FPN, on ResNets and ResNeXts, of detectron2: its model zoo and own trainings.

Its ResNets come in two kinds, which only old files (with pixel_mean and pixel_std) tell apart. "caffe", the zoo's:
blue, green, red minus a mean, the stride in the first 1x1 of a bottleneck. "torchvision": red, green, blue, divided by
their deviations, the stride in the 3x3. ResNeXts of the zoo are in between and are recognized by their groups. Here
bands are always red, green, blue: the filters of the first convolution are reversed where necessary.
"""

import re

import torch
from torch import Tensor

from torchfpn.errors import ConfigError, WeightsError
from torchfpn.importers.coco import COCO_NOTE, coco_names, coco_panoptic_names
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
from torchfpn.ops.boxes import shapes
from torchfpn.recipe import Inputs, Scaling

BODY = "backbone.bottom_up."
STEM = BODY + "stem.conv1."
STAGE = BODY + "res{}"  # 2 to 5
RPN = "proposal_generator.rpn_head."
ROI = "roi_heads."
SEMANTIC = "sem_seg_head."
CLASSIFY = SEMANTIC + "predictor.weight"

ANCHORS = "proposal_generator.anchor_generator.cell_anchors."
SCORES = ROI + "box_predictor.cls_score.weight"
MASKS = ROI + "mask_head.predictor.weight"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of red, green, blue
LEVELS = 5  # P2 to P6
RESIZE = {"shorter": 800, "longer": 1333, "pillow": True}
CAFFE, TORCHVISION = "caffe", "torchvision"
METHOD = "of detectron2"


def name_of(ours: str, *, normed: bool, several: bool) -> str:
    """normed: the pyramid has batch norm. several: the first stage has more than one 3x3 convolution."""
    if ours.startswith("head.semantic."):
        return _semantic_name(ours)
    ours = renamed(ours, (r"head\.regions\.", "head."))  # of a panoptic model
    fpn = r"pyramid\.pyramid\."
    for i in range(4):
        for part, their in (("lateral", "lateral"), ("smooth", "output")):
            theirs = f"backbone.fpn_{their}{i + 2}."
            middle = (rf"{fpn}{part}\.{i}\.conv\.", theirs), (rf"{fpn}{part}\.{i}\.norm\.", theirs + "norm.")
            ours = renamed(ours, *(middle if normed else ((rf"{fpn}{part}\.{i}\.", theirs),)))
    for k in range(1, 5):
        ours = renamed(
            ours,
            (rf"head\.dense\.each\.conv{k}\.conv\.", RPN + (f"conv.conv{k - 1}." if several else "conv.")),
            (rf"head\.box\.convs\.conv{k}\.conv\.", f"{ROI}box_head.conv{k}."),
            (rf"head\.box\.convs\.conv{k}\.norm\.", f"{ROI}box_head.conv{k}.norm."),
            (rf"head\.mask\.convs\.conv{k}\.conv\.", f"{ROI}mask_head.mask_fcn{k}."),
            (rf"head\.mask\.convs\.conv{k}\.norm\.", f"{ROI}mask_head.mask_fcn{k}.norm."),
        )
    ours = renamed(
        ours,
        (r"head\.dense\.each\.predict\.scores\.", RPN + "objectness_logits."),
        (r"head\.dense\.each\.predict\.deltas\.", RPN + "anchor_deltas."),
        (r"head\.box\.features\.fc", ROI + "box_head.fc"),
        (r"head\.box\.predict\.scores\.", ROI + "box_predictor.cls_score."),
        (r"head\.box\.predict\.deltas\.", ROI + "box_predictor.bbox_pred."),
        (r"head\.mask\.enlarge\.", ROI + "mask_head.deconv."),
        (r"head\.mask\.classify\.", ROI + "mask_head.predictor."),
    )
    return _body_name(ours)


def _semantic_name(ours: str) -> str:
    """Of a tensor of the semantic branch; its stages are every second layer there, with the enlargements between."""
    found = re.fullmatch(r"head\.semantic\.logits\.scale\.(\d)\.(\d)\.(conv|norm)\.(\w+)", ours)
    if found is None:
        return renamed(ours, (r"head\.semantic\.logits\.classify\.", SEMANTIC + "predictor."))
    level, stage, layer, end = found.groups()
    return f"{SEMANTIC}p{int(level) + 2}.{2 * int(stage)}.{'norm.' if layer == 'norm' else ''}{end}"


def _body_name(ours: str) -> str:
    """Of a tensor of torchvision's ResNet, cut into stages."""
    ours = renamed(
        ours,
        (r"backbone\.stages\.c1\.conv\.", STEM),
        (r"backbone\.stages\.c1\.norm\.", STEM + "norm."),
        (r"backbone\.stages\.c2\.blocks\.", STAGE.format(2) + "."),
        (r"backbone\.stages\.c(\d)\.", BODY + r"res\1."),
    )
    if not ours.startswith(BODY):
        return ours
    for k in (1, 2, 3):
        ours = ours.replace(f".bn{k}.", f".conv{k}.norm.")
    return ours.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.")


def read(tensors: Tensors, asked: Asked) -> Found:
    """The state_dict of a GeneralizedRCNN with StandardROIHeads."""
    _refuse_others(tensors, asked)
    name = resnet_name(tensors, STAGE, asked, first=2)
    classes = shape(tensors, SCORES, asked, 2)[0] - 1
    has_masks, is_panoptic = MASKS in tensors, CLASSIFY in tensors
    normed = "backbone.fpn_lateral2.norm.weight" in tensors
    convs = len(numbers(tensors, r"roi_heads\.box_head\.conv(\d+)\.weight"))
    bands = shape(tensors, STEM + "weight", asked)[1]
    is_grouped = name.startswith("resnext")
    kind = _kind(tensors, asked)
    scaling, is_bgr = _scaling(tensors, kind, bands, is_grouped)
    first_stride = kind == CAFFE and not is_grouped and _is_deep(tensors)
    anchors, assumed = _anchors(tensors, asked)
    regions = _head(tensors, convs, anchors)
    stuff = shape(tensors, CLASSIFY, asked)[0] - 1 if is_panoptic else 0
    known = coco_panoptic_names(classes, stuff) if is_panoptic else coco_names(classes)
    kind_of = "Panoptic FPN" if is_panoptic else f"{'Mask' if has_masks else 'Faster'} R-CNN"
    return Found(
        model={
            "backbone": f"torchvision/{name}",
            **({"backbone_options": {"stride_in_1x1": True}} if first_stride else {}),
            "strides": [4, 8, 16, 32],
            "pyramid": "fpn",
            "channels": shape(tensors, "backbone.fpn_lateral2.weight", asked)[0],
            **({"pyramid_options": {"norm": "batch"}} if normed else {}),
            **(
                {**_semantic_head(tensors, asked), "head_options": {"regions": regions}}
                if is_panoptic
                else {"head": "two-stage", "head_options": regions}
            ),
        },
        tensors=_as_ours(tensors, is_bgr),
        name_of=lambda ours: name_of(ours, normed=normed, several=RPN + "conv.conv0.weight" in tensors),
        first_convs=("backbone.stages.c1.conv.weight",),
        in_channels=bands,
        num_classes=classes + stuff,
        things=classes if is_panoptic else 0,
        scaling=scaling,
        about=f"{kind_of} on {name}",
        unread=rf"pixel_mean|pixel_std|{ANCHORS}\d",
        notes=(
            _told(kind, is_bgr, scaling, first_stride, "pixel_std" in tensors),
            *assumed,
            *(COCO_NOTE if known else ()),
        ),
        task="panoptic" if is_panoptic else "instance" if has_masks else "detection",
        rules={"resize": RESIZE, "masks": "detectron2"},
        classes=tuple(known.values()),
        label_ids=tuple(known),
        inputs=Inputs.eight_bit(),
    )


def _refuse_others(tensors: Tensors, asked: Asked) -> None:
    """Raises WeightsError of what has the same first names and is not computed here."""
    others = {
        "backbone.top_block.p6.weight": "RetinaNet",
        "backbone.bottom_up.res2.0.conv2_offset.weight": "deformable convolutions",
        "backbone.bottom_up.res5.0.conv2_offset.weight": "deformable convolutions",
        "roi_heads.box_head.0.fc1.weight": "Cascade R-CNN",
        "roi_heads.keypoint_head.score_lowres.weight": "Keypoint R-CNN",
        "roi_heads.mask_head.coarse_head.prediction.weight": "PointRend",
    }
    found = next((what for name, what in others.items() if name in tensors), None)
    if "backbone.fpn_lateral2.norm.weight" in tensors and "backbone.fpn_lateral2.norm.running_var" not in tensors:
        found = "group norm"
    if CLASSIFY in tensors and SCORES not in tensors:
        found = "Semantic FPN"
    if CLASSIFY in tensors and MASKS not in tensors and SCORES in tensors:
        found = "Panoptic FPN without masks"
    if found is None and not any(name.startswith("backbone.fpn_lateral2.") for name in tensors):
        found = "a network without an FPN from stride 4"
    if found is not None:
        allowed = "Faster R-CNN, Mask R-CNN and Panoptic FPN on a ResNet with an FPN"
        raise WeightsError(f"{found} of detectron2", file=asked.file, allowed=allowed)


def _kind(tensors: Tensors, asked: Asked) -> str:
    """Which of the two kinds: as the caller says, by the deviations, or by a batch norm that was not frozen.

    FREEZE_AT freezes the first stages of a network whose other norms learn.
    """
    is_live = any(name.startswith(BODY) and name.endswith(".norm.num_batches_tracked") for name in tensors)
    std = _numbers(tensors, "pixel_std")
    is_divided = any(value != 1 for value in std) if std else is_live
    return asked.variant or (TORCHVISION if is_divided else CAFFE)


def _scaling(tensors: Tensors, kind: str, bands: int, is_grouped: bool) -> tuple[Scaling, bool]:
    """(the scaling of red, green, blue, whether the file's own order is blue, green, red)."""
    mean, std = _numbers(tensors, "pixel_mean"), _numbers(tensors, "pixel_std")
    if bands != 3:
        return Scaling(tuple(mean), tuple(std), METHOD) if mean and std else Scaling.identity(bands), False
    is_bgr = kind == CAFFE or is_grouped
    if mean and mean[0] != mean[-1]:
        is_bgr = mean[0] < mean[-1]
    step = -1 if is_bgr else 1
    usual = STD if kind == TORCHVISION or is_grouped else (1.0, 1.0, 1.0)
    return Scaling(tuple(mean[::step]) or MEAN, tuple(std[::step]) or usual, METHOD), is_bgr


def _numbers(tensors: Tensors, name: str) -> list[float]:
    return [round(float(value), 4) for value in tensors[name].flatten()] if name in tensors else []


def _told(kind: str, is_bgr: bool, scaling: Scaling, first_stride: bool, by_file: bool) -> str:
    """How the images were read, for people."""
    order = "blue, green, red" if is_bgr else "red, green, blue"
    deviation = "no deviation" if set(scaling.scale) == {1.0} else "a deviation"
    said = "as the file's pixel_mean and pixel_std have it" if by_file else "the file does not say, variant does"
    return f"{kind}: trained on {order}, {deviation}, stride in the {'1x1' if first_stride else '3x3'}; {said}"


def _is_deep(tensors: Tensors) -> bool:
    return STAGE.format(2) + ".0.conv3.weight" in tensors  # basic blocks have no 1x1 to put the stride in


def _head(tensors: Tensors, convs: int, anchors: dict[str, object]) -> dict[str, object]:
    depth = len(numbers(tensors, r"proposal_generator\.rpn_head\.conv\.conv(\d+)\.weight"))
    return {
        **anchors,
        "proposal_smallest": 0.0,
        "proposal_rank": "logits",
        "smallest": 0.0,
        **({"dense_depth": depth} if depth > 1 else {}),
        **({"box": "4conv1fc"} if convs else {}),
        **({"mask_norm": "batch"} if ROI + "mask_head.mask_fcn1.norm.weight" in tensors else {}),
    }


def _semantic_head(tensors: Tensors, asked: Asked) -> dict[str, object]:
    """The arguments of the semantic branch: one class for all things, and the norm that its tensors tell."""
    first = SEMANTIC + "p2.0."
    norm = "group" if first + "norm.weight" in tensors else "none"
    norm = "batch" if first + "norm.running_var" in tensors else norm
    width = shape(tensors, first + "weight", asked)[0]
    return {"head": "sum", "semantic_classes": "stuff", "head_channels": width, "norm": norm}


def _anchors(tensors: Tensors, asked: Asked) -> tuple[dict[str, object], tuple[str, ...]]:
    """(sizes and ratios as the head takes them, a note where they are assumed).

    An old file holds its anchors; else they are the caller's, or the usual ones.

    Raises:
        ConfigError: the caller says what the file holds, or another number than it has. WeightsError: the file's
            levels have several sizes.
    """
    cells = [tensors[name] for name in sorted(tensors) if name.startswith(ANCHORS)]
    if cells and asked.anchors:
        raise ConfigError(asked.anchors.words(), file=asked.file, field="anchors", allowed="none: the file holds them")
    if cells:
        return _held(cells, asked), ()
    per_place = shape(tensors, RPN + "objectness_logits.weight", asked)[0]
    anchors = asked.anchors or Anchors(tuple((32.0 * 2**i,) for i in range(LEVELS)), RATIOS)
    options = anchors.options(per_place, LEVELS, file=asked.file, most_sizes=1)
    return (options, ()) if asked.anchors else ({}, (anchors.told(),))


def _held(cells: list[Tensor], asked: Asked) -> dict[str, object]:
    """The anchors of an old file, {} where they are the usual ones."""
    usual = [shapes((32 * 2**i,), RATIOS) for i in range(len(cells))]
    if all(a.shape == b.shape and torch.allclose(a, b, atol=0.01) for a, b in zip(cells, usual, strict=True)):
        return {}
    sides = [cell[:, 2:] - cell[:, :2] for cell in cells]
    sizes, ratios = [side.prod(1).sqrt() for side in sides], [side[:, 1] / side[:, 0] for side in sides]
    if any(bool((size - size[0]).abs().max() > 0.01) for size in sizes) or any(
        ratio.shape != ratios[0].shape or not torch.allclose(ratio, ratios[0], atol=1e-3) for ratio in ratios
    ):
        allowed = "one size and the same ratios on every level"
        raise WeightsError("several anchor sizes", file=asked.file, field=ANCHORS + "0", allowed=allowed)
    return {
        "anchor_sizes": [[round(float(size[0]), 3)] for size in sizes],
        "anchor_ratios": [round(float(ratio), 4) for ratio in ratios[0]],
    }


def _as_ours(tensors: Tensors, is_bgr: bool) -> dict[str, Tensor]:
    """Filters for red, green, blue, and the statistics that batch norm of caffe's time has folded into its weights."""
    found = dict(tensors)
    if is_bgr:
        found[STEM + "weight"] = found[STEM + "weight"].flip(1)
    for name, weight in tensors.items():
        if name.startswith(BODY) and name.endswith(".norm.weight"):
            found.setdefault(name.removesuffix("weight") + "running_mean", torch.zeros_like(weight))
            found.setdefault(name.removesuffix("weight") + "running_var", torch.ones_like(weight))
    return found


DETECTRON2 = Family(
    "detectron2",
    r"backbone\.(bottom_up|fpn_\w+\d)\.|proposal_generator\.|roi_heads\.(box_head\.fc[12]|mask_head\.mask_fcn)|sem_seg_head\.",
    read,
    variants=(CAFFE, TORCHVISION),
    asks=("anchors",),
)
