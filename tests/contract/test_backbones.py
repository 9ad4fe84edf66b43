"""What every backbone keeps, alone and in a model: declared levels, any size, live parameters, copies, types."""

import copy
import pickle

import pytest
import torch

from contract.subjects import BACKBONES, MORE_BACKBONES, close, images, made, product
from torchfpn.backbones import backbone


@pytest.fixture(scope="module", params=[*BACKBONES, *product(MORE_BACKBONES)])
def model(request):
    return made(request.param, in_channels=2).eval()


def test_there_are_enough_of_them():
    assert len(set(BACKBONES)) >= 25


def test_declared_levels_are_what_is_seen(model):
    body, size = model.backbone, (64, 96)
    with torch.inference_mode():
        maps = body(images(model, *size, batch=1))
    assert body.in_channels == 2
    assert [level.stride for level in body.levels] in ([4, 8, 16, 32], [16])
    for x, level in zip(maps, body.levels, strict=True):
        assert tuple(x.shape) == (1, level.channels, size[0] // level.stride, size[1] // level.stride)


@pytest.mark.parametrize("size", [(1, 1), (33, 95)])
def test_output_has_the_size_of_the_input(model, size):
    with torch.inference_mode():
        assert tuple(model(images(model, *size, batch=1)).shape) == (1, 3, *size)


def test_every_parameter_gets_a_gradient(model):
    trained = copy.deepcopy(model).train()
    trained(images(trained, 64, 64)).square().mean().backward()
    dead = [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not [name for name in dead if not name.endswith("bias")], dead
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.parameters())


def test_copies_and_pickles_compute_the_same(model):
    x = images(model, 40, 33, batch=1)
    with torch.inference_mode():
        expected = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(x), expected)


def test_channels_last_and_bf16_stay_close(model):
    x = images(model, 64, 64, batch=1)
    with torch.inference_mode():
        expected = model(x)
        other = copy.deepcopy(model).to(memory_format=torch.channels_last)
        close(other(x), expected, share=1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = other(x).float()
    assert rounded.isfinite().all()
    assert (rounded - expected).abs().mean() < 0.1 * expected.abs().mean()


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet50", "efficientnet_b0", "regnety_002"])
def test_dilated_networks_keep_their_last_maps_large(name, stride):
    body = backbone(name, output_stride=stride).eval()
    with torch.inference_mode():
        maps = body(torch.randn(1, 3, 64, 96))
    assert [level.stride for level in body.levels] == [min(full, stride) for full in (4, 8, 16, 32)]
    assert [tuple(x.shape[-2:]) for x in maps] == [(64 // s, 96 // s) for s in (min(f, stride) for f in (4, 8, 16, 32))]


def test_dilation_leaves_the_weights_as_they_are():
    plain, dilated = backbone("resnet18"), backbone("resnet18", output_stride=8)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in dilated.state_dict().items()}
