"""3x3 convolutions by Winograd's transforms against torch's own, in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from torchfpn.errors import ShapeError
from torchfpn.ops import winograd
from torchfpn.ops.winograd import conv3x3

sides = st.integers(1, 13)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), sides, sides, st.booleans(), st.integers(1, 20))
def test_answers_and_gradients_are_those_of_a_convolution(images, channels, wide, height, width, biased, tiles):
    draws = torch.Generator().manual_seed(height * 100 + width)

    def made(*shape):
        return torch.randn(*shape, generator=draws, dtype=torch.float64).requires_grad_()

    x, weight = made(images, channels, height, width), made(wide, channels, 3, 3)
    bias = made(wide) if biased else None
    leaves = [leaf for leaf in (x, weight, bias) if leaf is not None]
    expected = F.conv2d(x, weight, bias, padding=1)
    meant = torch.autograd.grad(expected, leaves, grad := torch.randn_like(expected))
    usual, winograd.TILES = winograd.TILES, tiles
    try:
        found = conv3x3(x, weight, bias)
        gradients = torch.autograd.grad(found, leaves, grad)
    finally:
        winograd.TILES = usual
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)
    for one, other in zip(gradients, meant, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_rounding_stays_small():
    """Of the size that detectors have: 256 channels in float32."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 40, 52).relu(), torch.randn(256, 256, 3, 3) / 48
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    assert (conv3x3(x, weight) - exact).abs().max() < 1e-5 * exact.abs().max()
    assert conv3x3(x, weight).is_contiguous(memory_format=torch.channels_last)


class Sizes(TorchDispatchMode):
    """The elements of every tensor that is made inside, views left out."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and not func.is_view and not func._schema.is_mutable:
            self.made.append(found.numel())
        return found


def test_the_map_is_never_copied_as_a_whole():
    x, weight = torch.randn(1, 128, 512, 96).to(memory_format=torch.channels_last), torch.randn(128, 128, 3, 3)
    x.requires_grad_(), weight.requires_grad_()
    with Sizes() as sizes:
        found = conv3x3(x, weight)
    assert sorted(sizes.made)[-1] == x.numel()  # the answer
    assert sorted(sizes.made)[-2] < x.numel() / 2
    with Sizes() as sizes:
        torch.autograd.backward(found, x.detach())
    assert sorted(sizes.made)[-1] == x.numel()  # the gradient
    assert sorted(sizes.made)[-2] < x.numel() / 2


def test_weights_that_do_not_fit():
    with pytest.raises(ShapeError, match="weights"):
        conv3x3(torch.zeros(1, 3, 8, 8), torch.zeros(4, 2, 3, 3))
