"""AP and AR: against the evaluator itself on COCO files written by hand, tiny cases worked by hand, and laws."""

import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from made_detections import BOX, NAMES, OTHER, SIZE, boxes_of, coco_files, found, random_pair, truth
from torchfpn.errors import ConfigError, DataError, ShapeError
from torchfpn.metrics.detection import AveragePrecision
from torchfpn.ops.masks import Instances, areas, crop_images
from torchfpn.types import Objects

coco_eval = pytest.importorskip("faster_coco_eval", reason="the evaluator is not installed")

STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")


def score(pairs, *, masks=False, names=NAMES[:1], **more):
    scores = AveragePrecision(names, masks=masks, **more)
    for one, other in pairs:
        scores.update(one, other)
    return scores.compute()


# -- the evaluator on files of its own format --------------------------------------------------------------------------
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_twelve_numbers_are_those_of_the_evaluator(seed, masks):
    rng = np.random.default_rng(seed)
    pairs = [random_pair(rng, masks=masks) for _ in range(12)]
    scores = AveragePrecision(NAMES, masks=masks)
    for one, other, crowd_labels in pairs:
        scores.update(one, other, crowd_labels=crowd_labels)
    ours = scores.compute()
    for kind, each in (("bbox", ours.boxes), ("segm", ours.masks)):
        if each is None:
            continue
        known, results = (coco_eval.COCO(value) for value in coco_files(pairs, masks=masks))
        run = coco_eval.COCOeval_faster(known, results, kind)
        run.run()
        theirs = [np.nan if value == -1 else value for value in run.stats[:9]]
        assert [getattr(each, name) for name in STATS] == pytest.approx(theirs, abs=1e-12, nan_ok=True)
        for k in range(3):
            table = run.eval["precision"][:, :, k, 0, -1]
            assert each.class_ap[k] == pytest.approx(table.mean(), abs=1e-12)
            assert each.curve75[k] == tuple(run.eval["precision"][5, :, k, 0, -1])
    assert 0.05 < ours.boxes.ap < 0.95


# -- by hand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [False, True])
def test_all_found_is_one(masks):
    pair = found([BOX, OTHER], [0.9, 0.4], masks=masks), truth([BOX, OTHER], masks=masks)
    scores = score([pair], masks=masks)
    each = scores.best_known
    assert (each.ap, each.ap50, each.ap75, each.ar10, each.ap_small) == (1, 1, 1, 1, 1)
    assert each.ar1 == 0.5
    assert np.isnan(each.ap_large)
    assert each.objects == (2,)
    assert each.curve50 == ((1.0,) * 101,)
    assert (scores.masks is not None) == masks


def test_nothing_found_is_zero():
    scores = score([(found([], []), truth([BOX]))])
    assert (scores.ap, scores.ap50, scores.boxes.ar100) == (0, 0, 0)


def test_without_any_object_there_is_no_score():
    scores = score([(found([BOX], [0.9]), truth([]))])
    assert np.isnan([scores.ap, scores.ap50, scores.boxes.ar100]).all()
    assert scores.boxes.objects == (0,)
    plain = scores.to_dict()
    assert plain["boxes"]["ap"] is None
    assert plain["boxes"]["class_ap"] == plain["boxes"]["curve50"] == [None]


def test_without_any_image_there_is_no_score():
    scores = score([])
    assert scores.images == 0
    assert np.isnan(scores.ap)


def test_a_class_without_objects_is_left_out_of_the_mean():
    scores = score([(found([BOX, OTHER], [0.9, 0.8], [0, 1]), truth([BOX]))], names=NAMES[:2])
    assert scores.ap == 1
    assert np.isnan(scores.boxes.class_ap[1])


def test_a_false_detection_in_an_image_without_objects_lowers_ap():
    """The false one is the surer: precision is 1/2 at every recall."""
    scores = score([(found([BOX], [0.6]), truth([BOX])), (found([BOX], [0.9]), truth([]))])
    assert scores.ap == pytest.approx(0.5)
    assert scores.boxes.ar100 == 1


def test_an_overlap_of_two_thirds_counts_up_to_65():
    """20 x 20 against 20 x 30: IoU 2/3, found at the thresholds .50, .55, .60, .65 of ten."""
    scores = score([(found([[10, 10, 30, 40]], [0.9]), truth([BOX]))])
    assert scores.ap == pytest.approx(0.4)
    assert (scores.boxes.ap50, scores.boxes.ap75) == (1, 0)


