"""What every pyramid with every head keeps, on one tiny backbone."""

import copy
import pickle

import pytest
import torch

from contract.subjects import (
    BACKBONES,
    FEW_PAIRS,
    HEADS,
    MORE_BACKBONES,
    PAIRS,
    PLAIN,
    PYRAMIDS,
    REFUSED,
    close,
    images,
    made,
    whole,
)
from torchfpn import ConfigError, create_model

SIZES = [(1, 1), (1, 40), (31, 33), (33, 64), (130, 7), (101, 257)]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(pair, id=" x ".join(pair), marks=[] if pair in FEW_PAIRS else pytest.mark.product)
        for pair in PAIRS
    ],
)
def model(request):
    return whole(*request.param).eval()


@pytest.mark.parametrize("size", SIZES)
def test_output_has_the_size_of_the_input(model, size):
    with torch.inference_mode():
        assert tuple(model(images(model, *size)).shape) == (2, 3, *size)


def test_declared_levels_are_what_is_seen(model):
    size = (64, 96)
    with torch.inference_mode():
        maps = model.pyramid(model.backbone(images(model, *size)))
    assert len({level.channels for level in model.pyramid.levels}) == 1
    for x, (channels, stride) in zip(maps, model.pyramid.levels, strict=True):
        assert tuple(x.shape) == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_every_parameter_gets_a_gradient(model):
    trained = copy.deepcopy(model).train()
    trained(images(trained, 64, 64)).square().mean().backward()
    dead = [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not [name for name in dead if not name.endswith("bias")], dead
    assert all(p.grad is not None for p in trained.parameters())


def test_a_batch_of_one_equals_its_place_in_a_larger_batch(model):
    x = images(model, 40, 24, batch=3)
    with torch.inference_mode():
        close(model(x)[1:2], model(x[1:2]))


def test_copies_pickles_and_types(model):
    x = images(model, 64, 33)
    with torch.inference_mode():
        expected = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(x), expected)
        other = other.to(memory_format=torch.channels_last)
        close(other(x), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert (other(x).float() - expected).abs().mean() < 0.1 * expected.abs().mean()


@pytest.mark.parametrize(("pyramid", "head"), REFUSED, ids=" x ".join)
def test_a_head_that_would_leave_parts_dead_is_refused(pyramid, head):
    with pytest.raises(ConfigError, match="head=sum") as caught:
        whole(pyramid, head)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "sun"}, 'did you mean "sum"'),
        ({"pyramid": "pannet"}, 'did you mean "panet"'),
        ({"extra": "pol"}, 'did you mean "pool"'),
        ({"extra": "pol", "head": "finest"}, 'did you mean "pool"'),
        ({"points": [99]}, "points: \\[99\\]; expected to come with fusion="),
        ({"points": 3, "fusion": "fusenet", "in_channels": 4}, "points: 3; expected a list of whole numbers"),
        ({"strides": 4}, "strides: 4; expected a list of whole numbers"),
        ({"strides": "4"}, "strides: '4'; expected a list of whole numbers"),
        ({"rgb": [1, 1, 2]}, "rgb: \\[1, 1, 2\\] of 3 bands"),
        ({"rgb": ["red", "green", "blue"], "in_channels": 4, "fusion": "late"}, "three different bands"),
        ({"rgb": [0.0, 1.0, 2.0], "in_channels": 4, "band_init": "copy"}, "three different bands"),
        ({"band_init": None}, 'band_init: "None"; expected repeat | mean'),
        ({"band_init": {"nir": "red"}, "in_channels": 4}, "band_init: band nir: 'red'; expected 0..3"),
        ({"band_init": {3: ["red"]}, "in_channels": 4, "fusion": "late"}, "band_init: {3: .*red"),
        ({"band_init": "repaet", "fusion": "late", "in_channels": 4}, 'did you mean "repeat"'),
        ({"fusion": None}, 'fusion: "None"; expected none | fusenet | late'),
        ({"fusion": True}, 'fusion: "True"; expected none | fusenet | late'),
        ({"dropout": 2.0}, "dropout: 2.0; expected a share"),
        ({"head_channels": 0}, "head_channels: 0; expected 1 or more"),
        ({"head_channels": -1}, "head_channels: -1; expected 1 or more"),
        ({"backbone_options": {"foo": 2}}, "backbone_options.foo: test_resnet has no such option"),
        (
            {"backbone": "torchvision/resnet18", "backbone_options": {"foo": 2}},
            "backbone_options.foo: torchvision/resnet18",
        ),
        ({"head": 3}, "head: .3.; expected sum"),
        ({"pyramid": ["fpn"]}, "fpn | panet | simple"),
        ({"backbone": "test_vit", "pyramid": "simple", "extra": "conv-c5"}, 'extra: "conv-c5" on simple'),
        ({"pyramid": "panet", "pyramid_options": {"outputs": 2}}, "pyramid_options.outputs: panet has no such option"),
        ({"head": "finest", "pyramid_options": {"outputs": 3}}, "pyramid_options.outputs: 3; expected 1 with head="),
        ({"backbone": "test_vit"}, 'pyramid="simple"'),
        ({"pyramid": "panet", "strides": (8,)}, "two maps or more"),
        ({"pyramid_options": {"nrom": "group"}}, "pyramid_options.nrom: fpn has no such option"),
        ({"head_options": {"classifier": "bottleneck"}}, "head_options.classifier: sum has no such option"),
        ({"head": "concat", "head_options": {"classifier": "conv5x5"}}, "conv3x3"),
        ({"fusion": "fusenet"}, "more than red, green and blue"),
        ({"fusion": "fuse", "in_channels": 4}, 'did you mean "fusenet"'),
        ({"fusion": "fusenet", "in_channels": 4, "points": (7,)}, "some of 1, 2, 3, 4, 5"),
        ({"band_init": "men"}, 'did you mean "mean"'),
        ({"output_stride": 8, "backbone": "torchvision/resnet18"}, "8, 16 or 32"),
        ({"output_stride": 8, "backbone": "swin_tiny_patch4_window7_224"}, "cannot be dilated"),
        ({"backbone": "maxvit_tiny_rw_224"}, "takes images of one size"),
        ({"channels": 2.5}, "channels: 2.5; expected a whole number"),
        ({"num_classes": "3"}, "num_classes: '3'; expected a whole number"),
        ({"in_channels": 3.0}, "in_channels: 3.0; expected a whole number"),
        ({"dropout": None}, "dropout: None; expected a number"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        create_model(**{"backbone": "test_resnet", "num_classes": 3, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extra", ["pool", "conv", "conv-c5"])
def test_levels_may_follow_a_pyramid_of_fewer_outputs(extra):
    model = made(pyramid_options={"outputs": 2}, extra=extra).eval()
    strides = {"pool": [4, 8, 16], "conv": [4, 8, 16, 32], "conv-c5": [4, 8, 64, 128]}[extra]
    assert [level.stride for level in model.pyramid.levels] == strides
    with torch.inference_mode():
        assert tuple(model(images(model, 33, 47)).shape) == (2, 3, 33, 47)


HALF_READ = {("hrnet_w18_small", "simple")}  # its maps come side by side, and the simple pyramid reads the last


def impossible(backbone, pyramid, head):
    """Whether these words are refused together."""
    one_map = backbone in PLAIN and PYRAMIDS[pyramid]["pyramid"] != "simple"
    return one_map or (pyramid, head) in REFUSED


@pytest.mark.product
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pyramid", [name for name in PYRAMIDS if "dilated" not in name])
@pytest.mark.parametrize("backbone", [*BACKBONES, *MORE_BACKBONES])
def test_the_whole_product(backbone, pyramid, head):
    options = {**PYRAMIDS[pyramid], **HEADS[head], "backbone": backbone}
    if impossible(backbone, pyramid, head):
        with pytest.raises(ConfigError):
            made(**options)
        return
    model = made(**options)
    with torch.inference_mode():
        for size in [(1, 1), (37, 65)]:
            assert tuple(model.eval()(images(model, *size, batch=1)).shape) == (1, 3, *size)
    model.train()(images(model, 64, 64)).square().mean().backward()
    parts = model[1:] if (backbone, pyramid) in HALF_READ else model
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parts.parameters())
