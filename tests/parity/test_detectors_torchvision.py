"""Faster and Mask R-CNN against torchvision's, with the same weights: detections, masks and losses."""

import re

import pytest
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from torchvision.models.detection.roi_heads import RoIHeads

import torchfpn
from torchfpn.criteria.region import Draw, RegionCriterion
from torchfpn.heads.rpn import Limits
from torchfpn.nn.any_size import as_sizes
from torchfpn.ops.masks import crop_images
from torchfpn.tasks.task import RegionPostprocess
from torchfpn.types import Objects

CLASSES = 11
TABLE = [
    (r"backbone\.features\.", "backbone.body."),
    (r"pyramid\.pyramid\.lateral\.(\d)\.", r"backbone.fpn.inner_blocks.\1.0."),
    (r"pyramid\.pyramid\.smooth\.(\d)\.", r"backbone.fpn.layer_blocks.\1.0."),
    (r"head\.dense\.each\.conv1\.conv\.", "rpn.head.conv.0.0."),
    (r"head\.dense\.each\.predict\.scores\.", "rpn.head.cls_logits."),
    (r"head\.dense\.each\.predict\.deltas\.", "rpn.head.bbox_pred."),
    (r"head\.box\.features\.fc1\.", "roi_heads.box_head.fc6."),
    (r"head\.box\.features\.fc2\.", "roi_heads.box_head.fc7."),
    (r"head\.box\.predict\.scores\.", "roi_heads.box_predictor.cls_score."),
    (r"head\.box\.predict\.deltas\.", "roi_heads.box_predictor.bbox_pred."),
    (r"head\.mask\.convs\.conv(\d)\.conv\.", lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0."),
    (r"head\.mask\.enlarge\.", "roi_heads.mask_predictor.conv5_mask."),
    (r"head\.mask\.classify\.", "roi_heads.mask_predictor.mask_fcn_logits."),
]
OPTIONS = {"anchor_stride": "measured", "rounded_anchors": True, "sampling": 2, "aligned": False, "inside": True}


@pytest.fixture(scope="module")
def pair():
    """torchvision's Mask R-CNN with weights that make many detections, and ours with the same."""
    torch.manual_seed(0)
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES + 1).eval()
    with torch.no_grad():
        for module in theirs.modules():
            if hasattr(module, "running_var"):
                module.running_var.fill_(2.0)
        predictor, dense = theirs.roi_heads.box_predictor, theirs.rpn.head
        for layer, factor in ((dense.cls_logits, 0.008), (dense.bbox_pred, 0.0015)):
            layer.weight.normal_(std=factor)
        dense.conv[0][0].weight.normal_(std=0.25)
        predictor.cls_score.weight.normal_(std=1.5)
        predictor.bbox_pred.weight.normal_(std=1.5)
    ours = torchfpn.create_model("instance", backbone="resnet50", num_classes=CLASSES, head_options=OPTIONS)
    return theirs, fill(ours, theirs)


def fill(ours, theirs):
    """Our model with torchvision's weights; their background stands first."""
    given, own = theirs.state_dict(), ours.state_dict()
    for name in own:
        their = name
        for pattern, replacement in TABLE:
            their = re.sub("^" + pattern, replacement, their)
        if name.endswith("num_batches_tracked"):
            continue
        value = given[their]
        if "cls_score" in their:
            value = torch.cat([value[1:], value[:1]])
        elif "roi_heads.box_predictor.bbox_pred" in their:
            value = value[4:]
        elif "mask_fcn_logits" in their:
            value = value[1:]
        own[name] = value
    ours.load_state_dict(own)
    return ours.eval()


