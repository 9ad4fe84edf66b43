"""Merging things and stuff: equal to detectron2 and to panopticapi's script, and every empty case."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import PARITY, needs_shared
from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.ops.masks import Instances, crop_images, no_instances
from torchfpn.ops.panoptic import merge_segments
from torchfpn.recipe import IGNORE
from torchfpn.types import Segment


def instances(masks, scores, labels=None):
    """N things with whole masks [N, H, W]; their boxes are not looked at."""
    masks = torch.as_tensor(np.asarray(masks, bool))
    labels = torch.zeros(len(masks), dtype=torch.int64) if labels is None else torch.as_tensor(labels)
    crops = crop_images(masks)
    return Instances(crops.windows.float(), torch.as_tensor(scores), labels, crops.size, crops)


def painted_pixels(masks, scores, semantic, *, score, overlap, stuff_area):
    """detectron2's rule: a mask is compared with the pixels painted so far. Ids, and (class, isthing) of each."""
    ids, found = np.zeros(semantic.shape, int), []
    for k in np.argsort(-scores, kind="stable"):
        taken = masks[k] & (ids > 0)
        if scores[k] < score or not masks[k].any() or taken.sum() / masks[k].sum() > overlap:
            continue
        found.append((int(k), True))
        ids[masks[k] & (ids == 0)] = len(found)
    return stuff(ids, found, semantic, stuff_area)


def union_of_masks(masks, scores, semantic, *, score, overlap, stuff_area):
    """panopticapi's rule: a mask is compared with the union of the whole masks kept so far."""
    ids, found, used = np.zeros(semantic.shape, int), [], np.zeros(semantic.shape, bool)
    for k in np.argsort(-scores, kind="stable"):
        if scores[k] < score or not masks[k].any() or (masks[k] & used).sum() / masks[k].sum() > overlap:
            continue
        used |= masks[k]
        found.append((int(k), True))
        ids[masks[k] & (ids == 0)] = len(found)
    return stuff(ids, found, semantic, stuff_area)


def stuff(ids, found, semantic, stuff_area):
    for label in np.unique(semantic):
        left = (semantic == label) & (ids == 0)
        if label and left.sum() >= stuff_area:
            found.append((int(label), False))
            ids[left] = len(found)
    return ids, found


