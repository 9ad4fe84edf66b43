"""The whole semantic FPN against segmentation_models_pytorch's: one graph when told to draw it, one answer."""

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

CLASSES = 5


@pytest.fixture
def models(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    from smp_weights import same_graph

    torch.manual_seed(0)
    theirs = smp.FPN("resnet18", encoder_weights=None, classes=CLASSES, decoder_dropout=0.0)
    for module in theirs.modules():  # fresh norms do nothing, and zero biases hide a swapped branch
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.2)
    return same_graph(theirs, backbone="resnet18", num_classes=CLASSES), theirs


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (96, 160)])
def test_same_answer_in_eval(models, size):
    ours, theirs = (model.eval() for model in models)
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected = theirs(images)
        assert expected.std() > 0.1  # not a constant
        assert relative(ours(images), expected) <= 1e-5


def test_same_answer_gradients_and_statistics_in_training(models):
    ours, theirs = (model.train() for model in models)
    images, targets = torch.randn(2, 3, 64, 96), torch.randint(0, CLASSES, (2, 64, 96))
    outputs = [model(images) for model in (ours, theirs)]
    assert relative(*outputs) <= 1e-5
    for output in outputs:
        nn.functional.cross_entropy(output, targets).backward()
    pairs = [
        (ours.head.classify, theirs.segmentation_head[0]),
        (ours.head.scale[3][2].conv, theirs.decoder.seg_blocks[0].block[2].block[0]),
        (ours.pyramid.lateral[0], theirs.decoder.p2.skip_conv),
        (ours.backbone.features.layer1[0].conv1, theirs.encoder.layer1[0].conv1),
    ]
    for mine, their in pairs:
        assert relative(mine.weight.grad, their.weight.grad) <= 1e-4
    torch.testing.assert_close(ours.backbone.features.bn1.running_var, theirs.encoder.bn1.running_var)
