"""Which convolutions are computed another way, and that they give the same."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from torchfpn.ops.winograd import Convolving


class Direct(TorchDispatchMode):
    """Counts the convolutions that torch computes; Winograd's are matrix products."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


def test_wide_3x3_convolutions_go_another_way_and_give_the_same():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(128, 160, 3, padding=1), torch.randn(1, 128, 37, 32)
    expected = conv(x)
    with Direct() as direct, Convolving():
        found = conv(x)
    assert direct.count == 0
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert conv(x).equal(expected)


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv2d(64, 128, 3, padding=1), 32),
        (nn.Conv2d(128, 128, 3, padding=1, stride=2), 32),
        (nn.Conv2d(128, 128, 3, padding=2, dilation=2), 32),
        (nn.Conv2d(128, 128, 3, padding="same"), 32),
        (nn.Conv2d(128, 128, 3), 32),
        (nn.Conv2d(128, 128, 1), 32),
        (nn.Conv2d(128, 128, 3, padding=1, groups=128), 32),
        (nn.Conv2d(128, 128, 3, padding=1).double(), 32),
        (nn.Conv2d(128, 128, 3, padding=1), 16),
    ],
)
def test_others_are_left_alone(conv, size):
    x = torch.randn(1, conv.in_channels, size, size, dtype=conv.weight.dtype)
    expected = conv(x)
    with Direct() as direct, Convolving():
        assert conv(x).equal(expected)
    assert direct.count == 1


def test_in_bfloat16_they_are_left_alone():
    conv, x = nn.Conv2d(128, 128, 3, padding=1), torch.randn(1, 128, 32, 32)
    with Direct() as direct, torch.autocast("cpu", torch.bfloat16), Convolving():
        assert conv(x).dtype == torch.bfloat16
    assert direct.count == 1
