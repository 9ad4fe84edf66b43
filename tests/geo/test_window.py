"""Laws of the plan: blocks tile the raster, windows hold their blocks, all on the model's grid."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.errors import ConfigError
from torchfpn.geo.window import largest_window, plan_blocks

SIZES = st.integers(1, 150)


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(1, 5), st.integers(0, 40), st.sampled_from([8, 16, 32]))
def test_every_pixel_is_written_once_and_windows_are_on_the_grid(height, width, sides, margin, multiple):
    blocks = plan_blocks(height, width, side=sides * multiple, margin=margin, multiple=multiple)
    written = np.zeros((height, width), int)
    for index, block in enumerate(blocks):
        row, column, rows, columns = block.block
        top, left, tall, wide = block.window
        written[row : row + rows, column : column + columns] += 1
        assert block.index == index
        assert top % multiple == left % multiple == 0
        assert 0 <= top <= row - min(row, margin)
        assert row + rows <= top + tall <= height
        assert min(height, row + rows + margin) <= top + tall
        assert left + wide == width or (left + wide) % multiple == 0
        whole = np.arange(height * width).reshape(height, width)
        window = whole[top : top + tall, left : left + wide]
        assert np.array_equal(window[block.inside], whole[row : row + rows, column : column + columns])
    assert (written == 1).all()
    assert largest_window(blocks) >= (min(height, sides * multiple), 1)


def test_a_plan_is_plain_values():
    (block,) = plan_blocks(10, 20, side=32, margin=4)
    assert json.loads(json.dumps(block.to_json())) == {
        "index": 0,
        "block": [0, 0, 10, 20],
        "window": [0, 0, 10, 20],
    }


@pytest.mark.parametrize(
    ("height", "side", "margin", "told"),
    [
        (10, 48, 0, "tile size: 48; expected a multiple of 32"),
        (10, 0, 0, "tile size: 0"),
        (10, 32, -1, "margin: -1"),
        (0, 32, 0, "0 x"),
    ],
)
def test_what_cannot_be(height, side, margin, told):
    with pytest.raises(ConfigError, match=told):
        plan_blocks(height, 10, side=side, margin=margin, multiple=32)
