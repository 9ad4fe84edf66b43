"""What a model shows of itself: its three words, its keys, and what it says to words that cannot be."""

import numpy as np
import pytest
import torch
from torch import nn

import torchfpn
from torchfpn import ConfigError, Level, SemanticHead, ShapeError, chain
from torchfpn.backbones import backbone

TINY = "test_resnet"


def tiny(**options):
    torch.manual_seed(0)
    options = {"backbone": TINY, "num_classes": 5, "channels": 32, "head_channels": 32, **options}
    return torchfpn.create_model("semantic", **options)


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


def test_all_but_the_head_is_the_feature_extractor():
    model = tiny().eval()
    x = torch.randn(1, 3, 64, 96)
    assert [tuple(m.shape[-2:]) for m in model[:-1](x)] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert model[:-1].levels == model.pyramid.levels
    assert model[0] is model.backbone


def test_every_piece_can_be_sliced():
    model = tiny(backbone="torchvision/resnet18", pyramid="panet").eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        maps = model.backbone(x)
        assert len(model.backbone[:1](x)) == 5
        outputs = model.pyramid[:1](maps)
        assert model.pyramid[:1].levels == model.pyramid.levels
        assert torch.equal(model.pyramid[1:](outputs)[-1], model.pyramid(maps)[-1])
        features = model.head[:-1](model.pyramid(maps))
        assert torch.equal(model.head[-1](features), model(x))
        assert len(model.pyramid.fpn.lateral[:2](maps[:2])) == 2
    assert len(model.pyramid.bottom_up[:2]) == 2


def test_a_backbone_that_is_built_hears_of_no_options():
    for options in (
        {"fusion": "fusenet"},
        {"strides": (8, 16)},
        {"strides": np.array([8, 16])},
        {"output_stride": 8},
        {"points": (1, 2)},
        {"rgb": (2, 1, 0)},
        {"band_init": "mean"},
        {"pretrained": True},
        {"backbone_options": {"foo": 1}},
    ):
        with pytest.raises(ConfigError, match="already built"):
            tiny(backbone=backbone(TINY), **options)
    with pytest.raises(ConfigError, match=r"rgb: .* already built"):
        torchfpn.create_task(backbone=backbone(TINY), num_classes=2, rgb=["red", "green", "blue"])


def test_a_backbone_that_is_built_takes_its_own_bands():
    body = backbone(TINY, in_channels=5)
    assert tiny(backbone=body).backbone is body
    with pytest.raises(ConfigError, match="in_channels: 4 bands for a backbone of 5"):
        tiny(backbone=body, in_channels=4)
    with pytest.raises(ConfigError, match="in_channels: 3 bands for a backbone of 5"):
        torchfpn.create_task(backbone=body, num_classes=2)


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
