"""What a detector learns from: anchors and proposals against objects, and not against crowds and ignored objects."""

import numpy as np
import pytest
import torch

from torchfpn.criteria.region import Chosen, Draw, RegionCriterion
from torchfpn.ops.matching import BACKGROUND, UNDECIDED, spared
from torchfpn.types import Boxes, Objects, Regions

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
