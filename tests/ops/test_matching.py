"""Matching in parts: whatever is computed at a time, the answer is that of the whole table of overlaps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfpn.ops import boxes as matching
from torchfpn.ops.boxes import BACKGROUND, UNDECIDED, match, overlaps


def whole(boxes, targets, *, high, low, always):
    """Ren et al. 2015, section 3.1.2, in one table."""
    if not len(targets):
        return torch.full((len(boxes),), BACKGROUND)
    table = overlaps(targets, boxes)
    best, which = table.max(0)
    found = which.clone()
    found[best < high] = UNDECIDED
    found[best < low] = BACKGROUND
    if always and len(boxes):
        most = table.max(1, keepdim=True).values
        nearest = ((table == most) & (most > 0)).any(0)
        found[nearest] = which[nearest]
    return found


def some(generator, count, side):
    """Boxes on a coarse grid: many are equal, touch, or have no area."""
    low = torch.randint(0, side, (count, 2), generator=generator).float()
    return torch.cat([low, low + torch.randint(0, 5, (count, 2), generator=generator).float()], 1)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(0, 40),
    st.integers(0, 40),
    st.sampled_from([4, 12, 60]),
    st.sampled_from([1, 3, 50, 10_000]),
    st.booleans(),
    st.sampled_from([(0.7, 0.3), (0.5, 0.5), (0.5, 0.0)]),
)
def test_the_answer_is_that_of_the_whole_table(seed, n, m, side, room, always, bounds):
    generator = torch.Generator().manual_seed(seed)
    boxes, targets = some(generator, n, side), some(generator, m, side)
    how = {"high": bounds[0], "low": bounds[1], "always": always}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "AT_ONCE", {"cpu": room})
        assert torch.equal(match(boxes, targets, **how), whole(boxes, targets, **how))


def test_parts_stay_within_the_room_and_meet_every_pair_that_overlaps_once(monkeypatch):
    monkeypatch.setattr(matching, "AT_ONCE", {"cpu": 200})
    generator = torch.Generator().manual_seed(0)
    boxes, targets = some(generator, 90, 60), some(generator, 70, 60)
    met = torch.zeros(70, 90, dtype=torch.int64)
    for chunk, near in matching._parts(boxes, targets):
        assert len(chunk) * len(near) <= 200
        met[chunk[:, None], near] += 1
    assert met.max() == 1
    assert met[overlaps(targets, boxes) > 0].min() == 1
    assert met.float().mean() < 0.5  # of the others many are not met at all
