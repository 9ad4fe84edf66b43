"""torchvision's detectors, taken over: the same boxes, scores, labels and masks."""

import pytest
import torch
import torchvision.models.detection as peers

import torchfpn

CLASSES = 11


def noisy(name):
    """A detector of torchvision's with random weights of such a size that many boxes are found."""
    torch.manual_seed(0)
    model = getattr(peers, name)(weights=None, weights_backbone=None, num_classes=CLASSES + 1).eval()
    predictor, dense = model.roi_heads.box_predictor, model.rpn.head
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "running_var"):
                module.running_var.uniform_(1.0, 3.0)
                module.running_mean.normal_(std=0.1)
        model.transform.min_size = (160,)
        images, _ = model.transform([torch.rand(3, 160, 200)])
        maps = list(model.backbone(images.tensors).values())
        said = [dense.conv(x) for x in maps]
        size = torch.cat([x.flatten() for x in said]).square().mean().sqrt() * said[0].shape[1] ** 0.5
        dense.cls_logits.weight.normal_(std=float(1.0 / size))
        dense.bbox_pred.weight.normal_(std=float(0.3 / size))
        proposals, _ = model.rpn(images, dict(enumerate(maps)))
        pooled = model.roi_heads.box_roi_pool({str(i): x for i, x in enumerate(maps)}, proposals, images.image_sizes)
        rows = model.roi_heads.box_head(pooled)
        size = rows.square().mean().sqrt() * rows.shape[1] ** 0.5
        predictor.cls_score.weight.normal_(std=float(1.5 / size))
        predictor.bbox_pred.weight.normal_(std=float(1.5 / size))
    return model


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("fasterrcnn_resnet50_fpn", marks=pytest.mark.slow),
        pytest.param("maskrcnn_resnet50_fpn", marks=pytest.mark.slow),
        "fasterrcnn_resnet50_fpn_v2",
        pytest.param("maskrcnn_resnet50_fpn_v2", marks=pytest.mark.slow),
    ],
)
@torch.inference_mode()
def test_the_same_detections(name):
    theirs = noisy(name)
    task = torchfpn.convert(theirs.state_dict())
    assert task.recipe.rules["resize"] == {"shorter": 800, "longer": 1333}
    theirs.transform.min_size, theirs.transform.max_size = (160,), 224
    task.recipe.rules["resize"] = {"shorter": 160, "longer": 224}
    draws = torch.Generator().manual_seed(3)
    images = [torch.rand(3, *size, generator=draws) for size in ((200, 260),)]
    for image in images:  # one by one: in a batch, torchvision's answers depend on the other images' sizes
        (other,), (one,) = theirs([image]), task.predict([image])
        assert len(one) == len(other["boxes"]) >= 50
        torch.testing.assert_close(one.boxes, other["boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(one.scores, other["scores"], atol=1e-4, rtol=0)
        assert torch.equal(one.labels, other["labels"] - 1)
        if "masks" in other:
            mine, wanted = one.masks, other["masks"][:, 0] > 0.5
            shared, together = (mine & wanted).sum((1, 2)), (mine | wanted).sum((1, 2))
            assert (shared[together > 0] / together[together > 0]).min() > 0.999


def test_saved_and_loaded_it_is_the_same(tmp_path):
    task = torchfpn.convert(noisy("maskrcnn_resnet50_fpn").state_dict())
    task.recipe.rules["resize"] = {"shorter": 128, "longer": 160}
    task.save(tmp_path / "model.safetensors")
    image = torch.rand(3, 100, 120)
    one, other = (each.predict([image])[0] for each in (task, torchfpn.load(tmp_path / "model.safetensors")))
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.masks, other.masks)
