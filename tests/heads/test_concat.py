"""The concatenating head against plain torch, and against robosat's wiring."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchfpn
from torchfpn import ConcatHead, ConfigError, Level

LEVELS = [Level(6, 4), Level(8, 8), Level(10, 16), Level(12, 32)]
SIZES = [(8, 12), (4, 6), (2, 3), (1, 2)]


def maps(sizes=SIZES, levels=LEVELS):
    torch.manual_seed(1)
    return tuple(torch.randn(2, level.channels, *size) for level, size in zip(levels, sizes, strict=True))


def stirred(head):
    """Weights large enough to be seen, biases and statistics that are not nothing."""
    torch.manual_seed(0)
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return head.eval()


def normed(conv, norm, x):
    y = F.conv2d(x, conv.weight, None, padding=conv.weight.shape[-1] // 2)
    return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5).relu()


@pytest.mark.parametrize("classifier", ["conv3x3", "bottleneck"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_it_is_two_convolutions_a_level_enlarged_and_joined(classifier, align_corners):
    """Kirillov et al. 2019, section 4.2, from the weights alone."""
    head = stirred(ConcatHead(LEVELS, 5, 16, classifier=classifier, align_corners=align_corners))
    xs = maps()
    joined = []
    for x, scale in zip(xs, head.scale, strict=True):
        for part in (scale.conv1, scale.conv2):
            x = normed(part.conv, part.norm, x)
        joined.append(x if len(joined) == 0 else F.interpolate(
            x, scale_factor=2 ** len(joined), mode="bilinear", align_corners=align_corners)[..., :8, :12])  # fmt: skip
    x = torch.cat(joined, 1)
    if classifier == "bottleneck":
        x = normed(head.classify.reduce.conv, head.classify.reduce.norm, x)
        assert x.shape[1] == 16
    conv = head.classify.conv
    x = F.conv2d(x, conv.weight, conv.bias, padding=1 if classifier == "conv3x3" else 0)
    expected = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(head(xs), expected)
    assert tuple(expected.shape) == (2, 5, 32, 48)


def robosat(xs, heads, final):
    """FPNSegmentation's head, map4 .. map1 from the coarsest to the finest: no bias, no norm, no ReLU, nearest."""
    joined = []
    for factor, x, (first, second) in zip((8, 4, 2, 1), xs[::-1], heads[::-1], strict=True):
        x = F.conv2d(F.conv2d(x, first, padding=1), second, padding=1)
        joined.append(F.interpolate(x, scale_factor=factor, mode="nearest"))
    return F.interpolate(
        F.conv2d(torch.cat(joined, 1), *final, padding=1), scale_factor=4, mode="bilinear", align_corners=False
    )


def test_robosats_wiring_is_ours_with_the_classifiers_inputs_in_the_other_order():
    """Ours joins finest first, robosat's coarsest first: the blocks of the last convolution's input change places."""
    head = stirred(ConcatHead(LEVELS, 2, 16, norm="none", act=False, mode="nearest"))
    for scale in head.scale:
        nn.init.zeros_(scale.conv1.bias)
        nn.init.zeros_(scale.conv2.bias)
    heads = [(scale.conv1.weight, scale.conv2.weight) for scale in head.scale]
    conv, xs = head.classify.conv, maps(sizes=[(16, 24), (8, 12), (4, 6), (2, 3)])
    turned = torch.cat(conv.weight.split(16, dim=1)[::-1], dim=1)
    torch.testing.assert_close(head(xs), robosat(xs, heads, (turned, conv.bias)))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(head(xs), robosat(xs, heads, (conv.weight, conv.bias)))


def test_a_whole_model_can_be_robosats():
    model = torchfpn.create_model(
        backbone="test_resnet", head="concat", norm="none", head_options={"act": False, "mode": "nearest"},
        num_classes=2, channels=16, head_channels=8,
    ).eval()  # fmt: skip
    assert [type(m) for m in model.head.scale[0]] == [nn.Conv2d, nn.Conv2d, nn.Identity]
    assert model.head.scale[3].up.mode == "nearest"
    assert model.head.enlarge.mode == "bilinear"
    assert tuple(model(torch.randn(1, 3, 33, 50)).shape) == (1, 2, 33, 50)


