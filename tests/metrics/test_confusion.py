"""The confusion matrix and its scores, against plain counting and torchmetrics."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassJaccardIndex

from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.metrics import confusion as module
from torchfpn.metrics.confusion import ConfusionMatrix

TYPES = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


def maps(seed, classes, size=(13, 17), ignored=0.2):
    random = np.random.default_rng(seed)
    present = random.choice(classes, size=max(1, classes - 1), replace=False)  # most often one class is missing
    targets = random.choice(present, size)
    labels = np.where(random.random(size) < 0.4, random.choice(present, size), targets)
    return labels, np.where(random.random(size) < ignored, 255, targets)


def plain(labels, targets, classes):
    """Pixel by pixel, Python integers."""
    counts = [[0] * classes for _ in range(classes)]
    for p, t in zip(labels.flat, targets.flat, strict=True):
        if t != 255:
            counts[t][p] += 1
    return counts


def filled(rows):
    return ConfusionMatrix.from_dict({"confusion": rows})


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 12), dtypes=st.tuples(*[st.sampled_from(TYPES)] * 2))
def test_counts_as_a_loop_does_for_every_integer_type(seed, classes, dtypes):
    labels, targets = maps(seed, classes)
    if dtypes[1] == np.int8:
        targets = np.where(targets == 255, 0, targets)
    matrix = ConfusionMatrix(classes)
    matrix.update(labels.astype(dtypes[0]), targets.astype(dtypes[1]))
    assert matrix.matrix.tolist() == plain(labels, targets, classes)
    assert matrix.matrix.dtype == torch.int64


def reference(counts):
    """IoU, precision, recall, F1 of each class by their definitions, None where nothing is to be scored."""
    size = range(len(counts))
    scores = []
    for k in size:
        hit, truth, said = counts[k][k], sum(counts[k]), sum(counts[t][k] for t in size)
        scores.append(
            (
                hit / (truth + said - hit) if truth + said else None,
                hit / said if said else None,
                hit / truth if truth else None,
                2 * hit / (truth + said) if truth + said else None,
            )
        )
    return scores


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 8))
def test_scores_follow_their_definitions(seed, classes):
    counts = plain(*maps(seed, classes), classes)
    matrix = filled(counts)
    ours = zip(matrix.iou(), matrix.precision(), matrix.recall(), matrix.f1(), strict=True)
    for row, expected in zip(ours, reference(counts), strict=True):
        for value, wanted in zip(row, expected, strict=True):
            assert math.isnan(value) if wanted is None else value.item() == wanted
    total = sum(map(sum, counts))
    assert matrix.pixel_accuracy() == sum(counts[k][k] for k in range(classes)) / total
    known = [iou for iou, *_ in reference(counts) if iou is not None]
    assert matrix.miou() == pytest.approx(sum(known) / len(known), rel=1e-14)
    weighted = sum(sum(counts[k]) / total * (reference(counts)[k][0] or 0) for k in range(classes))
    assert matrix.frequency_weighted_iou() == pytest.approx(weighted, rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(3, 12))
def test_miou_equals_torchmetrics(seed, classes):
    labels, targets = (torch.from_numpy(m) for m in maps(seed, classes))
    labels = labels.where(targets != 255, 0)
    oracle = MulticlassJaccardIndex(classes, ignore_index=255, average="none")
    mean = MulticlassJaccardIndex(classes, ignore_index=255, average="macro")
    matrix = ConfusionMatrix(classes)
    matrix.update(labels, targets)
    torch.testing.assert_close(matrix.iou().nan_to_num(0).float(), oracle(labels, targets))
    assert matrix.miou() == pytest.approx(mean(labels, targets).item(), rel=1e-6)


def test_a_class_in_neither_map_has_no_score_and_no_weight():
    matrix = filled([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert matrix.iou().tolist()[:2] == [3 / 4, 4 / 5]
    assert matrix.iou()[2].isnan()
    assert matrix.miou() == (3 / 4 + 4 / 5) / 2
    assert filled([[3, 0], [0, 0]]).miou() == 1.0


def test_a_class_only_predicted_or_only_missed_scores_zero():
    assert filled([[3, 1], [0, 0]]).iou().tolist() == [0.75, 0.0]
    assert filled([[3, 0], [2, 0]]).iou().tolist() == [0.6, 0.0]


def test_nothing_labelled_has_no_score():
    matrix = ConfusionMatrix(3)
    matrix.update(torch.zeros(4, 4, dtype=torch.long), torch.full((4, 4), 255))
    matrix.update(np.zeros((0, 4), int), np.zeros((0, 4), int))
    assert matrix.matrix.sum() == 0
    for score in (matrix.miou(), matrix.pixel_accuracy(), matrix.frequency_weighted_iou()):
        assert math.isnan(score)


def test_counts_beyond_32_bits_and_53_bits_stay_exact():
    many = 2**54 + 1
    matrix = filled([[many, 0], [0, 1]])
    matrix.update(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert matrix.to_dict() == {"confusion": [[many + 4, 0], [0, 1]]}
    total = matrix + filled([[2**40, 5], [0, 0]])
    assert total.matrix.tolist() == [[many + 4 + 2**40, 5], [0, 1]]
    assert matrix.matrix.tolist()[0][1] == 0  # a sum changes neither side


@settings(max_examples=8, deadline=None)
@given(seeds=st.lists(st.integers(0, 10**6), min_size=2, max_size=4))
def test_parts_add_up_to_the_whole_in_any_order_and_any_chunk(seeds):
    parts, whole, backwards = [], ConfusionMatrix(5), ConfusionMatrix(5)
    chunk = module.CHUNK
    try:
        module.CHUNK = 150
        for seed in seeds:
            part = ConfusionMatrix(5)
            part.update(*maps(seed, 5))
            parts.append(part)
    finally:
        module.CHUNK = chunk
    labels, targets = (np.stack(both) for both in zip(*(maps(seed, 5) for seed in seeds), strict=True))
    whole.update(labels, targets)
    for part in reversed(parts):
        backwards.merge(part)
    assert torch.equal(backwards.matrix, whole.matrix)


def test_survives_json():
    matrix = ConfusionMatrix(4)
    matrix.update(*maps(1, 4))
    back = ConfusionMatrix.from_dict(json.loads(json.dumps({"classes": ["a"], **matrix.to_dict()})))
    assert torch.equal(back.matrix, matrix.matrix)


@pytest.mark.parametrize("rows", [None, [], [[1, 2]], [[1, 2], [3]], [[1.5]], [[-1]], [["1"]], [[True]], [[2**63]], 7])
def test_what_is_no_matrix_is_refused(rows):
    with pytest.raises(DataError, match="confusion: no confusion matrix; expected a square of whole numbers"):
        filled(rows)


@pytest.mark.parametrize("value", [-1, 4, 254, 256, 259])
def test_a_target_that_is_no_class_is_named_and_nothing_is_counted(value):
    matrix = ConfusionMatrix(4)
    labels, targets = maps(2, 4)
    targets[3, 4:6] = value
    with pytest.raises(DataError, match=rf"target {value} in 2 pixels; expected classes 0\.\.3"):
        matrix.update(labels, targets)
    assert matrix.matrix.sum() == 0


@pytest.mark.parametrize("value", [-1, 4, 255, 256, 259])
def test_a_label_that_is_no_class_is_named_where_it_counts_and_passed_over_where_not(value):
    matrix = ConfusionMatrix(4)
    labels, targets = maps(3, 4)
    targets[:2], labels[0] = 255, value
    matrix.update(labels, targets)
    assert matrix.matrix.tolist() == plain(labels, targets, 4)
    labels[5, 5], targets[5, 5] = value, 0
    with pytest.raises(DataError, match=rf"label {value} in 1 pixel"):
        matrix.update(labels, targets)


def test_maps_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match=r"labels \[2, 3\] and targets \[3, 2\]"):
        ConfusionMatrix(2).update(np.zeros((2, 3), int), np.zeros((3, 2), int))
    with pytest.raises(ShapeError, match=r"labels of torch\.float32; expected integers"):
        ConfusionMatrix(2).update(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(ShapeError, match="a confusion matrix of 3 classes"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))


@pytest.mark.parametrize("classes", [0, -1, 256])
def test_numbers_of_classes_that_cannot_be(classes):
    with pytest.raises(ConfigError, match="num_classes"):
        ConfusionMatrix(classes)


def test_255_classes_are_told_from_ignore():
    values = np.arange(256, dtype=np.uint8)
    matrix = ConfusionMatrix(255)
    matrix.update(values, values)
    assert torch.equal(matrix.matrix, torch.eye(255, dtype=torch.int64))
