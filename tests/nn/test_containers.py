"""The wiring says what it does, and says it when maps and modules do not match."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torchfpn import ShapeError
from torchfpn.nn.containers import Chain, Concat, Fork, Parallel, Pick, Shared, Stages, Sum, chain
from torchfpn.ops.resize import crop, pad_to_multiple
from torchfpn.types import Level


def maps(*sizes, channels=2):
    return tuple(torch.randn(1, channels, *size) for size in sizes)


def test_stages_give_every_intermediate_output():
    a, b = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1)
    x = torch.randn(1, 1, 4, 4)
    first, second = Stages(a, b)(x)
    assert torch.equal(first, a(x))
    assert torch.equal(second, b(a(x)))


def test_parallel_is_one_each_and_shared_one_for_all():
    xs = maps((4, 4), (2, 2))
    a, b = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)
    assert all(map(torch.equal, Parallel([a, b])(xs), (a(xs[0]), b(xs[1]))))
    assert all(map(torch.equal, Shared(a)(xs), (a(xs[0]), a(xs[1]))))


def test_parallel_names_the_numbers_that_differ():
    with pytest.raises(ShapeError, match="3 maps for 2 modules"):
        Parallel([nn.Identity(), nn.Identity()])(maps((1, 1), (1, 1), (1, 1)))


def test_fork_hands_a_hint_to_its_branch():
    class Times(nn.Module):
        def forward(self, x, by=1):
            return x * by

    out = Fork({"a": Times(), "b": Times()})(torch.ones(2), b={"by": 3})
    assert out["a"].tolist() == [1, 1]
    assert out["b"].tolist() == [3, 3]


def test_pick_gives_a_map_or_maps():
    xs = maps((3, 3), (2, 2), (1, 1))
    assert Pick(1)(xs) is xs[1]
    assert Pick((2, 0))(xs) == (xs[2], xs[0])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_sum_and_concat_work_on_the_grid_of_the_first(height, width, extra_h, extra_w):
    a, b = maps((height, width), (height + extra_h, width + extra_w))
    before = a.clone(), b.clone()
    total, joined = Sum()((a, b, b)), Concat()((a, b))
    cut = b[..., :height, :width]
    torch.testing.assert_close(total, a + 2 * cut)
    assert torch.equal(joined, torch.cat([a, cut], 1))
    assert torch.equal(a, before[0])  # nothing given is written to
    assert torch.equal(b, before[1])


def test_chain_hands_on_the_last_levels():
    class Piece(nn.Identity):
        levels = (Level(8, 4),)

    assert chain(first=Piece(), then=nn.ReLU()).levels == (Level(8, 4),)
    with pytest.raises(AttributeError):
        Chain().levels  # noqa: B018


def test_slices_of_what_builds_its_own_children_are_plain_containers():
    class Three(Chain):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.ReLU(), nn.Sigmoid(), nn.Tanh()

    class Twins(Parallel):
        def __init__(self):
            super().__init__([nn.ReLU(), nn.Tanh()])

    whole, twins = Three(), Twins()
    assert [name for name, _ in whole[1:].named_children()] == ["b", "c"]
    assert whole[1:][0] is whole.b
    assert type(whole[:2]) is Chain
    assert whole[-1] is whole.c
    assert type(twins[:1]) is Parallel
    assert twins[:1][0] is twins[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 8, 32]))
def test_crop_undoes_padding(height, width, multiple):
    x = torch.randn(1, 1, height, width)
    padded = pad_to_multiple(x, multiple)
    assert padded.shape[-2] % multiple == padded.shape[-1] % multiple == 0
    assert padded.shape[-2] - height < multiple
    assert padded.sum() == pytest.approx(x.sum().item(), abs=1e-4)
    assert torch.equal(crop(padded, (height, width)), x)