@pytest.mark.parametrize(("classifier", "width"), [("conv3x3", 64), ("bottleneck", 16)])
def test_dropout_drops_whole_maps_before_the_last_convolution_while_training_only(classifier, width):
    head = stirred(ConcatHead(LEVELS, 5, 16, classifier=classifier, dropout=0.5))
    xs, seen = maps(), []
    head.classify.conv.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert torch.equal(head(xs), head(xs))
    head.train()
    head(xs)
    flat = (seen[-1] == 0).flatten(2)
    assert seen[-1].shape[1] == width
    assert 0 < int(flat.all(2).sum()) < flat.shape[0] * width
    assert not (seen[0] == 0).flatten(2).all(2).all()
    assert [name for name, m in head.named_modules() if isinstance(m, nn.Dropout2d)] == ["classify.dropout"]


def test_maps_of_odd_sizes_are_joined_on_the_finest():
    head = ConcatHead(LEVELS, 3, 8).eval()
    for sizes in ([(75, 113), (38, 57), (19, 29), (10, 15)], [(1, 1)] * 4, [(33, 2), (17, 1), (9, 1), (5, 1)]):
        height, width = sizes[0]
        assert tuple(head(maps(sizes)).shape) == (2, 3, 4 * height, 4 * width)


@pytest.mark.parametrize(
    "options",
    [{}, {"classifier": "bottleneck"}, {"norm": "group"}, {"norm": "none", "act": False}, {"norm": "none"}],
)
def test_no_parameter_is_dead(options):
    head = stirred(ConcatHead(LEVELS, 3, 32, **options)).train()
    head(maps()).square().mean().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_every_level_is_read():
    head = stirred(ConcatHead(LEVELS, 3, 8))
    xs = [x.requires_grad_() for x in maps()]
    head(tuple(xs)).square().sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in xs)


@pytest.mark.parametrize("strides", [(7, 14, 28), (4, 8, 8, 8), (1, 2), (8,)])
def test_any_strides_that_are_multiples_of_the_finest(strides):
    levels = [Level(4, stride) for stride in strides]
    sizes = [(56 // stride, 56 // stride) for stride in strides]
    assert tuple(ConcatHead(levels, 3, 8).eval()(maps(sizes, levels)).shape) == (2, 3, 56, 56)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"act": False}, 'norm="batch" without activation; expected act=True, or norm="none"'),
        ({"classifier": "conv1x1"}, 'classifier: "conv1x1"; expected "conv3x3" or "bottleneck"'),
        ({"num_classes": 0}, "num_classes: 0; expected 1 or more"),
        ({"levels": [Level(4, 4), Level(4, 6)]}, r"strides \[4, 6\]; expected multiples of the finest"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options, told):
    with pytest.raises(ConfigError, match=told) as caught:
        ConcatHead(**{"levels": LEVELS, "num_classes": 3, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"head_options": {"clasifier": "x"}}, "head_options.clasifier: concat has no such option"),
        ({"head_options": {"levels": 3}}, "head_options.levels: 3; expected a list of"),
        ({"pyramid_options": {"channels": 3}}, "pyramid_options.channels: is an argument of its own"),
        ({"pyramid_options": {"act": True}}, "pyramid_options.act: fpn has no such option"),
        ({"backbone_options": {"strides": (4,)}}, "backbone_options.strides: is an argument of its own"),
        (
            {"backbone": "torchvision/resnet18", "backbone_options": {"depht": 3}},
            "backbone_options.depht: torchvision/resnet18 has no such option",
        ),
    ],
)
def test_options_that_a_piece_does_not_take_are_named(options, told):
    with pytest.raises(ConfigError, match=told):
        torchfpn.create_model(**{"backbone": "test_resnet", "head": "concat", "num_classes": 3, **options})


def test_the_options_of_a_piece_win_over_those_of_the_model():
    model = torchfpn.create_model(
        backbone="test_resnet", head="concat", num_classes=3, channels=8, head_channels=8,
        head_options={"norm": "none"}, pyramid_options={"smooth": False},
    )  # fmt: skip
    assert not [m for m in model.head.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not hasattr(model.pyramid, "smooth")
