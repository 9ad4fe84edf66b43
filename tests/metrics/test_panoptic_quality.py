"""Panoptic quality against panopticapi's numbers and its rules done mask by mask; void, crowds and empty cases."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shared import PARITY, needs_shared
from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.metrics.panoptic import PanopticQuality, SegmentIds
from torchfpn.types import Panoptic, Segment

THINGS, STUFF = ("cat", "dog"), ("grass",)


def segmented(ids, labels, crowds=()):
    """labels: {id: class}."""
    numbers = np.array(list(labels), np.int64)
    kinds = np.array(list(labels.values()), np.int64)
    return SegmentIds(np.asarray(ids), numbers, kinds, np.isin(numbers, list(crowds)))


def quality(*images, boundary=None):
    """The scores of pairs (found, truth)."""
    counted = PanopticQuality(THINGS, STUFF, boundary=boundary)
    for found, truth in images:
        counted.update(found, truth)
    return counted.compute()


def counts(scores):
    """(TP, FP, FN) of each class."""
    return list(zip(scores.tp, scores.fp, scores.fn, strict=True))


def banded(mask, width):
    """The mask without its erosion by 3x3 ones, so many times; the outside is background."""
    inner = mask
    for _ in range(width):
        inner = np.lib.stride_tricks.sliding_window_view(np.pad(inner, 1), (3, 3)).all((2, 3))
    return mask & ~inner


def by_masks(found, truth, classes, ratio=None):
    """The rules of panopticapi, one pair of masks after another: TP, FP, FN and the sum of the IoUs of each class."""
    totals = np.zeros((classes, 4))
    void, matched = truth.ids == 0, set()
    width = None if ratio is None else max(1, round(ratio * math.hypot(*truth.ids.shape)))
    crowd = {}
    for t, label, is_crowd in zip(truth.numbers.tolist(), truth.labels.tolist(), truth.crowds.tolist(), strict=True):
        if is_crowd:
            crowd[label] = truth.ids == t
            continue
        totals[label, 2] += 1
        for p, other in zip(found.numbers.tolist(), found.labels.tolist(), strict=True):
            mine, theirs = truth.ids == t, found.ids == p
            iou = (mine & theirs).sum() / (mine | (theirs & ~void)).sum()
            if ratio is not None:
                mine, theirs = banded(mine, width), banded(theirs, width)
                iou = min(iou, (mine & theirs).sum() / (mine | (theirs & ~void)).sum())
            if label == other and iou > 0.5:
                matched.add(p)
                totals[label] += [1, 0, -1, iou]
    for p, label in zip(found.numbers.tolist(), found.labels.tolist(), strict=True):
        mask = found.ids == p
        nobody = void | crowd.get(label, np.zeros_like(void))
        if p not in matched and (mask & nobody).sum() / mask.sum() <= 0.5:
            totals[label, 1] += 1
    return totals


def blocks(random, ids, first, count):
    for number in range(first, first + count):
        y, x = random.integers(0, ids.shape[0]), random.integers(0, ids.shape[1])
        ids[y : y + random.integers(1, 9), x : x + random.integers(1, 9)] = number
    return ids


def pair(seed, classes=3):
    """A truth with void and crowds, and a prediction that has much of it."""
    random = np.random.default_rng(seed)
    ids = blocks(random, np.zeros(random.integers(1, 14, 2), np.int32), 1, random.integers(0, 7))
    shown = np.roll(ids, random.integers(0, 2), 1)
    shown = blocks(random, shown, 70_000, random.integers(0, 3))
    labels = {n: int(random.integers(classes)) for n in np.unique(ids).tolist() if n}
    own = {
        n: labels[n] if n in labels and random.random() < 0.8 else int(random.integers(classes))
        for n in np.unique(shown).tolist()
        if n
    }
    return segmented(shown, own), segmented(ids, labels, [n for n in labels if random.random() < 0.2])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=4), st.sampled_from([0.02, 0.2]))
def test_equal_to_masks_one_by_one(seeds, ratio):
    images = [pair(seed) for seed in seeds]
    scores = quality(*images, boundary=ratio)
    for got, width in ((scores, None), (scores.boundary, ratio)):
        tp, fp, fn, iou = sum(by_masks(*image, 3, width) for image in images).T
        assert counts(got) == [*zip(tp, fp, fn, strict=True)]
        with np.errstate(invalid="ignore"):
            pq = iou / (tp + fp / 2 + fn / 2)
        np.testing.assert_allclose(got.class_pq, pq, atol=1e-12)
        np.testing.assert_allclose(np.multiply(got.class_sq, got.class_rq), pq, atol=1e-12)
        assert got.all.classes == (tp + fp + fn > 0).sum()
        if got.all.classes:
            assert got.pq == pytest.approx(np.nanmean(pq), abs=1e-12)
    table = np.array(scores.confusion)
    assert table.diagonal()[:3].tolist() == list(scores.tp)
    assert (table.sum(1)[:3] - scores.tp).tolist() == list(scores.fn)
    assert (table.sum(0)[:3] - scores.tp).tolist() == list(scores.fp)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**32), max_size=7), st.integers(1, 3))
def test_the_same_bits_on_any_number_of_processes(seeds, processes):
    alone = PanopticQuality(THINGS, STUFF, boundary=0.02)
    parts = [PanopticQuality(THINGS, STUFF, boundary=0.02) for _ in range(processes)]
    for number, seed in enumerate(seeds):
        alone.update(*pair(seed), number=number)
    for place in range(-(-len(seeds) // processes) * processes):  # samplers repeat images until all have as many
        number = place % len(seeds)
        parts[place % processes].update(*pair(seeds[number]), number=number)
    for other in parts[1:]:
        parts[0].merge(pickle.loads(pickle.dumps(other.state())))
    assert len(parts[0]) == len(seeds)
    assert repr(parts[0].compute()) == repr(alone.compute())  # repr: NaN is not equal to itself
    assert repr(parts[0].images()) == repr(alone.images())


@needs_shared
def test_every_number_of_panopticapi():
    folder = PARITY / "panoptic-quality"
    sides = [json.loads((folder / f"{name}.json").read_text()) for name in ("gt", "pred")]
    expected = json.loads((folder / "expected.json").read_text())
    categories = sorted(sides[0]["categories"], key=lambda one: -one["isthing"])
    names = [[one["name"] for one in categories if one["isthing"] == kind] for kind in (1, 0)]
    places = {one["id"]: k for k, one in enumerate(categories)}
    counted = PanopticQuality(*names)
    for records in zip(*(side["annotations"] for side in sides), strict=True):
        truth, found = (
            segmented(
                np.array(Image.open(folder / name / record["file_name"])) @ [1, 256, 65536],
                {one["id"]: places[one["category_id"]] for one in record["segments_info"]},
                [one["id"] for one in record["segments_info"] if one.get("iscrowd")],
            )
            for name, record in zip(("gt", "pred"), records, strict=True)
        )
        counted.update(found, truth)
    scores = counted.compute()
    for name in ("All", "Things", "Stuff"):
        mine = getattr(scores, name.lower())
        assert mine.classes == expected[name]["n"]
        for key in ("pq", "sq", "rq"):
            assert abs(getattr(mine, key) - expected[name][key]) < 1e-12
    for k, category in enumerate(categories):
        for key, value in expected["per_class"][str(category["id"])].items():
            assert abs(getattr(scores, f"class_{key}")[k] - value) < 1e-12


# -- void, crowds, empty -----------------------------------------------------------------------------------------------
def test_truth_against_itself_is_one():
    truth = segmented([[1, 1, 2, 2, 0]], {1: 0, 2: 2})
    scores = quality((truth, truth), boundary=0.02)
    for got in (scores, scores.boundary):
        assert (got.pq, got.sq, got.rq, got.all.classes) == (1, 1, 1, 2)
        assert (got.things.pq, got.stuff.pq) == (1, 1)
        assert math.isnan(got.class_pq[1])


def test_the_union_has_no_void():
    truth, found = segmented([[1, 1, 0, 0]], {1: 0}), segmented([[7, 7, 7, 7]], {7: 0})
    assert quality((found, truth)).pq == 1


@pytest.mark.parametrize(("void", "false"), [(2, 1), (3, 0)])
def test_what_is_mostly_void_is_not_counted(void, false):
    truth = segmented([[0] * void + [3] * 7], {3: 0})
    found = segmented([[5] * 4 + [0] * (void + 3)], {5: 1})
    assert quality((found, truth)).fp[1] == false


def test_a_crowd_is_neither_missed_nor_false_for_its_class():
    truth = segmented([[1, 1, 1, 2, 2]], {1: 0, 2: 2}, crowds=[1])
    own = segmented([[7, 7, 7, 2, 2]], {7: 0, 2: 2})
    other = segmented([[7, 7, 7, 2, 2]], {7: 1, 2: 2})
    nothing = segmented([[0, 0, 0, 2, 2]], {2: 2})
    assert [counts(quality((found, truth))) for found in (own, other, nothing)] == [
        [(0, 0, 0), (0, 0, 0), (1, 0, 0)],
        [(0, 0, 0), (0, 1, 0), (1, 0, 0)],
        [(0, 0, 0), (0, 0, 0), (1, 0, 0)],
    ]


def test_of_several_crowds_of_a_class_the_last_counts_as_in_panopticapi():
    truth = segmented([[1, 1, 4, 4]], {1: 0, 4: 0}, crowds=[1, 4])
    assert quality((segmented([[7, 7, 0, 0]], {7: 0}), truth)).fp[0] == 1
    assert quality((segmented([[0, 0, 7, 7]], {7: 0}), truth)).fp[0] == 0


def test_one_class_taken_for_another_is_in_the_confusion():
    truth = segmented([[1, 1, 2, 2]], {1: 0, 2: 2})
    found = segmented([[1, 1, 2, 0]], {1: 1, 2: 2})
    scores = quality((found, truth))
    assert scores.confusion == ((0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0))
    assert counts(scores) == [(0, 0, 1), (0, 1, 0), (0, 1, 1)]  # an IoU of exactly 0.5 is no match


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (0, 4), (4, 0)])
def test_nothing_on_either_side_has_no_score(shape):
    void = segmented(np.zeros(shape, np.int32), {})
    scores = quality((void, void), boundary=0.02)
    assert math.isnan(scores.pq)
    assert scores.all.classes == 0
    assert counts(scores) == counts(scores.boundary) == [(0, 0, 0)] * 3
    assert json.loads(json.dumps(scores.to_dict()))["all"] == {"pq": None, "sq": None, "rq": None, "classes": 0}
    assert math.isnan(quality().pq)


def test_nothing_predicted_nothing_true_and_one_pixel():
    something, void = segmented([[1]], {1: 0}), segmented([[0]], {})
    assert counts(quality((void, something))) == [(0, 0, 1), (0, 0, 0), (0, 0, 0)]
    assert counts(quality((something, void))) == [(0, 0, 0)] * 3  # all of it is void
    assert quality((something, something)).pq == 1
    assert quality((void, something)).class_sq[0] == 0


def test_more_segments_than_16_bits_hold():
    ids = np.arange(1, 260**2 + 1).reshape(260, 260)
    truth = segmented(ids, dict.fromkeys(range(1, 260**2 + 1), 0))
    assert quality((truth, truth)).tp == (260**2, 0, 0)


def test_a_result_is_scored_as_it_comes():
    found = Panoptic(torch.tensor([[1, 1, 2]], dtype=torch.int32), [
        Segment(1, 0, True, 0.9, 2, (0, 0, 2, 1)),
        Segment(2, 2, False, 0.5, 1, (2, 0, 3, 1)),
    ])  # fmt: skip
    scores = quality((found, segmented([[8, 8, 9]], {8: 0, 9: 1})))
    assert scores.to_dict("test", [(1, 2, 3)] * 3) == {
        "kind": "panoptic",
        "split": "test",
        "unit": "fraction",
        "images": 1,
        "classes": ["cat", "dog", "grass"],
        "colors": [[1, 2, 3]] * 3,
        "num_things": 2,
        "all": {"pq": 1 / 3, "sq": 1 / 3, "rq": 1 / 3, "classes": 3},
        "things": {"pq": 0.5, "sq": 0.5, "rq": 0.5, "classes": 2},
        "stuff": {"pq": 0.0, "sq": 0.0, "rq": 0.0, "classes": 1},
        "class_pq": [1.0, 0.0, 0.0],
        "class_sq": [1.0, 0.0, 0.0],
        "class_rq": [1.0, 0.0, 0.0],
        "tp": [1, 0, 0],
        "fp": [0, 0, 1],
        "fn": [0, 1, 0],
        "confusion": [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    }


# -- what does not fit -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("found", "message"),
    [
        (segmented([[1, 9]], {1: 0}), "prediction: the id 9 in the map, and of no segment"),
        (segmented([[1, 1]], {1: 0, 5: 0}), "prediction: the id 5 of a segment without a pixel"),
        (segmented([[0, 1]], {1: 0, 0: 0}), "prediction: the id 0 of a segment; expected 0 on void pixels alone"),
        (segmented([[1, 1]], {1: 3}), r"prediction: a segment of class 3; expected 0\.\.2"),
        (
            SegmentIds(np.array([[1, 1]]), np.array([1, 1]), np.array([0, 1]), np.zeros(2, bool)),
            "prediction: the id 1 of two segments",
        ),
    ],
)
def test_ids_and_segments_that_contradict_each_other(found, message):
    good = segmented([[1, 1]], {1: 0})
    with pytest.raises(DataError, match=message):
        quality((found, good))
    with pytest.raises(DataError, match=message.replace("prediction", "truth")):
        quality((good, found))


def test_what_cannot_be_counted():
    one = segmented([[1]], {1: 0})
    with pytest.raises(ShapeError, match=r"ids \[1, 1\]; expected \[H, W\] of the truth, \[1, 2\]"):
        quality((one, segmented([[1, 1]], {1: 0})))
    with pytest.raises(ShapeError, match="1 numbers, 0 labels"):
        quality((one._replace(labels=np.zeros(0, np.int64)), one))
    with pytest.raises(ConfigError, match="no classes"):
        PanopticQuality((), ())
    with pytest.raises(ConfigError, match="boundary"):
        PanopticQuality(THINGS, STUFF, boundary=0.0)
    with pytest.raises(ShapeError, match="expected things, stuff and boundary of"):
        PanopticQuality(THINGS, STUFF).merge(PanopticQuality(THINGS, ()).state())
