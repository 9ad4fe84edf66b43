"""Which convolutions are computed another way, and that they give the same."""

import pytest
import torch
from torch import nn

from torchfpn.ops import winograd as convolving
from torchfpn.ops.winograd import Convolving


@pytest.fixture
def counted(monkeypatch):
    """How often the other way was taken."""
    calls = []

    def conv3x3(*arguments):
        calls.append(arguments)
        return real(*arguments)

    real = convolving.conv3x3
    monkeypatch.setattr(convolving, "conv3x3", conv3x3)
    return calls


def test_wide_3x3_convolutions_go_another_way_and_give_the_same(counted):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(128, 160, 3, padding=1), torch.randn(1, 128, 37, 32)
    expected = conv(x)
    with Convolving():
        found = conv(x)
    assert len(counted) == 1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert conv(x).equal(expected)
    assert len(counted) == 1


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
def test_others_are_left_alone(counted, conv, size):
    x = torch.randn(1, conv.in_channels, size, size, dtype=conv.weight.dtype)
    expected = conv(x)
    with Convolving():
        assert conv(x).equal(expected)
    assert not counted


def test_in_bfloat16_they_are_left_alone(counted):
    conv, x = nn.Conv2d(128, 128, 3, padding=1), torch.randn(1, 128, 32, 32)
    with torch.autocast("cpu", torch.bfloat16), Convolving():
        assert conv(x).dtype == torch.bfloat16
    assert not counted