@pytest.mark.parametrize("sizes", [[(128, 192), (192, 130)], [(97, 131)]])
@torch.inference_mode()
def test_detections_and_masks(pair, sizes):
    theirs, ours = pair
    theirs.transform.min_size, theirs.transform.max_size = (224,), 320
    draws = torch.Generator().manual_seed(1)
    images = [torch.rand(3, *size, generator=draws) for size in sizes]
    batch, _ = theirs.transform([image.clone() for image in images])
    expected = theirs(images)
    regions = ours(batch.tensors, as_sizes(batch.image_sizes, batch.tensors))
    found = RegionPostprocess()(regions, batch.image_sizes, sizes)
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other["boxes"]) >= 50
        torch.testing.assert_close(one.boxes, other["boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(one.scores, other["scores"], atol=1e-4, rtol=0)
        assert torch.equal(one.labels, other["labels"] - 1)
        mine, wanted = one.masks, other["masks"][:, 0] > 0.5
        shared, together = (mine & wanted).sum((1, 2)), (mine | wanted).sum((1, 2))
        assert (shared[together > 0] / together[together > 0]).min() > 0.999


def test_losses_of_the_same_samples(pair):
    """So many boxes are wanted that all are taken: nothing is left to chance."""
    theirs, ours = pair
    theirs.transform.min_size, theirs.transform.max_size = (128,), 256
    draws = torch.Generator().manual_seed(2)
    images = [torch.rand(3, 128, 192, generator=draws), torch.rand(3, 128, 128, generator=draws)]
    boxes = [
        torch.tensor([[10.0, 20.0, 90.0, 100.0], [30.0, 5.0, 60.0, 40.0]]),
        torch.tensor([[3.0, 3.0, 120.0, 70.0]]),
    ]
    labels = [torch.tensor([1, 4]), torch.tensor([0])]
    masks = [torch.zeros(2, 128, 192, dtype=torch.bool), torch.zeros(1, 128, 128, dtype=torch.bool)]
    for mask, box in zip(masks, boxes, strict=True):
        for one, (x1, y1, x2, y2) in zip(mask, box.int().tolist(), strict=True):
            one[y1 : (y1 + 2 * y2) // 3, x1:x2] = True
    targets = [
        {"boxes": b, "labels": k + 1, "masks": m.to(torch.uint8)} for b, k, m in zip(boxes, labels, masks, strict=True)
    ]
    try:
        theirs.rpn.fg_bg_sampler.batch_size_per_image = theirs.roi_heads.fg_bg_sampler.batch_size_per_image = 10**6
        theirs.rpn.training = theirs.roi_heads.training = theirs.training = theirs.transform.training = True
        expected = theirs([image.clone() for image in images], targets)
    finally:
        theirs.rpn.training = theirs.roi_heads.training = theirs.training = theirs.transform.training = False
    theirs.transform.training = False
    batch, _ = theirs.transform([image.clone() for image in images])
    draws_all = {"anchors": Draw(0.7, 0.3, 10**6, 0.5), "proposals": Draw(0.5, 0.5, 10**6, 0.25)}
    criterion = RegionCriterion(**draws_all, crowds=None)  # torchvision learns crowds as background
    crowd = torch.tensor([[100.0, 60.0, 192.0, 128.0]])
    objects = [Objects(b, k, crop_images(m), crowd) for b, k, m in zip(boxes, labels, masks, strict=True)]
    choice = criterion.joints(objects)
    sizes = as_sizes(batch.image_sizes, batch.tensors)
    regions = ours(batch.tensors, sizes, choose=choice.choose, detect=choice.detect, limits=Limits(2000, 2000))
    found = criterion(regions, choice)
    names = {
        "objectness": "loss_objectness",
        "anchors": "loss_rpn_box_reg",
        "classes": "loss_classifier",
        "boxes": "loss_box_reg",
        "masks": "loss_mask",
    }
    for name, their in names.items():
        torch.testing.assert_close(
            found[name], expected[their], atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    sum(found.values()).backward()
    assert all(p.grad is not None for p in ours.parameters())
    ours.zero_grad(set_to_none=True)


def test_the_torchvision_models_that_are_compared_exist():
    assert issubclass(RoIHeads, torch.nn.Module)
    assert callable(fasterrcnn_resnet50_fpn)
