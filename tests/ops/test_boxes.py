"""Boxes, anchors, matching and suppression: laws, and torchvision's answers."""

import pytest
import torch
import torchvision.ops
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection import _utils
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.poolers import LevelMapper

from torchfpn.ops.boxes import (
    BACKGROUND,
    area,
    clip,
    decode,
    encode,
    match,
    nms,
    overlaps,
    roi_levels,
    sample,
    shapes,
    spread,
    strides_of,
)


def draw(seed, n, extent=100.0, batch=()):
    """Boxes [*batch, n, 4] of at least a pixel."""
    corner = torch.rand(*batch, n, 2, generator=torch.Generator().manual_seed(seed)) * extent
    size = torch.rand(*batch, n, 2, generator=torch.Generator().manual_seed(seed + 1)) * extent / 2 + 1
    return torch.cat([corner, corner + size], -1)


seeds = st.integers(0, 2**20)


@settings(deadline=None, max_examples=50)
@given(seeds, st.integers(0, 20), st.integers(0, 20))
def test_overlaps_are_torchvisions_symmetric_and_between_0_and_1(seed, n, m):
    some, others = draw(seed, n), draw(seed + 7, m)
    found = overlaps(some, others)
    torch.testing.assert_close(found, torchvision.ops.box_iou(some, others))
    torch.testing.assert_close(found, overlaps(others, some).T)
    assert ((found >= 0) & (found <= 1)).all()
    torch.testing.assert_close(overlaps(some, some).diagonal(), torch.ones(n))


def test_an_empty_box_overlaps_nothing():
    empty = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert overlaps(empty, empty).item() == 0
    assert area(empty).item() == 0


@settings(deadline=None, max_examples=50)
@given(seeds, st.integers(1, 30))
def test_codes_are_torchvisions_and_go_there_and_back(seed, n):
    boxes, targets, weights = draw(seed, n), draw(seed + 7, n), (10.0, 10.0, 5.0, 5.0)
    coder = _utils.BoxCoder(weights)
    codes = encode(targets, boxes, weights)
    torch.testing.assert_close(codes, coder.encode_single(targets, boxes))
    torch.testing.assert_close(decode(codes, boxes, weights), targets, atol=1e-3, rtol=1e-4)
    wild = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) * 30
    torch.testing.assert_close(decode(wild, boxes, weights), coder.decode_single(wild, boxes))


def test_clipping_keeps_every_box_in_its_own_image():
    boxes = draw(0, 50, extent=200, batch=(2,)) - 40
    found = clip(boxes, torch.tensor([[60, 90], [100, 30]]))
    for image, size in enumerate([(60, 90), (100, 30)]):
        assert torch.equal(found[image], torchvision.ops.clip_boxes_to_image(boxes[image], size))


@pytest.mark.parametrize("frame", [(96, 128), (800, 1088), (32, 32), (64, 96)])
def test_anchors_are_torchvisions(frame):
    sizes, ratios = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)
    strides = (4, 8, 16, 32, 64)
    maps = [torch.zeros(1, 1, -(-frame[0] // s), -(-frame[1] // s)) for s in strides]
    theirs = AnchorGenerator(tuple((s,) for s in sizes), (ratios,) * 5)(
        ImageList(torch.zeros(1, 3, *frame), [frame]), maps
    )
    ours = [
        spread(shapes([size], ratios, rounded=True), grid, strides_of(grid, frame, stride, "measured"))
        for size, stride, grid in zip(sizes, strides, [tuple(m.shape[-2:]) for m in maps], strict=True)
    ]
    assert torch.equal(torch.cat(ours), theirs[0])


def test_strides_differ_where_a_map_was_rounded_up():
    assert strides_of((2, 2), (96, 128), 64, "measured") == (48, 64)
    assert strides_of((2, 2), (96, 128), 64, "declared") == (64, 64)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 60), st.integers(1, 8), st.booleans())
def test_matches_are_torchvisions(seed, n, m, always):
    boxes, targets = draw(seed, n), draw(seed + 7, m)
    table = torchvision.ops.box_iou(targets, boxes)
    found = match(boxes, targets, high=0.5, low=0.3, always=always)
    theirs = _utils.Matcher(0.5, 0.3, allow_low_quality_matches=always)(table)
    met = table.max(1).values.min() > 0
    if met or not always:
        assert torch.equal(found, theirs)


def test_a_target_that_meets_no_box_matches_none_and_without_targets_all_is_background():
    boxes = draw(0, 10)
    far = torch.tensor([[1000.0, 1000.0, 1010.0, 1010.0]])
    for targets in (far, far[:0]):
        assert (match(boxes, targets, high=0.7, low=0.3, always=True) == BACKGROUND).all()


@settings(deadline=None, max_examples=50)
@given(seeds, st.integers(0, 80), st.integers(1, 40), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_a_sample_has_what_was_asked_for_as_far_as_there_is(seed, n, count, share):
    draws = torch.Generator().manual_seed(seed)
    matches = torch.randint(-2, 5, (n,), generator=draws)
    positive, negative = sample(matches, count, share, draws)
    assert (matches[positive] >= 0).all()
    assert (matches[negative] == BACKGROUND).all()
    assert len(positive.unique()) == len(positive) == min(int((matches >= 0).sum()), int(count * share))
    assert len(negative.unique()) == len(negative) == min(int((matches == BACKGROUND).sum()), count - len(positive))


@settings(deadline=None, max_examples=50)
@given(seeds, st.integers(0, 60), st.integers(1, 70), st.integers(1, 4), st.sampled_from([0.3, 0.5, 0.7]))
def test_suppression_is_torchvisions_image_by_image(seed, n, keep, groups, iou):
    draws = torch.Generator().manual_seed(seed)
    boxes, scores = draw(seed, n, batch=(2,)), torch.rand(2, n, generator=draws)
    which = torch.randint(0, groups, (2, n), generator=draws)
    valid = torch.rand(2, n, generator=draws) > 0.2
    index, count, lost = nms(boxes, scores, which, valid, iou=iou, keep=keep)
    assert index.shape == (2, keep)
    for image in range(2):
        there = valid[image].nonzero()[:, 0]
        theirs = there[torchvision.ops.batched_nms(boxes[image][there], scores[image][there], which[image][there], iou)]
        assert torch.equal(index[image, : count[image]], theirs[:keep])
        assert int(count[image] + lost[image]) == len(theirs)
        assert (index[image, count[image] :] == 0).all()


def test_suppression_is_one_operation_for_compilers():
    args = (draw(0, 12, batch=(2,)), torch.rand(2, 12), torch.zeros(2, 12, dtype=torch.int64), torch.ones(2, 12) > 0)
    torch.library.opcheck(torch.ops.torchfpn.nms.default, (*args, 0.5, 5))
    compiled = torch.compile(lambda *a: nms(*a, iou=0.5, keep=5), fullgraph=True, backend="eager")
    for found, expected in zip(compiled(*args), nms(*args, iou=0.5, keep=5), strict=True):
        assert torch.equal(found, expected)


@settings(deadline=None, max_examples=50)
@given(seeds, st.integers(1, 40))
def test_levels_are_torchvisions(seed, n):
    boxes = draw(seed, n, extent=900)
    theirs = LevelMapper(2, 5)([boxes])
    assert torch.equal(roi_levels(boxes, first=2, last=5), theirs)


def test_boxes_of_no_size_and_of_exactly_224_have_a_level():
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 224.0, 224.0], [0.0, 0.0, 1e6, 1e6]])
    for inside in (True, False):
        assert roi_levels(boxes, first=2, last=5, inside=inside).tolist() == [0, 2, 3]
