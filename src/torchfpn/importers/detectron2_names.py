"""Where a tensor of ours lies in a checkpoint of detectron2: name of ours -> name of theirs."""

from torchfpn.importers.family import renamed

BODY = "backbone.bottom_up."
STEM = BODY + "stem.conv1."
STAGE = BODY + "res{}"  # 2 to 5
RPN = "proposal_generator.rpn_head."
ROI = "roi_heads."


def name_of(ours: str, *, normed: bool, several: bool) -> str:
    """normed: the pyramid has batch norm. several: the first stage has more than one 3x3 convolution."""
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
