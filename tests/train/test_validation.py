"""Scores of a round of validation, against predict and the losses."""

import pytest
import torch

import torchfpn
from torchfpn.metrics.confusion import ConfusionMatrix
from torchfpn.train.validation import Validation
from torchfpn.types import IGNORE, Batch


def batches():
    torch.manual_seed(0)
    for height, width in ((20, 30), (33, 16)):
        images, targets = torch.rand(1, 3, height, width), torch.randint(0, 3, (1, height, width))
        images[..., :4, :4] = torch.nan  # no data there, though somebody labelled it
        yield Batch(images, [(height, width)], targets, ["a"])


def test_equals_predict_and_losses():
    task = torchfpn.create_task(backbone="test_resnet", num_classes=3, channels=8, head_channels=8).eval()
    validation, expected, losses = Validation(task), ConfusionMatrix(3), []
    with torch.no_grad():
        for batch in batches():
            validation.step(batch)
            (result,) = task.predict(batch)
            truth = torch.where(batch.images[0].isnan().any(0), IGNORE, batch.targets[0])
            expected.update(result.labels, truth)
            losses.append(float(task.losses(batch)["ce"]))
    row = validation.row()
    assert torch.equal(validation.confusion.matrix, expected.matrix)
    assert row["val/miou"] == expected.miou()
    assert row["val/loss"] == pytest.approx(sum(losses) / 2)
    assert list(row) == ["val/loss", "val/miou", "val/pixel_accuracy", *(f"val/iou_class{i}" for i in range(3))]


def test_processes_are_summed():
    task = torchfpn.create_task(backbone="test_resnet", num_classes=3, channels=8, head_channels=8).eval()
    alone, doubled = Validation(task), Validation(task, lambda tensor: 2 * tensor)
    with torch.no_grad():
        for batch in batches():
            alone.step(batch)
            doubled.step(batch)
    assert alone.row() == doubled.row()
