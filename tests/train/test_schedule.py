"""The learning rate: warm-up, shape, end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.config.settings import ScheduleConfig
from torchfpn.train.optim import lr_factor


@given(
    name=st.sampled_from(["poly", "cosine", "constant"]),
    warmup=st.integers(0, 50),
    total=st.integers(1, 200),
    least=st.floats(0, 1),
)
@settings(max_examples=50)
def test_rises_to_one_then_never_rises_again(name, warmup, total, least):
    config = ScheduleConfig(name=name, warmup=warmup, min_factor=least)
    factors = [lr_factor(config, step, total) for step in range(total)]
    top = min(warmup, total)
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert all(0 < f <= 1 for f in factors[:top])
    assert all(least <= f <= 1 for f in factors[top:])
    if top < total:
        assert factors[top] == 1


def test_poly_is_the_formula_of_deeplab():
    config = ScheduleConfig(name="poly", power=0.9)
    assert [lr_factor(config, step, 10) for step in range(10)] == pytest.approx(
        [(1 - s / 10) ** 0.9 for s in range(10)]
    )


def test_cosine_ends_at_the_least_and_is_half_way_in_the_middle():
    config = ScheduleConfig(name="cosine", warmup=10, min_factor=0.1)
    assert lr_factor(config, 110, 110) == pytest.approx(0.1)
    assert lr_factor(config, 60, 110) == pytest.approx(0.55)


def test_warm_up_is_linear():
    config = ScheduleConfig(warmup=4)
    assert [lr_factor(config, step, 100) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