@st.composite
def scenes(draw):
    """Masks, scores with many equal ones, and a semantic map whose class 0 is things."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    size, count = draw(st.tuples(st.integers(1, 9), st.integers(1, 9))), draw(st.integers(0, 7))
    masks = random.random((count, *size)) < draw(st.sampled_from([0.1, 0.4, 0.8]))
    return masks, random.choice([0.25, 0.5, 0.75, 1.0], count), random.integers(0, 4, size)


@settings(max_examples=150, deadline=None)
@given(scenes(), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.sampled_from([0.0, 0.5, 0.8]), st.integers(1, 9))
def test_both_rules_are_one_and_ours(scene, overlap, score, stuff_area):
    masks, scores, semantic = scene
    rules = {"score": score, "overlap": overlap, "stuff_area": stuff_area}
    ids, found = painted_pixels(masks, scores, semantic, **rules)
    other_ids, other_found = union_of_masks(masks, scores, semantic, **rules)
    np.testing.assert_array_equal(ids, other_ids)
    assert found == other_found
    merged = merge_segments(instances(masks, scores), torch.from_numpy(semantic), things=1, **rules)
    np.testing.assert_array_equal(merged.segments.numpy(), ids)
    assert [(s.id, s.isthing) for s in merged.segments_info] == [(i + 1, one[1]) for i, one in enumerate(found)]
    assert [s.score for s in merged.segments_info if s.isthing] == [scores[k] for k, thing in found if thing]
    assert [s.label for s in merged.segments_info if not s.isthing] == [k for k, thing in found if not thing]


@settings(max_examples=60, deadline=None)
@given(scenes(), st.data())
def test_segments_are_told_as_they_are_and_numbering_of_classes_does_not_matter(scene, data):
    masks, scores, semantic = scene
    things = data.draw(st.integers(1, 3))
    holes = np.random.default_rng(0).random(semantic.shape) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    shown = torch.from_numpy(np.where(holes, IGNORE, semantic))
    chances = torch.rand(shown.shape)
    found = instances(masks, scores, np.arange(len(masks)) % things)
    merged = merge_segments(found, shown, chances, things=things, stuff_area=2, score=0.5)
    ids = merged.segments.numpy()
    assert merged.segments.dtype == torch.int32
    assert not ids[holes].any()
    assert [s.id for s in merged.segments_info] == sorted({*ids.ravel().tolist()} - {0})
    for segment in merged.segments_info:
        ys, xs = np.nonzero(ids == segment.id)
        assert segment.area == len(ys)
        assert segment.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert segment.isthing == (segment.label < things)
        if not segment.isthing:
            assert (shown.numpy()[ys, xs] == segment.label - things + 1).all()
            assert segment.score == pytest.approx(chances.numpy()[ys, xs].mean(), abs=1e-6)
    every = torch.from_numpy(np.where(holes, IGNORE, np.where(semantic > 0, semantic + things - 1, things - 1)))
    again = merge_segments(found, every, chances, things=things, semantic_classes="all", stuff_area=2, score=0.5)
    assert torch.equal(again.segments, merged.segments)
    assert again.segments_info == merged.segments_info


@needs_shared
def test_equal_to_detectron2():
    stored = np.load(PARITY / "detectron2" / "merge.npz")
    shape = tuple(stored["masks_shape"])
    masks = np.unpackbits(stored["masks"], count=int(np.prod(shape))).reshape(shape)
    found = instances(masks, stored["scores"], stored["classes"])
    things = int(stored["classes"].max()) + 1
    names = [name for name in stored.files if name.startswith("panoptic_")]
    assert len(names) == 2
    for name in names:
        rules = re.fullmatch(r"panoptic_ov(.+)_area(.+)_conf(.+)", name).groups()
        overlap, stuff_area, score = (float(rule) for rule in rules)
        merged = merge_segments(
            found,
            torch.from_numpy(stored["semantic"]),
            things=things,
            score=score,
            overlap=overlap,
            stuff_area=stuff_area,
        )
        np.testing.assert_array_equal(merged.segments.numpy(), stored[name])
        expected = json.loads(str(stored[name.replace("panoptic", "info")]))
        assert len(merged.segments_info) == len(expected)
        for mine, theirs in zip(merged.segments_info, expected, strict=True):
            assert (mine.id, mine.isthing) == (theirs["id"], theirs["isthing"])
            if mine.isthing:
                assert (mine.label, mine.score) == (theirs["category_id"], theirs["score"])
                assert mine.score == float(stored["scores"][theirs["instance_id"]])
            else:  # 0 is "things" there
                assert (mine.label - things + 1, mine.area) == (theirs["category_id"], theirs["area"])


# -- the empty cases ---------------------------------------------------------------------------------------------------
def test_no_things():
    labels = torch.tensor([[0, 1, 1], [0, 2, 2]])
    merged = merge_segments(no_instances((2, 3), masks=True), labels, things=5, stuff_area=1)
    assert merged.segments.tolist() == [[0, 1, 1], [0, 2, 2]]
    assert merged.segments_info == [
        Segment(1, 5, False, 1.0, 2, (1, 0, 3, 1)),
        Segment(2, 6, False, 1.0, 2, (1, 1, 3, 2)),
    ]


def test_no_stuff():
    found = instances([[[1, 1, 0]], [[0, 1, 1]]], [0.6, 0.9], [1, 0])
    merged = merge_segments(found, torch.zeros(1, 3, dtype=torch.int64), things=2)
    assert merged.segments.tolist() == [[2, 1, 1]]  # half of the second one is free: the share is not above 0.5
    assert [(s.id, s.label, s.area) for s in merged.segments_info] == [(1, 0, 2), (2, 1, 1)]


def test_nothing_at_all_everything_void_and_no_pixel():
    for labels in (torch.zeros(3, 4, dtype=torch.uint8), torch.full((3, 4), IGNORE), torch.ones(3, 4).long()):
        merged = merge_segments(no_instances((3, 4), masks=True), labels, things=1)
        assert merged.segments.tolist() == [[0] * 4] * 3
        assert merged.segments_info == []
    for size in ((0, 5), (5, 0), (0, 0)):
        labels = torch.zeros(size, dtype=torch.int64)
        merged = merge_segments(no_instances(size, masks=True), labels, labels.float(), things=1)
        assert merged.segments.shape == size
        assert merged.segments_info == []


def test_one_pixel():
    for label, expected in ((0, []), (1, [Segment(1, 3, False, 0.25, 1, (0, 0, 1, 1))]), (IGNORE, [])):
        shown = torch.tensor([[label]])
        found = merge_segments(no_instances((1, 1), masks=True), shown, torch.tensor([[0.25]]), things=3, stuff_area=0)
        assert found.segments_info == expected
    merged = merge_segments(instances([[[1]]], [0.5]), torch.tensor([[1]]), things=1)
    assert merged.segments_info == [Segment(1, 0, True, 0.5, 1, (0, 0, 1, 1))]


def test_masks_lose_pixels_without_data_before_they_are_compared():
    found = instances([[[1, 1, 1, 1, 0, 0]], [[0, 0, 0, 1, 1, 1]]], [0.9, 0.8])
    merged = merge_segments(found, torch.tensor([[0, 0, 0, 0, IGNORE, IGNORE]]), things=1)
    assert merged.segments.tolist() == [[1, 1, 1, 1, 0, 0]]  # the second one has a single pixel, and that is taken
    assert len(merged.segments_info) == 1


def test_equal_scores_are_taken_in_their_order():
    masks = np.ones((3, 1, 4), bool)
    masks[0, 0, 3] = False
    found = instances(masks, [0.7, 0.7, 0.7], [2, 1, 0])
    merged = merge_segments(found, torch.zeros(1, 4).long(), things=3, overlap=0.75)
    assert merged.segments.tolist() == [[1, 1, 1, 2]]
    assert [s.label for s in merged.segments_info] == [2, 1]


def test_more_segments_than_16_bits_hold():
    side = 260
    count = side * side
    window = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"), -1).reshape(-1, 2)
    found = no_instances((side, side), masks=True)
    crops = type(found.crops)(torch.cat([window, window + 1], 1), torch.ones(count, dtype=torch.bool), (side, side))
    found = Instances(crops.windows.float(), torch.ones(count), torch.zeros(count).long(), (side, side), crops)
    merged = merge_segments(found, torch.zeros(side, side).long(), things=1)
    assert torch.equal(merged.segments.flatten(), torch.arange(1, count + 1, dtype=torch.int32))
    assert len(merged.segments_info) == count > 65_535


# -- what does not fit -------------------------------------------------------------------------------------------------
def test_what_does_not_fit_is_refused():
    found, labels = instances([[[1, 0]]], [0.9], [1]), torch.tensor([[0, 1]])
    with pytest.raises(DataError, match="an instance of class 1; expected one of the 1 things"):
        merge_segments(found, labels, things=1)
    with pytest.raises(DataError, match="pixels of class -1"):
        merge_segments(found, labels - 1, things=2)
    with pytest.raises(DataError, match="pixels of class 256"):
        merge_segments(found, labels * 256, things=2)
    with pytest.raises(ShapeError, match=r"labels \[2, 2\]"):
        merge_segments(found, labels.repeat(2, 1), things=2)
    with pytest.raises(ShapeError, match=r"labels \[1, 2\] torch.float32"):
        merge_segments(found, labels.float(), things=2)
    with pytest.raises(ShapeError, match=r"scores \[1, 1\]"):
        merge_segments(found, labels, torch.ones(1, 1), things=2)
    with pytest.raises(ShapeError, match="instances without masks"):
        merge_segments(no_instances((1, 2), masks=False), labels, things=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("score", -0.1), ("overlap", 1.5), ("stuff_area", -1), ("stuff_area", float("nan")), ("things", -1)],
)
def test_thresholds_out_of_their_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        merge_segments(no_instances((1, 1), masks=True), torch.zeros(1, 1).long(), **{"things": 1, name: value})
    with pytest.raises(ConfigError, match=r"stuff \| all"):
        merge_segments(no_instances((1, 1), masks=True), torch.zeros(1, 1).long(), things=1, semantic_classes="none")
