"""torchvision's detectors, taken over: the same boxes, scores, labels and masks."""

import pytest
import torch
import torchvision.models.detection as peers
from PIL import Image
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.roi_heads import expand_boxes
from torchvision.ops import FrozenBatchNorm2d
from torchvision.transforms.functional import to_tensor

import torchfpn
from importers.photographs import PHOTO, refused_in_16_bits, same_as_python
from shared import DATA, needs_shared
from torchfpn.errors import ConfigError
from torchfpn.importers.convert import converted
from torchfpn.ops.masks import crop_masks, paste
from torchfpn.tasks.task import resize

CLASSES = 11
SHOWN = {"shorter": 800, "longer": 1333}
MOBILE, SMALL = "fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"


def noisy(name, **options):
    """A detector of torchvision's with random weights of such a size that many boxes are found."""
    torch.manual_seed(0)
    model = getattr(peers, name)(weights=None, weights_backbone=None, num_classes=CLASSES + 1, **options).eval()
    predictor, dense = model.roi_heads.box_predictor, model.rpn.head
    spread = 0.02 if "mobilenet" in name else 0.3  # slivers at the border would be rounding alone
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
        dense.bbox_pred.weight.normal_(std=float(spread / size))
        proposals, _ = model.rpn(images, dict(enumerate(maps)))
        pooled = model.roi_heads.box_roi_pool({str(i): x for i, x in enumerate(maps)}, proposals, images.image_sizes)
        rows = model.roi_heads.box_head(pooled)
        size = rows.square().mean().sqrt() * rows.shape[1] ** 0.5
        predictor.cls_score.weight.normal_(std=float(1.5 / size))
        predictor.bbox_pred.weight.normal_(std=float(1.5 / size))
    return model


def same_objects(one, other, logits=None):
    """Asserts that ours are theirs, in any order where scores are as good as equal.

    logits: what our mask head says of them. A box is laid to whole pixels towards zero: where the last digits of two
    boxes lie on either side of one, ours is laid on their box before the masks are compared.
    """
    assert len(one) == len(other["boxes"]) >= 50
    left = set(range(len(one)))
    for i in range(len(one)):
        near = (
            ((one.boxes[i] - other["boxes"]).abs().amax(1) <= 1e-3)
            & ((one.scores[i] - other["scores"]).abs() <= 1e-4)
            & (one.labels[i] == other["labels"] - 1)
        )
        found = left & set(near.nonzero()[:, 0].tolist())
        assert found, f"{i}: {one.boxes[i].tolist()} {float(one.scores[i])} {int(one.labels[i])}"
        place = min(found, key=lambda j: abs(i - j))
        left.remove(place)
        assert abs(float(one.scores[i] - other["scores"][place])) < 1e-5 or place == i
        if "masks" in other:
            mine, wanted = one.masks[i], other["masks"][place, 0] > 0.5
            frames = [
                expand_boxes(box[None], (28 + 2) / 28).long()  # a mask of 28 x 28 with a pixel of zeros around it
                for box in (one.boxes[i], other["boxes"][place])
            ]
            if not torch.equal(*frames):
                assert (frames[0] - frames[1]).abs().max() == 1
                chances = logits[i : i + 1, one.labels[i]].sigmoid()
                mine = paste(crop_masks(chances, other["boxes"][place][None], one.size))[0]
            together, apart = int((mine | wanted).sum()), int((mine ^ wanted).sum())
            assert apart <= max(1, 0.001 * together), f"{i}: {apart} of {together} pixels"


def compare(name, sizes):
    """Predicts images of these sizes with torchvision's model and ours."""
    theirs = noisy(name)
    task = torchfpn.convert(theirs.state_dict())
    assert task.recipe.rules["resize"] == SHOWN
    theirs.transform.min_size, theirs.transform.max_size = (160,), 224
    task.recipe.rules["resize"] = {"shorter": 160, "longer": 224}
    draws, said = torch.Generator().manual_seed(3), [None]
    if "mask" in name:
        task.model.head.mask.register_forward_hook(lambda _, __, logits: said.append(logits))
    for size in sizes:  # one by one: in a batch, torchvision's answers depend on the other images' sizes
        image = torch.rand(3, *size, generator=draws)
        found = task.predict([image])[0]
        same_objects(found, theirs([image])[0], said[-1])


RESNETS = [f"{kind}_resnet50_fpn{version}" for kind in ("fasterrcnn", "maskrcnn") for version in ("", "_v2")]


@torch.inference_mode()
def test_the_same_detections():
    compare("maskrcnn_resnet50_fpn_v2", [(200, 260)])


@pytest.mark.slow
@pytest.mark.parametrize("name", RESNETS)
@torch.inference_mode()
def test_the_same_detections_in_twenty_images(name):
    draws = torch.Generator().manual_seed(5)
    compare(name, torch.randint(70, 400, (20, 2), generator=draws).tolist())


