"""Scores of a round of validation, against predict and the losses."""

import math

import pytest
import torch

import torchfpn
from torchfpn.evaluation.model import PixelValidation
from torchfpn.metrics.confusion import ConfusionMatrix
from torchfpn.recipe import IGNORE
from torchfpn.types import Batch


def batches():
    torch.manual_seed(0)
    for height, width in ((20, 30), (33, 16)):
        images, targets = torch.rand(1, 3, height, width), torch.randint(0, 3, (1, height, width))
        images[..., :4, :4] = torch.nan  # no data there, though somebody labelled it
        yield Batch(images, [(height, width)], targets, ["a"])


def test_equals_predict_and_losses():
    task = torchfpn.create_task(backbone="test_resnet", num_classes=3, channels=8, head_channels=8).eval()
    validation, expected, losses = PixelValidation(task), ConfusionMatrix(3), []
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


def test_images_without_a_label_do_not_count_in_the_loss():
    task = torchfpn.create_task(backbone="test_resnet", num_classes=3, channels=8, head_channels=8).eval()
    labelled, both, none = PixelValidation(task), PixelValidation(task), PixelValidation(task)
    batch = next(batches())
    nothing = Batch(batch.images, batch.sizes, torch.full_like(batch.targets, IGNORE), batch.names)
    with torch.no_grad():
        for validation, seen in ((labelled, [batch]), (both, [batch, nothing]), (none, [nothing])):
            for each in seen:
                validation.step(each)
    assert both.row()["val/loss"] == labelled.row()["val/loss"] > 0
    assert math.isnan(none.row()["val/loss"])


def test_processes_are_summed():
    task = torchfpn.create_task(backbone="test_resnet", num_classes=3, channels=8, head_channels=8).eval()
    alone, doubled = PixelValidation(task), PixelValidation(task, lambda tensor: 2 * tensor)
    with torch.no_grad():
        for batch in batches():
            alone.step(batch)
            doubled.step(batch)
    assert alone.row() == doubled.row()
