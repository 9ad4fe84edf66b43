"""The head that reads one map: what it computes, and that nothing is made which it does not read."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchfpn
from torchfpn import FPN, ConfigError, FinestHead, Level

LEVELS = [Level(6, 4), Level(6, 8), Level(6, 16)]


def maps(size=(8, 12)):
    torch.manual_seed(1)
    return tuple(torch.randn(2, 6, -(-size[0] // n), -(-size[1] // n)) for n in (1, 2, 4))


def model(**options):
    torch.manual_seed(0)
    options = {
        "backbone": "test_resnet",
        "head": "finest",
        "num_classes": 3,
        "channels": 8,
        "head_channels": 8,
    } | options
    return torchfpn.create_model(**options)


@pytest.mark.parametrize("align_corners", [False, True])
def test_it_is_a_convolution_and_a_classifier_on_the_first_map(align_corners):
    torch.manual_seed(0)
    head = FinestHead(LEVELS, 5, 16, align_corners=align_corners).eval()
    conv, norm = head.refine.conv, head.refine.norm
    nn.init.normal_(head.classify.weight)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    xs = maps()
    x = F.conv2d(xs[0], conv.weight, padding=1)
    x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
    x = F.conv2d(x, head.classify.weight, head.classify.bias)
    expected = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(head(xs), expected)
    assert torch.equal(head(xs), head((xs[0], xs[1] + 1, xs[2] * 0)))


def test_an_fpn_makes_no_map_that_the_head_does_not_read():
    made = model()
    assert len(made.pyramid.smooth) == 1
    assert len(made.pyramid.lateral) == 4
    assert made.pyramid.levels == (Level(8, 4),)
    maps_ = made.pyramid(made.backbone(torch.randn(1, 3, 64, 64)))
    assert [tuple(x.shape) for x in maps_] == [(1, 8, 16, 16)]


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_fewer_outputs_are_the_first_of_all(outputs):
    few, full = FPN(LEVELS, 8, outputs=outputs), FPN(LEVELS, 8)
    full.load_state_dict({**full.state_dict(), **few.state_dict()})
    xs = maps((9, 13))
    assert len(few(xs)) == len(few.levels) == outputs
    assert all(torch.equal(a, b) for a, b in zip(few(xs), full(xs), strict=False))
    assert len(few.smooth) == outputs


@pytest.mark.parametrize("outputs", [0, 4, -1])
def test_outputs_that_there_are_not_are_refused(outputs):
    with pytest.raises(ConfigError, match=f"outputs: {outputs}; expected 1 to 3"):
        FPN(LEVELS, 8, outputs=outputs)


@pytest.mark.parametrize("options", [{}, {"smooth": False}, {"norm": "none"}])
def test_no_parameter_is_dead(options):
    made = model(**options).train()
    for p in made.parameters():
        if p.ndim == 1:
            nn.init.ones_(p)  # residual branches start with a norm weight of zero, which hides what lies before
    made(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [
        n for n, p in made.named_parameters() if "bias" not in n and not (p.grad is not None and p.grad.any())
    ] == []


@pytest.mark.parametrize("size", [(1, 1), (33, 50), (75, 113)])
def test_output_has_the_size_of_the_input(size):
    assert tuple(model().eval()(torch.randn(1, 3, *size)).shape) == (1, 3, *size)


def test_dropout_drops_whole_maps_while_training_only():
    made = model(dropout=0.5)
    x, seen = torch.randn(2, 3, 32, 32), []
    made.head.classify.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    made.eval()
    assert torch.equal(made(x), made(x))
    made.train()
    made(x)
    gone = (seen[-1] == 0).flatten(2).all(2)
    assert gone.any()
    assert not gone.all()


@pytest.mark.parametrize(
    "options",
    [{"pyramid": "panet"}, {"pyramid": "simple", "backbone": "test_vit"}, {"extra": "pool"}, {"extra": "conv-c5"}],
)
def test_what_it_would_leave_unread_is_refused_naming_the_head_that_reads_it(options):
    with pytest.raises(ConfigError, match=r"^head: .*; head=sum$") as caught:
        model(**options)
    assert "\n" not in str(caught.value)


def test_a_misspelt_head_is_named():
    with pytest.raises(
        ConfigError, match=r'^head: "finset"; expected sum \| concat \| finest; did you mean "finest"\?'
    ):
        model(head="finset")
