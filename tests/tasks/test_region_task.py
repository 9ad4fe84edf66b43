"""Detection and instance segmentation as tasks: any image, any number of objects, and every weight learns."""

from dataclasses import replace

import pytest
import torch

import torchfpn
from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.ops.masks import crop_images, crop_masks, mask_targets, paste
from torchfpn.types import Batch, Objects

OPTIONS = {"hidden": 32, "proposals": 50}


def make(task="instance", bands=3, **options):
    torch.manual_seed(0)
    return torchfpn.create_task(
        task,
        backbone="test_resnet",
        num_classes=3,
        in_channels=bands,
        channels=16,
        head_options=OPTIONS | options,
    )


def squares(size, boxes):
    """Objects of two classes whose masks fill their boxes."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Objects(found, torch.arange(len(boxes)) % 2, crop_images(masks))


def test_every_weight_has_a_gradient_and_losses_are_finite():
    task = make().train()
    size = (64, 96)
    targets = [squares(size, [(5, 5, 40, 50), (50, 10, 90, 40)]), squares(size, [])]
    losses = task.losses(Batch(torch.rand(2, 3, *size), [size, size], targets))
    assert list(losses) == ["objectness", "anchors", "classes", "boxes", "masks"]
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    missing = [name for name, weight in task.model.named_parameters() if weight.grad is None]
    assert not missing


@pytest.mark.parametrize("kind", ["detection", "instance"])
def test_fault_25_images_without_objects_are_learnt_from(kind):
    task = make(kind).train()
    losses = task.losses(Batch(torch.rand(1, 3, 40, 50), [(40, 50)], [squares((40, 50), [])]))
    assert losses["objectness"] > 0
    assert losses["classes"] > 0
    assert losses["anchors"] == losses["boxes"] == 0
    sum(losses.values()).backward()


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (33, 31), (64, 96)])
@pytest.mark.parametrize("kind", ["detection", "instance"])
def test_any_size_is_predicted(kind, size):
    found = make(kind, threshold=0.0).predict([torch.rand(3, *size)])[0]
    assert found.size == size
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2] <= size[1]).all()
    assert (found.boxes[:, 3] <= size[0]).all()
    assert (found.scores.diff() <= 0).all()
    if kind == "instance":
        assert found.masks.shape == (len(found), *size)
    else:
        assert found.masks is None


def test_nothing_found_is_an_answer():
    found = make(threshold=0.999).predict([torch.rand(3, 50, 60)])[0]
    assert len(found) == 0
    assert found.masks.shape == (0, 50, 60)


def test_thousands_of_objects_in_one_image():
    task, size = make("detection").train(), (128, 128)
    corner = torch.rand(5000, 2) * 120
    objects = Objects(torch.cat([corner, corner + 6], 1), torch.zeros(5000, dtype=torch.int64))
    losses = task.losses(Batch(torch.rand(1, 3, *size), [size], [objects]))
    assert all(torch.isfinite(value) for value in losses.values())


def test_a_batch_of_several_sizes_is_cut_at_the_true_ones():
    task = make(threshold=0.0)
    images = torch.full((2, 3, 64, 96), torch.nan)
    images[0], images[1, :, :40, :50] = torch.rand(3, 64, 96), torch.rand(3, 40, 50)
    found = task.predict(Batch(images, [(64, 96), (40, 50)]))
    assert [each.size for each in found] == [(64, 96), (40, 50)]
    assert (found[1].boxes[:, 2] <= 50).all()
    assert (found[1].boxes[:, 3] <= 40).all()


def test_it_is_saved_and_loaded(tmp_path):
    task, image = make(bands=5, threshold=0.0), torch.rand(5, 48, 64)
    task.save(tmp_path / "model.safetensors")
    one, other = task.predict([image])[0], torchfpn.load(tmp_path / "model.safetensors").predict([image])[0]
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.masks, other.masks)
    assert torch.equal(one.above(0.3).scores, one.scores[one.scores >= 0.3])


def test_what_cannot_be_is_told():
    with pytest.raises(ConfigError, match="its terms belong to the two stages"):
        torchfpn.create_task("detection", backbone="test_resnet", num_classes=2, loss="dice")
    with pytest.raises(ConfigError, match='head: "sum"'):
        torchfpn.create_model("detection", backbone="test_resnet", num_classes=2, head="sum")
    with pytest.raises(ConfigError, match=r"head_options\.boxx"):
        torchfpn.create_model("instance", backbone="test_resnet", num_classes=2, head_options={"boxx": 1})
    with pytest.raises(ShapeError, match="a list of 1 Objects"):
        make().losses(Batch(torch.rand(1, 3, 32, 32), [(32, 32)], None))


def discs(diameter, number=60, size=(64, 64)):
    """Round objects whose centres lie anywhere within a pixel."""
    draws = torch.Generator().manual_seed(0)
    y, x = (torch.arange(side) + 0.5 for side in size)
    centre = 32 + torch.rand(number, 2, 1, 1, generator=draws)
    return (x - centre[:, 0]) ** 2 + (y[:, None] - centre[:, 1]) ** 2 < diameter**2 / 4


@pytest.mark.parametrize(("aligned", "best"), [(True, 1.0), (False, 0.85)])
def test_masks_are_laid_where_they_were_learnt(aligned, best):
    """What a mask head that has learnt all would answer, against the truth: half a pixel costs small objects much."""
    task = make(aligned=aligned)
    assert task.recipe.rules["masks"] == ("detectron2" if aligned else "torchvision")
    assert task.criterion.aligned is aligned
    truth = discs(12)
    crops = crop_images(truth)
    boxes = crops.windows.float()
    meant = mask_targets(crops, torch.arange(len(crops)), boxes, 28, aligned=task.criterion.aligned)
    found = paste(crop_masks(meant, boxes, truth.shape[1:], rule=task.postprocess.rule))
    iou = ((found & truth).flatten(1).sum(1) / (found | truth).flatten(1).sum(1)).mean()
    assert iou == pytest.approx(best, abs=0.01)


def test_boxes_alone_have_no_rule_of_masks():
    assert make("detection").recipe.rules == {}


def test_a_rule_that_enlarges_a_narrow_image_beyond_all_bounds_is_refused():
    task = make("detection")
    task.recipe = replace(task.recipe, rules={"resize": {"shorter": 20_000, "longer": None}})
    with pytest.raises(
        DataError, match=r"rules.resize: 8 x 2 pixels, which the model's rule enlarges to 80,000 x 20,000"
    ):
        task.predict(torch.zeros(1, 3, 2, 8))
    task.recipe = replace(task.recipe, rules={"resize": {"shorter": 200, "longer": None, "pillow": False}})
    with pytest.raises(DataError, match="expected at most 16,777,216 pixels; cut the image into less narrow ones"):
        task.predict(torch.zeros(1, 3, 1, 500))
    assert len(task.predict(torch.zeros(1, 3, 40, 50))) == 1
