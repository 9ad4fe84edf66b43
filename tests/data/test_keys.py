"""Draws: the same for the same arguments, every sample equally often, any epoch entered directly."""

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.data.sampler import Draw, KeyedSampler, generator, key
from torchfpn.errors import ConfigError


def draws(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_keys_are_frozen():
    """The figures of the first release: a run that is resumed by a newer torchfpn must see the same samples."""
    assert key(0) == 4246866556266386882
    assert key(1, 2, 3) == 1517167407554927345
    assert [draw.index for draw in KeyedSampler(6, seed=7)] == FROZEN


FROZEN = [3, 5, 1, 2, 4, 0]


@given(st.lists(st.integers(), max_size=4), st.lists(st.integers(), max_size=4))
def test_keys_differ_and_fit(a, b):
    assert 0 <= key(*a) < 2**63
    assert (key(*a) == key(*b)) == (a == b)


@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 3), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_the_stream_does_not_depend_on_how_it_is_cut(n, per_epoch, seed, epoch):
    whole = draws(KeyedSampler(n, seed=seed, per_epoch=per_epoch * (epoch + 1)), 0)
    assert draws(KeyedSampler(n, seed=seed, per_epoch=per_epoch), epoch) == whole[per_epoch * epoch :]


@given(st.integers(1, 12), st.integers(1, 9), st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_ranks_share_the_stream(n, per_epoch, world):
    alone = draws(KeyedSampler(n, seed=1, per_epoch=per_epoch * world), 3)
    parts = [draws(KeyedSampler(n, seed=1, per_epoch=per_epoch, rank=r, world=world), 3) for r in range(world)]
    assert list(chain(*zip(*parts, strict=True))) == alone


def test_every_sample_equally_often_and_every_key_once():
    sampler = KeyedSampler(7, seed=3, per_epoch=5)
    seen = [draw for epoch in range(14) for draw in draws(sampler, epoch)]
    assert set(Counter(draw.index for draw in seen).values()) == {10}
    assert len({draw.key for draw in seen}) == 70


def test_seeds_and_rounds_differ():
    one, other = KeyedSampler(50, seed=0), KeyedSampler(50, seed=1)
    assert len(one) == 50
    assert [d.index for d in draws(one, 0)] != [d.index for d in draws(one, 1)]
    assert [d.index for d in draws(one, 0)] != [d.index for d in draws(other, 0)]
    assert isinstance(draws(one, 0)[0], Draw)


def test_generator_is_that_of_the_key():
    assert generator(1, 2).initial_seed() == key(1, 2)


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 3, "per_epoch": 0}, {"n": 3, "rank": 1}])
def test_nothing_to_draw(options):
    with pytest.raises(ConfigError):
        KeyedSampler(**options)