def test_one_of_two_found_is_51_of_101_recalls():
    scores = score([(found([BOX], [0.9]), truth([BOX, OTHER]))])
    assert scores.ap == pytest.approx(51 / 101)
    assert scores.boxes.ar100 == 0.5


@pytest.mark.parametrize("masks", [False, True])
def test_what_lies_in_a_crowd_is_no_error(masks):
    inside = [52, 52, 60, 60]
    detections = found([BOX, inside], [0.5, 0.9], masks=masks)
    assert score([(detections, truth([BOX], masks=masks))], masks=masks).ap == pytest.approx(0.5)
    assert score([(detections, truth([BOX], masks=masks, crowds=[OTHER]))], masks=masks).ap == 1


def test_a_crowd_is_of_its_class_where_that_is_known():
    detections, objects = found([BOX, OTHER], [0.5, 0.9]), truth([BOX], crowds=[OTHER])
    for label, ap in ((0, 1.0), (1, 0.5)):
        scores = AveragePrecision(NAMES[:2])
        scores.update(detections, objects, crowd_labels=[label])
        assert scores.compute().boxes.class_ap[0] == pytest.approx(ap)
    assert np.isnan(scores.compute().boxes.class_ap[1])


def test_the_area_of_the_file_decides_what_is_small():
    scores = AveragePrecision(NAMES[:1])
    scores.update(found([BOX], [0.9]), truth([BOX]), areas=[5000.0])
    each = scores.compute().boxes
    assert np.isnan(each.ap_small)
    assert each.ap_medium == 1


def test_only_the_best_hundred_of_an_image_and_class_count():
    grid = [[x, y, x + 3, y + 3] for y in range(0, 80, 5) for x in range(0, 80, 5)][:150]
    detections = found(grid, np.linspace(0.2, 0.9, 150))
    scores = score([(detections, truth(grid))])
    assert scores.boxes.ar100 == pytest.approx(100 / 150)
    assert (scores.crowded, scores.most) == (1, 100)
    more = score([(detections, truth(grid))], most=150)
    assert more.ap == 1
    assert more.boxes.ar100 == pytest.approx(100 / 150)
    assert more.crowded == 0


@pytest.mark.parametrize("masks", [False, True])
def test_ten_thousand_objects_in_one_image(masks):
    """Whole masks would be 10 000 x 600 x 600 bytes."""
    low = 6 * torch.cartesian_prod(torch.arange(100), torch.arange(100)).float()
    boxes = torch.cat([low, low + 4], 1)
    crops = None
    if masks:
        from torchfpn.metrics.precisions import box_masks

        crops = box_masks(boxes, (600, 600))
    scores = torch.linspace(0, 1, len(boxes), dtype=torch.float64)
    count = AveragePrecision(["cell"], masks=masks)
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    count.update(Instances(boxes, scores, labels, (600, 600), crops), Objects(boxes, labels, crops))
    found_all = count.compute()
    assert found_all.best_known.ar100 == pytest.approx(0.01)
    assert found_all.best_known.ap50 == pytest.approx(2 / 101)
    assert sum(each.hits.sum() for each in count.matches()) == 100


