"""Evaluation counts what the task predicts, image by image, against an independent count."""

import numpy as np
import pytest
import torch

from tiny_model import BANDS, CLASSES, tiny_task
from torchfpn.data.sample import Sample
from torchfpn.errors import ConfigError, DataError
from torchfpn.evaluation.model import class_order, evaluate_pixels, reordered
from torchfpn.metrics.boundary import BoundaryIoU
from torchfpn.tasks.task import available, computing, find_device


def samples(count=3):
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        image = 1000 * torch.rand(4, 20 + i, 30, generator=generator)
        target = torch.randint(0, 3, (20 + i, 30), generator=generator)
        target[0, :5] = 255
        image[:, -1, :] = torch.nan
        yield Sample(image, target, f"s{i}.tif")


def test_the_counts_are_those_of_a_loop_over_pixels():
    task, seen = tiny_task(), []
    found = evaluate_pixels(task, samples(), progress=lambda: seen.append(1))
    confusion = np.zeros((3, 3), int)
    edges = BoundaryIoU(3)
    for sample in samples():
        labels = task.predict([sample.image])[0].labels
        known = (sample.target != 255) & (labels != 255)
        for t, p in zip(sample.target[known].tolist(), labels[known].tolist(), strict=True):
            confusion[t, p] += 1
        edges.update(labels, torch.where(labels == 255, 255, sample.target))
    assert found.confusion.matrix.tolist() == confusion.tolist()
    assert found.images == len(seen) == 3
    assert confusion.sum() == sum((20 + i - 1) * 30 - 5 for i in range(3))
    hits = confusion.diagonal()
    iou = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    assert found.miou == pytest.approx(iou.mean(), abs=1e-12)
    assert found.pixel_accuracy == pytest.approx(hits.sum() / confusion.sum(), abs=1e-12)
    data = found.to_dict("test")
    assert data["iou"] == pytest.approx(iou)
    assert data["boundary_iou"] == pytest.approx(edges.iou().tolist())
    assert data["split"] == "test"
    assert data["recall"] == pytest.approx(hits / confusion.sum(1))
    assert evaluate_pixels(task, samples(), boundary=False).to_dict()["boundary_iou"] is None


def test_the_task_and_its_mode_stay_as_they_were():
    task = tiny_task().train()
    evaluate_pixels(task, samples(1))
    assert task.training


def test_a_watcher_sees_every_sample_with_its_prediction():
    task, shown = tiny_task(), []
    evaluate_pixels(task, samples(), watch=lambda sample, labels: shown.append((sample.name, labels.shape)))
    assert shown == [("s0.tif", (20, 30)), ("s1.tif", (21, 30)), ("s2.tif", (22, 30))]


def test_nothing_labelled_gives_no_number_and_no_error():
    sample = next(samples(1))
    found = evaluate_pixels(tiny_task(), [Sample(sample.image, torch.full_like(sample.target, 255))]).to_dict()
    assert found["miou"] is None
    assert found["iou"] == [None] * 3


def test_classes_are_matched_by_name():
    order = class_order(CLASSES, ("roof", "grass", "road"))
    assert order == [2, 0, 1]
    target = torch.tensor([[0, 1, 2, 255]])
    assert reordered(target, order).tolist() == [[2, 0, 1, 255]]
    assert reordered(target, [0, 1, 2]) is target
    task = tiny_task()
    shuffled = (Sample(s.image, reordered(s.target, [1, 2, 0]), s.name) for s in samples())
    assert evaluate_pixels(task, shuffled, order=order).confusion.matrix.equal(
        evaluate_pixels(task, samples()).confusion.matrix
    )


def test_other_classes_are_refused_with_the_differences():
    with pytest.raises(DataError, match="only the dataset has tree; only the model has road, roof"):
        class_order(CLASSES, ("grass", "tree"))


def test_devices_are_named_when_one_is_missing():
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r'device: "cuda:99"; expected .*cpu'):
        find_device("cuda:99")
    assert available()[-1] == "cpu"


def test_bf16_computes_in_bf16_and_fp32_does_not():
    layer = torch.nn.Linear(4, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with torch.no_grad(), computing(torch.device("cpu"), precision):
            assert layer(torch.ones(1, 4)).dtype == dtype
    assert len(BANDS) == 4
