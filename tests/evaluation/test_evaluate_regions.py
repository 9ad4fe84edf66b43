"""Evaluation of objects: image by image, against the same counts made by hand; what a COCO file says is used."""

import json

import numpy as np
import pytest
import torch

import torchfpn
from made_detections import BOX, OTHER, found, truth
from made_objects import coco, make_objects, record
from torchfpn.data.config import read_dataset
from torchfpn.data.datasets import ObjectDataset
from torchfpn.data.sample import ObjectSample, collate
from torchfpn.evaluation.coco import evaluate_results
from torchfpn.evaluation.model import ObjectValidation, evaluate_objects, relabelled, truth_facts
from torchfpn.metrics.detection import AveragePrecision, polygon_runs
from torchfpn.nn.layers import Normalize
from torchfpn.ops.masks import areas
from torchfpn.ops.rle import to_rle
from torchfpn.report.objects import write_pictures

pytest.importorskip("faster_coco_eval", reason="the evaluator is not installed")

SIZE = (24, 32)


class Fixed(torch.nn.Module):
    """A task that says what it was told to, image by image."""

    def __init__(self, answers, task="detection", classes=("cell", "dot")):
        super().__init__()
        self.model, self.answers = torch.nn.Linear(1, 1), iter(answers)
        self.recipe = torchfpn.Recipe(task, {}, classes, ("grey",), torchfpn.Scaling.identity(1))
        self.classes, self.normalize = classes, Normalize(self.recipe.scaling)

    def predict(self, images):
        assert len(images) == 1
        return [next(self.answers)]


def samples():
    return [
        ObjectSample(torch.rand(1, *SIZE), truth([BOX], size=SIZE), "a.png"),
        ObjectSample(torch.rand(1, *SIZE), truth([BOX, OTHER], [0, 1], size=SIZE), "b.png"),
        ObjectSample(torch.rand(1, *SIZE), truth([], size=SIZE), "c.png"),
    ]


ANSWERS = [found([BOX], [0.9], size=SIZE), found([OTHER], [0.8], [1], size=SIZE), found([BOX], [0.3], size=SIZE)]


def test_scores_counts_and_order_of_the_images():
    seen, steps = [], []
    task = Fixed(ANSWERS)
    result = evaluate_objects(
        task, iter(samples()), watch=lambda *pair: seen.append(pair), progress=lambda: steps.append(1)
    )
    by_hand = AveragePrecision(task.classes)
    for sample, answer in zip(samples(), ANSWERS, strict=True):
        by_hand.update(answer, sample.objects)
    assert result.precisions.to_dict() == by_hand.compute().to_dict()
    assert len(seen) == len(steps) == 3
    assert seen[1][0].name == "b.png"
    assert seen[1][1] is not None
    assert 0.3 < result.threshold < 0.8
    assert [tuple(each) for each in result.counts()] == [(1, 0, 0), (1, 1, 0), (0, 0, 0)]
    assert result.ranked()[0] == 1
    plain = result.to_dict("test")
    assert plain["objects_found"] == {"threshold": result.threshold, "matched": 2, "missed": 1, "false": 0, "f1": 0.8}
    assert [each["f1"] for each in plain["each_image"]] == [1.0, pytest.approx(2 / 3), None]
    assert result.ranked() == [1, 0, 2]  # what has no score comes last


def test_labels_become_those_of_the_model():
    """The model calls its classes in the other order."""
    swapped = [found([BOX], [0.9], [1], size=SIZE), found([BOX, OTHER], [0.8, 0.7], [1, 0], size=SIZE), ANSWERS[2]]
    result = evaluate_objects(Fixed(swapped), iter(samples()), order=[1, 0])
    assert result.precisions.boxes.class_ap == (1.0, 1.0)
    objects = truth([BOX], [1])
    assert relabelled(objects, None) is objects
    assert relabelled(objects, [2, 0]).labels.tolist() == [0]


def crowded(tmp_path):
    value = [
        record(1, (2, 3, 10, 9), area=40),
        record(2, (12, 10, 30, 20), category=7, iscrowd=1),
        record(3, (4, 12, 14, 22), image=2, area=77),
    ]
    return ObjectDataset(read_dataset(make_objects(tmp_path, coco(value))), "train", cache=False)


def test_areas_and_classes_of_crowds_come_from_the_file(tmp_path):
    split = crowded(tmp_path)
    facts = [truth_facts(split, i, split[i].objects) for i in range(2)]
    assert [each.areas.tolist() for each in facts] == [[40], [77]]
    assert [each.crowd_labels.tolist() for each in facts] == [[1], []]
    inside = found(
        [[2, 3, 10, 9], [13, 11, 20, 16], [13, 11, 20, 16]], [0.9, 0.95, 0.97], [0, 0, 1], size=SIZE, masks=True
    )
    nothing = found([], [], size=SIZE, masks=True)
    result = evaluate_objects(Fixed([inside, nothing], "instance"), split)
    assert tuple(result.counts()[0]) == (1, 0, 1)  # the one of the crowd's class is no error, the other is
    loader = (split[i] for i in range(2))
    same = evaluate_objects(Fixed([inside, nothing], "instance"), loader, source=split)
    assert same.to_dict() == result.to_dict()