@pytest.mark.parametrize("is_small", [False, True])
@torch.inference_mode()
def test_the_same_at_every_stage_of_the_mobilenet(is_small):
    """All boxes smaller than a cell hold the same; which of those stays is decided by the last digit of its score."""
    theirs = noisy(SMALL if is_small else MOBILE)
    task = torchfpn.convert(theirs.state_dict(), variant="320" if is_small else None)
    rule = task.recipe.rules["resize"]
    assert theirs.transform.max_size == rule["longer"]
    assert rule == ({"shorter": 320, "longer": 640} if is_small else SHOWN)
    theirs.transform.max_size, task.recipe.rules["resize"] = 224, {"shorter": 160, "longer": 224}
    image = torch.rand(3, 200, 260, generator=torch.Generator().manual_seed(3))
    images, _ = theirs.transform([image])
    maps = theirs.backbone(images.tensors)
    found = theirs.rpn(images, maps)[0]
    seen = resize(task.normalize(image[None])[0], 160, 224)
    ours = task.model(seen)
    for mine, other in zip(task.model.maps(seen), maps.values(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    assert int(ours.proposals.counts) == len(found[0])
    assert len(found[0]) == 150 if is_small else len(found[0]) > 400
    assert 0.05 <= float(ours.proposals.scores.min()) < (1 if is_small else 0.1)  # others are no proposals
    torch.testing.assert_close(ours.proposals.boxes[0], found[0], atol=1e-3, rtol=0)
    scores, deltas = theirs.roi_heads.box_predictor(
        theirs.roi_heads.box_head(theirs.roi_heads.box_roi_pool(maps, found, images.image_sizes))
    )
    torch.testing.assert_close(ours.rois["scores"][0], scores.roll(-1, 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.rois["deltas"][0], deltas[:, 4:], atol=1e-4, rtol=1e-4)
    whole, (other,) = task.predict([image])[0], theirs([image])
    assert len(whole) == len(other["boxes"]) >= 50
    assert shared(whole, other["boxes"], other["labels"] - 1) > 0.9


def shared(found, boxes, labels):
    """What share of our boxes is among others of the same label."""
    apart = torch.cdist(found.boxes, boxes, p=float("inf"))
    apart[found.labels[:, None] != labels] = float("inf")
    return float((apart.min(1).values < 1e-2).float().mean())


@torch.inference_mode()
def test_added_bands_change_nothing():
    tensors = noisy(MOBILE).state_dict()
    plain, wide = torchfpn.convert(tensors), torchfpn.convert(tensors, bands=5)
    assert wide.recipe.bands == ("red", "green", "blue", "band3", "band4")
    for task in (plain, wide):
        task.recipe.rules["resize"] = {"shorter": 160, "longer": 224}
    image = torch.rand(5, 120, 140, generator=torch.Generator().manual_seed(1))
    one, other = plain.predict([image[:3]])[0], wide.predict([image])[0]
    assert len(one) >= 50
    assert shared(one, other.boxes, other.labels) > 0.9  # sums of five bands round otherwise


def test_models_of_ninety_classes_know_them():
    names = peers.FasterRCNN_MobileNet_V3_Large_FPN_Weights.DEFAULT.meta["categories"]
    with torch.device("meta"):
        model = getattr(peers, MOBILE)(weights=None, weights_backbone=None)
    made = converted({name: torch.zeros(x.shape, dtype=x.dtype) for name, x in model.state_dict().items()})
    assert any("taken for COCO's" in note for note in made.notes)
    recipe = made.recipe
    assert recipe.label_ids == tuple(range(1, 91))
    for number, name in zip(recipe.label_ids, recipe.classes, strict=True):
        assert name == (f"unused {number}" if names[number] == "N/A" else names[number])


@pytest.mark.parametrize(("depth", "eps", "variant"), [("resnet18", 1e-5, None), ("resnet18", 0.0, "coco_v1")])
@torch.inference_mode()
def test_frozen_norms_have_the_epsilon_of_their_training(depth, eps, variant):
    """Of depths that were never published as detectors it is that of weights_backbone, 1e-5."""
    torch.manual_seed(0)
    body = resnet_fpn_backbone(backbone_name=depth, weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5)
    theirs = peers.FasterRCNN(body, num_classes=3).eval()
    for module in theirs.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = eps
            module.running_var.uniform_(1e-5, 1e-4)
    made = converted(theirs.state_dict(), variant=variant)
    assert any("epsilon of frozen batch norm" in note for note in made.notes)
    images = torch.rand(1, 3, 64, 64)
    for ours, wanted in zip(made.model.maps(images), theirs.backbone(images).values(), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_published_detectors_are_taken_for_an_epsilon_of_zero_and_the_caller_may_say_otherwise():
    tensors = zeros("fasterrcnn_resnet50_fpn")
    tensors = {name: x for name, x in tensors.items() if not name.endswith("num_batches_tracked")}
    for variant, variance in ((None, -1e-5), ("backbone", 0.0)):
        made = converted(tensors, variant=variant)
        assert float(made.model.backbone.features.bn1.running_var[0]) == pytest.approx(variance)
        assert any("assumed: 0" in note and "--variant backbone" in note for note in made.notes) == (variant is None)
    with pytest.raises(ConfigError, match='variant: "coco_v1"; expected a ResNet with frozen batch norm'):
        converted(zeros("fasterrcnn_resnet50_fpn"), variant="coco_v1")


def test_the_small_variant_is_of_the_mobilenet_alone():
    with torch.device("meta"):
        model = peers.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    tensors = {name: torch.zeros(x.shape, dtype=x.dtype) for name, x in model.state_dict().items()}
    with pytest.raises(ConfigError, match='variant: "320"; expected detectors on MobileNetV3'):
        torchfpn.convert(tensors, variant="320")


@needs_shared
@torch.inference_mode()
def test_a_photograph_gives_the_originals_detections_in_python_and_through_fpn_predict(tmp_path, capsys):
    photograph("maskrcnn_resnet50_fpn", PHOTO, tmp_path)
    refused_in_16_bits(PHOTO, tmp_path, capsys)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", [*RESNETS, MOBILE, SMALL])
@torch.inference_mode()
def test_photographs_give_the_originals_detections_in_every_family(name, tmp_path):
    photos = [*sorted(PHOTO.parent.glob("*.jpg"))[1:4], *sorted((DATA / "camvid" / "val" / "images").glob("*.jpg"))[:3]]
    for i, photo in enumerate(photos):
        (tmp_path / str(i)).mkdir()
        photograph(name, photo, tmp_path / str(i))


def photograph(name, photo, folder):
    """Predicts a photograph with torchvision's model, with ours as a file of ours, and with `fpn predict`."""
    theirs = noisy(name)
    made = torchfpn.convert(theirs.state_dict(), variant="320" if name == SMALL else None)
    theirs.transform.min_size, theirs.transform.max_size = (160,), 224
    made.recipe.rules["resize"] = {"shorter": 160, "longer": 224}
    made.save(folder / "model.safetensors")
    task = torchfpn.load(folder / "model.safetensors")
    said = [None]
    if "mask" in name:
        task.model.head.mask.register_forward_hook(lambda _, __, logits: said.append(logits))
    with Image.open(photo) as opened:
        image = to_tensor(opened.convert("RGB"))
    found = task.predict([image])[0]
    if "mobilenet" in name:  # a MobileNet's slivers differ by the last digit: the tests of its stages compare those
        (other,) = theirs([image])
        assert shared(found, other["boxes"], other["labels"] - 1) > 0.9
    else:
        same_objects(found, theirs([image])[0], said[-1])
    same_as_python(task, photo, folder, found)


# -- anchors, which are not in the file --------------------------------------------------------------------------------
OWN_SIZES, OWN_RATIOS = [[8, 16], [16, 32], [32, 64], [64, 128], [128, 256]], [0.5, 1.0]


@torch.inference_mode()
def test_a_detector_of_its_own_anchors_gives_the_same_detections():
    theirs = noisy("fasterrcnn_resnet50_fpn", rpn_anchor_generator=AnchorGenerator(OWN_SIZES, (OWN_RATIOS,) * 5))
    with pytest.raises(ConfigError, match=r"anchors: sizes 32, .*: 3 at each place of 5 levels; expected 4"):
        torchfpn.convert(theirs.state_dict())
    task = torchfpn.convert(theirs.state_dict(), anchors=(OWN_SIZES, OWN_RATIOS))
    theirs.transform.min_size, theirs.transform.max_size = (160,), 224
    task.recipe.rules["resize"] = {"shorter": 160, "longer": 224}
    image = torch.rand(3, 200, 260, generator=torch.Generator().manual_seed(3))
    same_objects(task.predict([image])[0], theirs([image])[0])


def zeros(name, **options):
    """The state_dict of a detector, without weights."""
    with torch.device("meta"):
        model = getattr(peers, name)(weights=None, weights_backbone=None, num_classes=3, **options)
    return {name: torch.zeros(x.shape, dtype=x.dtype) for name, x in model.state_dict().items()}


def test_anchors_that_were_assumed_are_said_and_others_of_their_number_taken():
    tensors = zeros("fasterrcnn_resnet50_fpn")
    assert any("assumed: sizes 32, 64, 128, 256, 512, ratios 0.5, 1, 2" in note for note in converted(tensors).notes)
    made = converted(tensors, anchors=[(16, 32, 64, 128, 256)])
    assert not any("anchors" in note for note in made.notes)
    assert made.recipe.model["head_options"]["anchor_sizes"] == [[16.0], [32.0], [64.0], [128.0], [256.0]]
    for wrong in ([(16, 32)], [(0, 1, 2, 3, 4)], ["16"], 7, [[]]):
        with pytest.raises(ConfigError) as caught:
            converted(tensors, anchors=wrong)
        assert caught.value.field == "anchors"
        assert "\n" not in str(caught.value)


def test_a_mobilenet_has_three_levels_of_anchors():
    tensors = zeros(MOBILE)
    with pytest.raises(ConfigError, match="15 at each place of 3 levels"):
        torchfpn.convert(tensors, anchors=[(32, 64, 128)])
    own = [[16, 32, 64, 128, 256]] * 3
    assert torchfpn.convert(tensors, anchors=[own]).recipe.model["head_options"]["anchor_sizes"] == own
