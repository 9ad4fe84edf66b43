"""Which detections are objects: by hand, and against the evaluator's own counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_detections import BOX, NAMES, OTHER, coco_files, found, random_pair, truth
from torchfpn.metrics.detection import AveragePrecision, Counts, ImageMatches, best_threshold

coco_eval = pytest.importorskip("faster_coco_eval", reason="the evaluator is not installed")


def matched(one, other, *, masks=False):
    scores = AveragePrecision(NAMES, masks=masks)
    scores.update(one, other)
    return scores.matches()[0]


@pytest.mark.parametrize("masks", [False, True])
def test_counts_by_hand(masks):
    """The object is taken by the surer of two; the third meets nothing; the fourth has another class."""
    near, nothing = [11, 10, 31, 30], [70, 10, 80, 20]
    guesses = found([near, BOX, nothing, OTHER], [0.9, 0.8, 0.7, 0.6], [0, 0, 0, 1], masks=masks)
    each = matched(guesses, truth([BOX, OTHER], masks=masks), masks=masks)
    assert each.hits.tolist() == [True, False, False, False]
    assert each.counts(0.0) == Counts(1, 1, 3)
    assert each.counts(0.65) == Counts(1, 1, 2)
    assert each.counts(0.95) == Counts(0, 2, 0)
    assert each.counts(0.0).f1 == pytest.approx(2 / 6)


def test_what_lies_in_a_crowd_counts_as_nothing():
    each = matched(found([[52, 52, 60, 60], BOX], [0.9, 0.8]), truth([BOX], crowds=[OTHER]))
    assert each.counts(0) == Counts(1, 0, 0)


def test_an_image_without_objects_and_detections_is_right():
    assert matched(found([], []), truth([])).counts(0).f1 is None  # nothing to score
    assert matched(found([BOX], [0.9]), truth([])).counts(0) == Counts(0, 0, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_as_many_are_found_as_the_evaluator_finds(seed, masks):
    """Oracle: recall at IoU .50 times the objects."""
    one, other, crowd_labels = random_pair(np.random.default_rng(seed), masks=masks)
    scores = AveragePrecision(NAMES, masks=masks)
    scores.update(one, other, crowd_labels=crowd_labels)
    hits = scores.matches()[0].counts(-1.0).matched
    sides = [coco_eval.COCO(file) for file in coco_files([(one, other, crowd_labels)], masks=masks)]
    run = coco_eval.COCOeval_faster(*sides, "segm" if masks else "bbox")
    run.params.iouThrs = np.array([0.5])
    run.evaluate()
    recall = run.eval["recall"][0, :, 0, -1]
    objects = np.bincount(other.labels.numpy(), minlength=3)
    assert hits == round(float((recall * objects)[recall >= 0].sum()))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12), st.integers(0, 5))
def test_no_other_threshold_is_better(rows, more):
    rows = sorted(rows, reverse=True)
    scores, hits = np.array([s / 10 for s, _ in rows]), np.array([hit for _, hit in rows], bool)
    image = ImageMatches(scores, hits, int(hits.sum()) + more)
    chosen = best_threshold([image])
    best = image.counts(chosen).f1
    assert 0 <= chosen <= 1
    for other in np.arange(0, 1.05, 0.05):
        assert not hits.any() or image.counts(other).f1 <= best + 1e-12