def test_equal_scores_of_a_model_count_in_the_order_of_image_ids(tmp_path):
    """The false alarm is in the image that the file has first and COCO last: oracle, its order of counting by hand."""
    value = coco([record(1, (2, 3, 10, 9), image=4)])
    for image, number in zip(value["images"], (9, 4), strict=True):
        image["id"] = number
    yaml = "task: detection\nsplits: {train: {images: train/images, annotations: train/instances.json}}\n"
    split = ObjectDataset(read_dataset(make_objects(tmp_path, value, yaml=yaml)), "train", cache=False)
    answers = [found([[12, 3, 20, 9]], [0.5], size=SIZE), found([[2, 3, 10, 9]], [0.5], size=SIZE)]
    result = evaluate_objects(Fixed(answers), split)
    by_hand = AveragePrecision(("cell", "dot"))
    for i in (1, 0):
        by_hand.update(answers[i], split[i].objects)
    assert result.precisions.boxes.ap == by_hand.compute().boxes.ap == 1
    task = Fixed([[each] for each in answers])
    task.predict = lambda batch: next(task.answers)
    validation = ObjectValidation(task, source=split)
    for index in range(2):
        validation.step(collate([split[index]]), index)
    assert validation.row()["val/ap"] == 1  # as in training
    assert [tuple(each) for each in result.counts()] == [(0, 0, 1), (1, 0, 0)]  # in the order of the split


def test_validation_scores_as_evaluation_does(tmp_path):
    """A false cell lies in a crowd of dots: COCO's AP is 0.5; a crowd of every class would make it 1."""
    split = crowded(tmp_path)
    answers = [found([[2, 3, 10, 9], [13, 11, 20, 16]], [0.8, 0.9], masks=True, size=SIZE), ANSWERS[0]]
    answers[1] = found([], [], size=SIZE, masks=True)
    expected = evaluate_objects(Fixed(answers, "instance"), split).precisions
    task = Fixed([[each] for each in answers], "instance")
    task.predict = lambda batch: next(task.answers)
    validation = ObjectValidation(task, source=split)
    for index in range(2):
        validation.step(collate([split[index]]), index)
    row = validation.row()
    assert (row["val/mask_ap"], row["val/ap"]) == (expected.masks.ap, expected.boxes.ap)
    assert expected.masks.class_ap[0] == pytest.approx(
        0.5 * 51 / 101
    )  # of two cells one is found, behind the false one


def test_areas_that_a_file_does_not_say_are_those_of_masks(tmp_path):
    """A thin diagonal in a box of 24 x 24: COCO's own tools count it as small."""
    line = [0, 0, 2, 0, 24, 22, 24, 24, 22, 24, 0, 2]
    value = coco([record(1, (0, 0, 24, 24), segmentation=[line]), record(2, (26, 0, 32, 6))], images=1)
    del value["annotations"][0]["area"]
    split = ObjectDataset(read_dataset(make_objects(tmp_path, value, images=1)), "train", cache=False)
    (facts,) = [truth_facts(split, 0, split[0].objects)]
    assert facts.areas.tolist() == [int(areas(split[0].objects.masks)[0]), 36]
    assert 60 < facts.areas[0] < 110
    results = [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 24, 24], "score": 1.0,
                "segmentation": to_rle(split[0].objects.masks)[0]}]  # fmt: skip
    big = [0, 0, 40, 0, 40, 40, 0, 40]
    for number, outline in enumerate((line, big)):  # the second one is no line: its mask is as large as its box
        value["annotations"][0]["segmentation"] = [outline]
        value["annotations"][0]["bbox"] = [0, 0, max(outline), max(outline)]
        value["images"][0] |= {"height": 48, "width": 48}
        results[0]["segmentation"] = {"size": [48, 48], "counts": polygon_runs([outline], (48, 48))}
        (tmp_path / "truth.json").write_text(json.dumps(value))
        (tmp_path / "results.json").write_text(json.dumps(results))
        scores = evaluate_results(tmp_path / "results.json", tmp_path / "truth.json").precisions.masks
        assert (scores.ap_small > 0) is (number == 0)


def test_pictures_are_drawn_of_what_is_believed(tmp_path):
    from PIL import Image

    split = crowded(tmp_path / "data")
    answers = [found([[2, 3, 10, 9]], [0.9], size=SIZE, masks=True), found([], [], size=SIZE, masks=True)]
    task = Fixed(answers * 2, "instance")
    result = evaluate_objects(task, split)
    write_pictures(tmp_path / "samples", {"best-00-a0": 0, "worst-00-a1": 1}, result, task, split.__getitem__)
    for name in ("best-00-a0", "worst-00-a1"):
        assert np.asarray(Image.open(tmp_path / "samples" / f"{name}.png")).shape[1] > SIZE[1]
