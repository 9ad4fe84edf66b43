"""FPN against torchvision.ops.FeaturePyramidNetwork: the same bits, whatever the sizes."""

from collections import OrderedDict

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork

from torchfpn import FPN, Level

LEVELS = [Level(8, 4), Level(16, 8), Level(24, 16), Level(32, 32)]


def pair(channels=16):
    ours, theirs = FPN(LEVELS, channels), FeaturePyramidNetwork([level.channels for level in LEVELS], channels)
    for i in range(len(LEVELS)):
        theirs.inner_blocks[i][0].load_state_dict(ours.lateral[i].state_dict())
        theirs.layer_blocks[i][0].load_state_dict(ours.smooth[i].state_dict())
    return ours, theirs


@pytest.mark.parametrize("size", [(600, 900), (64, 96), (75, 101), (33, 31), (130, 7), (1, 1)])
def test_equal_bits_also_on_odd_sizes(size):
    torch.manual_seed(0)
    ours, theirs = pair()
    xs = tuple(torch.randn(2, c, -(-size[0] // s), -(-size[1] // s)) for c, s in LEVELS)
    expected = theirs(OrderedDict((str(i), x) for i, x in enumerate(xs)))
    got = ours(xs)
    assert [tuple(y.shape[-2:]) for y in got] == [tuple(x.shape[-2:]) for x in xs]
    for a, b in zip(got, expected.values(), strict=True):
        assert torch.equal(a, b)


def test_equal_gradients():
    torch.manual_seed(0)
    ours, theirs = pair()
    xs = [torch.randn(1, c, -(-75 // s), -(-101 // s)) for c, s in LEVELS]
    sum((y**2).sum() for y in ours(tuple(xs))).backward()
    sum((y**2).sum() for y in theirs(OrderedDict((str(i), x) for i, x in enumerate(xs))).values()).backward()
    for i in range(len(LEVELS)):
        torch.testing.assert_close(ours.lateral[i].weight.grad, theirs.inner_blocks[i][0].weight.grad)


def test_the_sizes_of_the_original_code_on_600x900():
    """Lin et al.'s strides on 600 x 900, as the original code prints them."""
    xs = tuple(torch.randn(1, c, -(-600 // s), -(-900 // s)) for c, s in LEVELS)
    assert [tuple(y.shape[-2:]) for y in FPN(LEVELS, 8)(xs)] == [(150, 225), (75, 113), (38, 57), (19, 29)]


def test_smoothing_may_be_left_out():
    fpn = FPN(LEVELS, 8, smooth=False)
    assert [name for name, _ in fpn.named_children()] == ["lateral", "top_down"]
    assert fpn.levels == tuple(Level(8, s) for s in (4, 8, 16, 32))
