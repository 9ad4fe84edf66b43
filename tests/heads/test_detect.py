"""What is left out between the stages of a detector: empty boxes, small ones, unlikely ones."""

import pytest
import torch

import torchfpn
from tiny_detector import tiny_detector
from torchfpn.errors import ConfigError, NotFiniteError
from torchfpn.heads.roi import Detect, without_empty
from torchfpn.heads.rpn import Propose
from torchfpn.heads.two_stage import two_stage
from torchfpn.ops.masks import crop_images
from torchfpn.types import Batch, Boxes, Level, Objects


def table(boxes, count=None):
    """One image's boxes, best first, of labels 0, 1, 2, ..."""
    boxes = torch.tensor([boxes], dtype=torch.float32)
    rows = boxes.shape[1]
    counts = torch.tensor([rows if count is None else count])
    return Boxes(boxes, torch.linspace(1, 0.1, rows)[None], torch.arange(rows)[None], counts, torch.zeros(1))


def test_empty_boxes_leave_and_the_others_move_up():
    found = without_empty(table([[0, 0, 1, 1], [2, 2, 2, 5], [1, 1, 4, 4], [0, 3, 2, 3], [5, 5, 9, 9]], count=4))
    assert found.counts.tolist() == [2]
    assert found.labels[0, :2].tolist() == [0, 2]
    assert found.boxes[0, :2].tolist() == [[0, 0, 1, 1], [1, 1, 4, 4]]


@pytest.mark.parametrize(("smallest", "labels"), [(0.0, [0]), (0.01, [0, 2])])
def test_an_empty_box_takes_room_where_none_is_too_small(smallest, labels):
    """detectron2 keeps the best, and then drops the empty ones; torchvision drops them first."""
    proposals = table([[10, 10, 30, 30], [100, 100, 120, 120], [50, 50, 70, 70]])  # the second lies outside
    logits = torch.full((1, 3, 4), -9.0)
    logits[0, torch.arange(3), torch.arange(3)] = torch.tensor([5.0, 4.0, 3.0])
    detect = Detect(limit=2, smallest=smallest)
    found = detect({"scores": logits, "deltas": torch.zeros(1, 3, 12)}, proposals, torch.tensor([[80.0, 80.0]]))
    assert found.labels[0, : int(found.counts)].tolist() == labels


@pytest.mark.parametrize(("options", "kept"), [({}, 4), ({"threshold": 0.5}, 3), ({"smallest": 20.0}, 2)])
def test_proposals_that_are_small_or_not_likely(options, kept):
    propose = Propose([Level(4, 32)], sizes=[(16, 64)], ratios=(1.0,), iou=1.0, **options)
    scores = torch.tensor([[2.0, 1.0], [-1.0, 9.0]]).reshape(1, 2, 1, 2)  # [B, A, h, w]: of 16 pixels, of 64
    dense = ({"scores": scores, "deltas": torch.zeros(1, 8, 1, 2)},)
    _, found = propose(dense, (32, 64), torch.tensor([[32.0, 40.0]]))
    assert int(found.counts) == kept


def test_proposals_without_an_area_are_none_whatever_the_smallest():
    propose = Propose([Level(4, 32)], sizes=[(16,)], ratios=(1.0,), smallest=0.0)
    dense = ({"scores": torch.zeros(1, 1, 1, 3), "deltas": torch.zeros(1, 4, 1, 3)},)
    _, found = propose(dense, (32, 96), torch.tensor([[32.0, 50.0]]))  # the third lies behind the image
    assert int(found.counts) == 2


@pytest.mark.parametrize(("rank", "sides"), [("logits", [32.0, 16.0]), ("probabilities", [16.0, 32.0])])
def test_proposals_whose_probabilities_are_all_one_are_ordered_by_their_logits(rank, sides):
    """As detectron2 has it; torchvision orders by probabilities, where 20 and 30 are both 1."""
    levels = [Level(4, 32), Level(4, 64)]
    propose = Propose(levels, sizes=[(16,), (32,)], ratios=(1.0,), iou=1.0, rank=rank)
    logits = [torch.full((1, 1, 1, 1), value) for value in (20.0, 30.0)]
    assert all((x.sigmoid() == 1).all() for x in logits)
    dense = tuple({"scores": x, "deltas": torch.zeros(1, 4, 1, 1)} for x in logits)
    _, found = propose(dense, (64, 64), torch.tensor([[64.0, 64.0]]))
    assert (2 * found.boxes[0, :2, 2]).tolist() == sides
    assert found.scores[0, :2].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "build",
    [
        lambda sizes: two_stage([Level(4, 2**k) for k in (2, 3, 4)], 2, anchor_sizes=sizes, roi_levels=3),
        lambda sizes: Propose([Level(4, 2**k) for k in (2, 3, 4)], sizes=sizes),
    ],
)
def test_another_number_of_anchors_on_some_level_is_refused(build):
    with pytest.raises(ConfigError, match=r"anchor_sizes: .*; expected as many for each level"):
        build([[32], [64], [128, 256]])


@pytest.mark.parametrize("extra", ["pool", "conv", "conv-c5"])
def test_boxes_are_read_from_no_level_that_is_made_for_anchors(extra):
    """torchvision's and detectron2's detectors read P2 to P5, whatever lies behind."""
    options = {"backbone": "test_resnet", "num_classes": 2, "channels": 8, "head_options": {"hidden": 8}}
    model = torchfpn.create_model("detection", extra=extra, **options)
    assert len(model.head.pool.scales) == len(model.backbone.levels) == 4


def overflown(value, part):
    """A detector, a part of whose weights are `value`."""
    task = tiny_detector(proposals=5)
    with torch.no_grad():
        for weight in task.model.get_submodule(part).parameters():
            weight.fill_(value)
    return task


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize("part", ["backbone", "head.dense", "head.box"])
def test_activations_that_overflow_are_refused(value, part):
    with pytest.raises(NotFiniteError, match="image 1 of 2: the model gives NaN or infinity"):
        overflown(value, part).predict(255 * torch.rand(2, 3, 48, 64))


@pytest.mark.slow  # exporting takes most of a minute
def test_no_proposal_goes_through_a_training_step_and_an_exported_graph():
    task, images = overflown(float("nan"), "backbone"), torch.rand(1, 3, 64, 64)
    program = torch.export.export(task.model, (images,)).module()
    assert int(program(images).detections.counts) == 0
    assert not program(images).detections.boxes.any()
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), crop_images(torch.zeros(0, 64, 64).bool()))
    losses = task.train().losses(Batch(images, [(64, 64)], [nothing]))
    assert float(losses["classes"].detach()) == float(losses["masks"].detach()) == 0
