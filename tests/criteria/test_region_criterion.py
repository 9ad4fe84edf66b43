"""What a detector learns from: anchors and proposals against objects, and not against crowds and ignored objects."""

import copy

import numpy as np
import pytest
import torch

from torchfpn.criteria.region import Chosen, Draw, RegionCriterion
from torchfpn.heads.two_stage import two_stage
from torchfpn.ops.boxes import BACKGROUND, UNDECIDED, spared
from torchfpn.types import Boxes, Level, Objects, Regions

CROWD = torch.tensor([[40.0, 0.0, 80.0, 40.0]])
OBJECTS = Objects(torch.tensor([[0.0, 0.0, 20.0, 20.0]]), torch.tensor([0]), crowds=CROWD)
ANCHORS = torch.tensor(
    [
        [0.0, 0.0, 20.0, 20.0],  # the object
        [45.0, 5.0, 65.0, 25.0],  # in the crowd
        [30.0, 0.0, 50.0, 20.0],  # half of it
        [0.0, 60.0, 20.0, 80.0],  # beside both
        [0.0, 0.0, 400.0, 400.0],  # around both: the crowd covers little of it
    ]
)
ALL = Draw(0.5, 0.5, 10**6, 0.5)


def regions(scores):
    """The first stage's answer of one cell with five anchors; nothing of the second."""
    none = torch.zeros(1, 0, dtype=torch.int64)
    boxes = Boxes(torch.zeros(1, 0, 4), torch.zeros(1, 0), none, torch.zeros(1, dtype=torch.int64), torch.zeros(1))
    dense = {"scores": scores.reshape(1, -1, 1, 1), "deltas": torch.zeros(1, 4 * scores.numel(), 1, 1)}
    rois = {"scores": torch.zeros(1, 0, 2), "deltas": torch.zeros(1, 0, 4)}
    return Regions((dense,), ANCHORS, boxes, rois, boxes)


@pytest.mark.parametrize(("crowds", "learnt"), [(0.7, [0, 2, 3, 4]), (None, [0, 1, 2, 3, 4]), (0.4, [0, 3, 4])])
def test_anchors_in_crowds_are_not_learnt_as_background(crowds, learnt):
    scores = torch.zeros(5, requires_grad=True)
    criterion = RegionCriterion(anchors=ALL, crowds=crowds)
    criterion(regions(scores), criterion.joints([OBJECTS]))["objectness"].backward()
    assert scores.grad.nonzero()[:, 0].tolist() == learnt


def test_proposals_in_crowds_are_not_learnt_as_background():
    proposals = Boxes(ANCHORS[None], torch.ones(1, 5), torch.zeros(1, 5).long(), torch.tensor([5]), torch.tensor([0]))
    for crowds, count in ((0.7, 5), (None, 6)):  # the object itself is one more
        choice = Chosen([OBJECTS], ALL, crowds=crowds)
        chosen = choice.choose(proposals).boxes[0].tolist()
        assert len(chosen) == count
        assert (ANCHORS[1].tolist() in chosen) is (crowds is None)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_batch_norm_of_heads_is_of_boxes_alone(kind):
    """Of 8 boxes in one image and 1 in another, 7 rows of the table are none: statistics and logits of 9 rows."""
    torch.manual_seed(0)
    head = two_stage([Level(8, 4)], 2, masks=True, roi_levels=1, box="4conv1fc", hidden=16, mask_hidden=8,
                     mask_norm="batch", anchor_sizes=[[16]]).train()  # fmt: skip
    corners = 40 * torch.rand(2, 8, 2)
    boxes = torch.cat([corners, corners + 8 + 10 * torch.rand(2, 8, 2)], 2)
    boxes[1, 1:] = 0
    none = torch.zeros(2, 8)
    table = Boxes(boxes, none, none.long(), torch.tensor([8, 1]), torch.zeros(2))
    maps = (torch.rand(2, 8, 16, 16),)
    reference = copy.deepcopy(head)
    real = [head.pool, head.mask_pool][kind == "mask"](maps, boxes)[table.valid.flatten()]
    sizes = torch.full((2, 2), 64.0)
    found = head(maps, (64, 64), sizes, choose=lambda _: table, detect=lambda *_: table)
    if kind == "box":
        expected, said, own = reference.box(real)["scores"], found.rois["scores"], (head.box, reference.box)
    else:
        expected, said, own = reference.mask(real), found.masks, (head.mask, reference.mask)
    torch.testing.assert_close(said.flatten(0, 1)[table.valid.flatten()], expected)
    for one, other in zip(*(part.buffers() for part in own), strict=True):
        torch.testing.assert_close(one, other)


def test_shares_of_boxes_in_areas_are_those_of_a_raster():
    """Of random boxes and areas of whole pixels, counted pixel by pixel; areas in parts and at once."""
    draws = np.random.default_rng(0)
    corners = np.sort(draws.integers(0, 30, (60, 2, 2)), 1)
    boxes = torch.from_numpy(np.concatenate([corners[:, 0], corners[:, 1] + 1], 1)).float()
    some, areas = boxes[:40], boxes[40:]
    grid = np.zeros((len(boxes), 31, 31), bool)
    for one, (x1, y1, x2, y2) in zip(grid, boxes.int().tolist(), strict=True):
        one[y1:y2, x1:x2] = True
    inside = (grid[:40, None] & grid[None, 40:]).sum((2, 3)).max(1) / grid[:40].sum((1, 2))
    matches = torch.full((40,), BACKGROUND)
    matches[0] = 3
    expected = [3, *np.where(inside[1:] > 0.7, UNDECIDED, BACKGROUND).tolist()]
    assert spared(matches, some, areas, 0.7).tolist() == expected
    assert spared(matches, some, areas[:0], 0.7).tolist() == matches.tolist()
