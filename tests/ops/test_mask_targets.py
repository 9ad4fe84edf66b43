"""Targets of mask heads, against RoIAlign of whole masks."""

import pytest
import torch
import torchvision.ops
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.ops.masks import crop_images, mask_targets


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**20), st.integers(3, 40), st.integers(3, 40), st.sampled_from([1, 7, 28]), st.booleans())
def test_targets_are_roi_align_of_the_whole_masks(seed, height, width, grid, aligned):
    draws = torch.Generator().manual_seed(seed)
    masks = torch.rand(3, height, width, generator=draws) > 0.6
    masks[1, : height // 2] = False
    masks[2] = False
    corner = torch.rand(5, 2, generator=draws) * torch.tensor([width, height]) - 3
    boxes = torch.cat([corner, corner + torch.rand(5, 2, generator=draws) * 30 + 1], 1)
    which = torch.randint(0, 3, (5,), generator=draws)
    found = mask_targets(crop_images(masks), which, boxes, grid, aligned=aligned)
    rois = torch.cat([which[:, None].float(), boxes], 1)
    theirs = torchvision.ops.roi_align(masks[:, None].float(), rois, (grid, grid), 1.0, -1, aligned)[:, 0]
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-4)


def test_targets_are_exact_under_autocast():
    masks = crop_images(torch.rand(1, 30, 30, generator=torch.Generator().manual_seed(0)) > 0.5)
    boxes, which = torch.tensor([[2.3, 1.7, 28.1, 25.9]]), torch.tensor([0])
    expected = mask_targets(masks, which, boxes, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mask_targets(masks, which, boxes, 7), expected)


def test_nothing_gives_nothing():
    masks = crop_images(torch.ones(1, 4, 4) > 0)
    assert mask_targets(masks, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), 28).shape == (0, 28, 28)


@pytest.mark.parametrize("box", [(0.0, 0.0, 0.0, 0.0), (-50.0, -50.0, -40.0, -40.0), (0.0, 0.0, 900.0, 900.0)])
def test_boxes_of_no_size_and_outside(box):
    masks = torch.ones(1, 8, 8) > 0
    boxes = torch.tensor([box])
    theirs = torchvision.ops.roi_align(masks[:, None].float(), torch.tensor([[0.0, *box]]), (4, 4), 1.0, -1, False)[
        :, 0
    ]
    torch.testing.assert_close(mask_targets(crop_images(masks), torch.tensor([0]), boxes, 4), theirs, atol=1e-5, rtol=0)