# -- laws --------------------------------------------------------------------------------------------------------------
def plain(scores):
    return [getattr(scores.boxes, name) for name in STATS] + list(scores.boxes.class_ap)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_the_order_of_images_changes_nothing(seed, shuffler):
    rng = np.random.default_rng(seed)
    pairs = [random_pair(rng)[:2] for _ in range(5)]
    each = iter(rng.permutation(5000) / 5000)  # no two scores are equal
    pairs = [(found(one.boxes.tolist(), [next(each) for _ in one.scores], one.labels), other) for one, other in pairs]
    other = list(pairs)
    shuffler.shuffle(other)
    assert plain(score(other, names=NAMES)) == pytest.approx(plain(score(pairs, names=NAMES)), nan_ok=True, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_a_false_detection_below_all_others_never_raises_ap(seed):
    rng = np.random.default_rng(seed)
    pairs = [random_pair(rng)[:2] for _ in range(3)]
    before = score(pairs, names=NAMES).boxes.class_ap
    one, other = pairs[0]
    worse = found([*one.boxes.tolist(), [82, 82, 88, 88]], [*(one.scores + 0.001).tolist(), 0.0], [*one.labels, 1])
    rest = [(found(a.boxes.tolist(), a.scores + 0.001, a.labels), b) for a, b in pairs[1:]]
    after = score([(worse, other), *rest], names=NAMES).boxes.class_ap
    for a, b in zip(after, before, strict=True):
        assert np.isnan(a) == np.isnan(b)
        assert not a > b + 1e-12


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_scores_from_the_same_order_are_the_same(seed, masks):
    """Only the order of the scores counts, not how large they are."""
    rng = np.random.default_rng(seed)
    pairs = [random_pair(rng, masks=masks)[:2] for _ in range(3)]
    squared = [(Instances(a.boxes, a.scores**2, a.labels, a.size, a.crops), b) for a, b in pairs]
    ours, others = (score(each, names=NAMES, masks=masks) for each in (pairs, squared))
    assert plain(ours) == pytest.approx(plain(others), nan_ok=True, abs=0)


def test_two_processes_are_one():
    rng = np.random.default_rng(5)
    pairs = [random_pair(rng, masks=True)[:2] for _ in range(6)]
    parts = [AveragePrecision(NAMES, masks=True) for _ in range(2)]
    for number in (0, 2, 4, 1):
        parts[0].update(*pairs[number], number=number)
    for number in (1, 3, 5, 0):  # as a sampler does that gives every process as many images
        parts[1].update(*pairs[number], number=number)
    parts[0].merge(pickle.loads(pickle.dumps(parts[1].state())))
    assert len(parts[0]) == 6
    assert parts[0].compute().to_dict() == score(pairs, names=NAMES, masks=True).to_dict()


def test_masks_are_kept_as_run_lengths_and_areas_are_theirs():
    boxes = boxes_of([BOX])
    mask = torch.zeros(1, *SIZE, dtype=torch.bool)
    mask[0, 10:30, 10:15] = True  # a quarter of the box
    crops = crop_images(mask)
    scores = AveragePrecision(["cell"], masks=True)
    scores.update(
        Instances(boxes, torch.ones(1), torch.zeros(1, dtype=torch.int64), SIZE, crops), truth([BOX], masks=True)
    )
    found_masks = scores.compute()
    assert found_masks.boxes.ap == 1
    assert found_masks.ap == 0  # an overlap of a quarter
    assert found_masks.to_dict()["kind"] == "instance"
    assert scores.state()["records"][0]["found"]["mask_areas"].tolist() == areas(crops).tolist() == [100]


# -- refused -----------------------------------------------------------------------------------------------------------
def test_what_cannot_be_counted_is_refused():
    scores = AveragePrecision(NAMES[:1], masks=True)
    with pytest.raises(ShapeError, match="has no masks"):
        scores.update(found([BOX], [0.9]), truth([BOX], masks=True))
    with pytest.raises(ShapeError, match="the pixels of one"):
        scores.update(found([BOX], [0.9], masks=True), truth([BOX], masks=True, size=(90, 90)))
    scores = AveragePrecision(NAMES[:1])
    with pytest.raises(DataError, match=r"labels 1\.\.1"):
        scores.update(found([BOX], [0.9], [1]), truth([BOX]))
    with pytest.raises(DataError, match="not finite"):
        scores.update(found([BOX], [float("nan")]), truth([BOX]))
    with pytest.raises(DataError, match="not finite"):
        scores.update(found([[1, 2, float("inf"), 4]], [0.5]), truth([BOX]))
    with pytest.raises(ShapeError, match="2 areas"):
        scores.update(found([BOX], [0.9]), truth([BOX]), areas=[1.0, 2.0])
    with pytest.raises(ShapeError, match="average precision of"):
        scores.merge(AveragePrecision(NAMES).state())
    with pytest.raises(ConfigError, match="no classes"):
        AveragePrecision([])
    with pytest.raises(ConfigError, match="100 or more"):
        AveragePrecision(NAMES, most=10)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    scores = AveragePrecision(NAMES[:1])
    scores.update(found([BOX], [0.9]), truth([BOX]))
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ConfigError, match=r"pip install \"torchfpn\[objects\]\""):
        scores.compute()


def test_it_says_nothing(capfd):
    score([(found([BOX], [0.9]), truth([BOX]))])
    assert capfd.readouterr() == ("", "")
