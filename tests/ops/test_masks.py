"""Masks as crops: pasted, they are what torchvision and detectron2 paste, to the pixel."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image

from torchfpn import ConfigError, ShapeError
from torchfpn.ops.masks import areas, crop_images, crop_masks, paste, select, window_pixels

boxes = st.tuples(
    st.floats(-0.25, 1.125, width=32),
    st.floats(-0.25, 1.125, width=32),
    st.one_of(st.just(0.0), st.floats(0.0, 0.03125, width=32), st.floats(0.0, 1.5, width=32)),
    st.one_of(st.just(0.0), st.floats(0.0, 0.03125, width=32), st.floats(0.0, 1.5, width=32)),
)


def scene(fractions, size, cells=28, hard=False, seed=0):
    """Grids [N, 1, cells, cells], and boxes given by corner and sides as fractions of the image."""
    torch.manual_seed(seed)
    found = torch.tensor(fractions).reshape(-1, 4) * torch.tensor([size[1], size[0]] * 2)
    masks = torch.rand(len(found), 1, cells, cells)
    return ((masks > 0.5).float() if hard else masks), torch.cat([found[:, :2], found[:, :2] + found[:, 2:]], 1)


@settings(max_examples=80, deadline=None)
@given(
    fractions=st.lists(boxes, min_size=1, max_size=6),
    size=st.tuples(st.integers(8, 150), st.integers(8, 150)),
    cells=st.sampled_from([7, 14, 28]),
    hard=st.booleans(),
)
def test_pasted_crops_are_torchvisions(fractions, size, cells, hard):
    masks, found = scene(fractions, size, cells, hard)
    crops = crop_masks(masks, found, size)
    ours = paste(crops)
    assert ours.shape == (len(found), *size)
    for i, image in enumerate(ours):
        theirs = pastes(masks[i : i + 1], found[i : i + 1], size)
        assert torch.equal(image, torch.zeros_like(image) if theirs is None else theirs), found[i]
    assert areas(crops).tolist() == ours.sum((1, 2)).tolist()


def pastes(masks, found, size):
    """What torchvision pastes; None where the box lies outside of the image, which it cannot."""
    half = (found[0, 2:] - found[0, :2]) / 2 * (masks.shape[-1] + 2) / masks.shape[-1]
    centre = (found[0, 2:] + found[0, :2]) / 2
    low, high = (centre - half).long(), (centre + half).long()
    if (high < 0).any() or (low >= torch.tensor([size[1], size[0]])).any():
        return None
    return paste_masks_in_image(masks, found, size)[0, 0] > 0.5


def detectron2(grid, box, size):
    """Their rule for one object, over the whole image."""
    ys = (torch.arange(size[0]) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    xs = (torch.arange(size[1]) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    places = torch.stack([xs[None].expand(*size), ys[:, None].expand(*size)], 2)
    return F.grid_sample(grid[None], places[None], align_corners=False)[0, 0] >= 0.5


@settings(max_examples=60, deadline=None)
@given(
    fractions=st.lists(boxes.filter(lambda b: min(b[2:]) > 0), min_size=1, max_size=6),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    hard=st.booleans(),
)
def test_pasted_crops_are_detectron2s(fractions, size, hard):
    masks, found = scene(fractions, size, hard=hard)
    ours = paste(crop_masks(masks, found, size, rule="detectron2"))
    for grid, box, image in zip(masks, found, ours, strict=True):
        if (box[2:] > box[:2]).all():
            assert torch.equal(image, detectron2(grid, box, size)), box


def test_a_box_without_size_has_a_pixel_in_one_rule_and_none_in_the_other():
    found = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert paste(crop_masks(torch.ones(1, 28, 28), found, (10, 10))).nonzero().tolist() == [[0, 5, 5]]
    assert not paste(crop_masks(torch.ones(1, 28, 28), found, (10, 10), rule="detectron2")).any()


@pytest.mark.parametrize("rule", ["torchvision", "detectron2"])
def test_boxes_outside_and_numbers_that_are_none_have_no_pixels(rule):
    inf, nan = float("inf"), float("nan")
    found = torch.tensor(
        [[20, 2, 30, 9], [-30, 2, -20, 9], [2, 90, 5, 99], [nan, 0, 5, 5], [0, 0, inf, 5], [9, 9, 2, 2], [2, 2, 6, 6.0]]
    )
    crops = crop_masks(torch.ones(7, 28, 28), found, (10, 10), rule=rule)
    assert crops.windows[:6].tolist() == [[0] * 4] * 6
    assert areas(crops)[6] > 0
    assert [tuple(p.shape) for p in window_pixels(crops)][:6] == [(0, 0)] * 6


def test_a_box_far_larger_than_the_image_is_made_only_where_it_is_seen():
    torch.manual_seed(0)
    masks, found = (
        torch.rand(3, 1, 28, 28),
        torch.tensor([[-500.0, -400, 700, 800], [0, 0, 1e9, 1e9], [-1e30, 0, 1e30, 9]]),
    )
    ours = paste(crop_masks(masks, found, (60, 50)))
    assert torch.equal(ours[0], paste_masks_in_image(masks[:1], found[:1], (60, 50))[0, 0] > 0.5)
    assert crop_masks(masks, found, (60, 50)).pixels.numel() <= 3 * 60 * 50


def test_the_threshold_and_both_shapes_of_grids():
    grid = torch.linspace(0, 1, 28).expand(1, 28, 28)
    found = torch.tensor([[0.0, 0, 56, 56]])
    low, high = (areas(crop_masks(grid, found, (60, 60), threshold)) for threshold in (0.2, 0.8))
    assert low > 2 * high
    assert torch.equal(crop_masks(grid[:, None], found, (60, 60), 0.2).pixels.sum(), low[0])


def test_whole_images_become_the_smallest_windows_and_come_back():
    torch.manual_seed(0)
    masks = torch.rand(5, 20, 30) > 0.97
    masks[2] = False
    masks[3] = True
    crops = crop_images(masks)
    assert torch.equal(paste(crops), masks)
    assert crops.windows[2].tolist() == [0, 0, 0, 0]
    assert crops.windows[3].tolist() == [0, 0, 30, 20]
    assert torch.equal(paste(select(crops, torch.tensor([3, 0]))), masks[[3, 0]])
    keep = torch.tensor([True, False, True, False, True])
    assert torch.equal(paste(select(crops, keep)), masks[keep])


def test_no_objects():
    crops = crop_masks(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (10, 12))
    assert len(crops) == 0
    assert paste(crops).shape == (0, 10, 12)
    assert areas(crops).shape == (0,)
    assert len(crop_images(torch.zeros(0, 3, 4, dtype=torch.bool))) == 0


def test_ten_thousand_objects_take_the_memory_of_their_pixels():
    torch.manual_seed(0)
    corner = torch.rand(10_000, 2) * 9900
    crops = crop_masks(torch.ones(10_000, 28, 28), torch.cat([corner, corner + 20], 1), (10_000, 10_000))
    assert crops.pixels.numel() < 10_000 * 25**2  # pasted: a terabyte
    assert int(areas(crops).min()) >= 19**2


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"masks \[2, 28, 28\], boxes \[3, 4\]"):
        crop_masks(torch.zeros(2, 28, 28), torch.zeros(3, 4), (10, 10))
    with pytest.raises(ShapeError, match=r"masks \[2, 3, 28, 28\]"):
        crop_masks(torch.zeros(2, 3, 28, 28), torch.zeros(2, 4), (10, 10))
    with pytest.raises(ConfigError, match=r'rule: "coco"; expected torchvision \| detectron2'):
        crop_masks(torch.zeros(2, 28, 28), torch.zeros(2, 4), (10, 10), rule="coco")
    with pytest.raises(ShapeError, match=r"\[N, H, W\] bool"):
        crop_images(torch.zeros(2, 3, 4))
