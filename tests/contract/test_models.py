"""What every backbone and every whole model keeps: declared levels, any size, live parameters, copies, types."""

import copy
import pickle

import pytest
import torch
from torch import nn

import torchfpn
from torchfpn import ConfigError, Level, SemanticHead, ShapeError, chain
from torchfpn.backbones import backbone

BACKBONES = [
    "test_resnet",
    "resnet18",
    "mobilenetv2_100",
    "mobilenetv3_small_050",
    "efficientnet_b0",
    "convnext_atto",
    "torchvision/resnet18",
    "torchvision/resnet50",
    "torchvision/mobilenet_v2",
    "torchvision/efficientnet_b0",
    "torchvision/efficientnet_v2_s",
]
TINY = "test_resnet"


def tiny(**options):
    torch.manual_seed(0)
    options = {"backbone": TINY, "num_classes": 5, "channels": 32, "head_channels": 32, **options}
    return torchfpn.create_model("semantic", **options)


@pytest.mark.parametrize("name", BACKBONES)
def test_declared_levels_are_what_is_seen(name):
    body = backbone(name, in_channels=2).eval()
    with torch.inference_mode():
        maps = body(torch.randn(1, 2, 64, 96))
    assert [level.stride for level in body.levels] == [4, 8, 16, 32]
    for x, level in zip(maps, body.levels, strict=True):
        assert tuple(x.shape) == (1, level.channels, 64 // level.stride, 96 // level.stride)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (31, 33), (33, 64), (130, 7), (64, 96)])
def test_output_has_the_size_of_the_input(size):
    model = tiny().eval()
    with torch.inference_mode():
        assert tuple(model(torch.randn(2, 3, *size)).shape) == (2, 5, *size)


@pytest.mark.parametrize("options", [{}, {"norm": "group"}, {"smooth": False}, {"norm": "none", "dropout": 0.1}])
def test_every_parameter_gets_a_gradient(options):
    model = tiny(**options).train()
    for p in model.parameters():
        if p.ndim == 1:
            nn.init.ones_(p)  # residual branches start with a norm weight of zero, which hides what lies before
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not [name for name in dead if "bias" not in name], dead


def test_it_prints_as_three_words():
    assert [name for name, _ in tiny().named_children()] == ["backbone", "pyramid", "head"]
    assert isinstance(tiny(), nn.Sequential)
    assert "(top_down): TopDown()" in str(tiny())


def test_pieces_can_be_taken_apart_and_recombined():
    body = backbone(TINY)
    pyramid = torchfpn.FPN(body.levels, 32)
    head = SemanticHead(pyramid.levels, 4, 32)
    by_hand = chain(backbone=body, pyramid=pyramid, head=head).eval()
    whole = torchfpn.create_model(backbone=body, pyramid=pyramid, head=head, num_classes=4).eval()
    x = torch.randn(1, 3, 64, 96)
    assert torch.equal(by_hand(x), whole(x))
    assert torch.equal(whole.head(whole.pyramid(whole.backbone(x))), whole(x))


def test_copies_and_pickles_compute_the_same():
    model = tiny().eval()
    x = torch.randn(1, 3, 33, 31)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(model(x), other(x))


def test_channels_last_and_bf16_stay_close():
    model = tiny().eval()
    x = torch.randn(2, 3, 64, 64)
    expected = model(x)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(x), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        close = model(x.to(memory_format=torch.channels_last))
    assert (close.float() - expected).abs().max() < 0.05 * expected.abs().max() + 0.02


def test_a_batch_of_one_equals_its_place_in_a_larger_batch():
    model = tiny().eval()
    x = torch.randn(3, 3, 40, 24)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


def test_export_with_free_size_equals_eager():
    model = tiny(dropout=0.1).eval()
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    graph = torch.export.export(model, (torch.randn(1, 3, 75, 101),), dynamic_shapes=(free,)).module()
    for size in [(64, 96), (41, 33), (130, 70)]:
        x = torch.randn(1, 3, *size)
        torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-5)


def test_keys_of_the_state_dict_are_readable():
    keys = set(tiny().state_dict())
    assert {"pyramid.lateral.0.weight", "pyramid.smooth.3.bias", "head.classify.weight"} <= keys
    assert "head.scale.3.2.norm.running_mean" in keys  # three stages from stride 32 to 4
    assert "head.scale.0.1.conv.weight" not in keys


def test_head_crops_odd_maps_to_the_finest():
    levels = [Level(8, 4), Level(8, 8), Level(8, 16), Level(8, 32)]
    head = SemanticHead(levels, 3, 32).eval()
    xs = tuple(torch.randn(1, 8, *size) for size in [(75, 113), (38, 57), (19, 29), (10, 15)])
    assert tuple(head(xs).shape) == (1, 3, 300, 452)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnett18"}, "resnet18"),
        ({"backbone": "torchvision/resnet19"}, "torchvision/resnet18"),
        ({"pyramid": "fpm"}, 'did you mean "fpn"'),
        ({"strides": (4, 64)}, r"strides \[2, 4, 8, 16, 32\]"),
        ({"num_classes": 0}, "num_classes"),
        ({"norm": "layer"}, '"batch", "group" or "none"'),
        ({"norm": "group", "head_channels": 20}, "multiple of 32"),
        ({"backbone": nn.Identity()}, "declares no levels"),
        ({"in_channels": 0, "backbone": "torchvision/resnet18"}, "in_channels"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        tiny(**options)
    assert "\n" not in str(caught.value)


def test_unknown_task_is_named():
    with pytest.raises(ConfigError, match='did you mean "semantic"'):
        torchfpn.create_model("semantics", backbone=TINY, num_classes=2)


def test_other_strides_can_be_chosen():
    model = tiny(strides=(8, 16), smooth=False)
    assert [level.stride for level in model.pyramid.levels] == [8, 16]
    assert model.eval()(torch.randn(1, 3, 33, 20)).shape[-2:] == (33, 20)


def test_maps_of_another_number_are_refused():
    with pytest.raises(ShapeError, match="2 maps for 4 modules"):
        tiny().pyramid((torch.zeros(1, 32, 8, 8), torch.zeros(1, 48, 4, 4)))
